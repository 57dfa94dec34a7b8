"""The engines that run a bundle's graphs: ONNX Runtime and OpenVINO, behind one call."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np

from blemish.errors import BlemishError, ModelError
from blemish.runtime.bundle import WEIGHTS, EngineName
from blemish.utils.paths import shown

INPUT = "images"
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}
_IN_SOURCES = re.compile(r"Exception from \S+:\d+:\s*$|Check '.*' failed at \S+:\d+:\s*$")


class Engine(Protocol):
    """A loaded graph, which several threads may run at once."""

    def run(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """Framed `images` `(B, H, W, 3)` uint8 → the graph's outputs by name."""
        ...


class OnnxEngine:
    """A graph in ONNX Runtime on the CPU, with `threads` threads (0: as many as there are cores)."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        runtime = engine_package("onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        self.session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.names = [output.name for output in self.session.get_outputs()]

    def run(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        return dict(zip(self.names, self.session.run(self.names, {INPUT: images}), strict=True))


class OpenVinoEngine:
    """A graph in OpenVINO on the CPU, at the `precision` ("f32", "bf16") of the bundle.

    A compiled model writes all results into the tensors of one request: threads run it one after the other.
    """

    def __init__(self, path: Path, threads: int = 0, precision: str = "f32") -> None:
        openvino = engine_package("openvino")
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        core = openvino.Core()
        self.model = core.compile_model(core.read_model(str(path)), "CPU", settings)
        self._one_at_a_time = Lock()

    def run(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        with self._one_at_a_time:
            found = self.model(images)
            return {output.get_any_name(): found[output] for output in self.model.outputs}


def load_engine(name: EngineName, path: Path, threads: int = 0, precision: str = "f32") -> Engine:
    """The graph at `path`, ready to run. Raises ModelError where the engine cannot read it."""
    try:
        return OnnxEngine(path, threads) if name == "onnx" else OpenVinoEngine(path, threads, precision)
    except BlemishError:
        raise
    except Exception as error:  # the engines' own errors share no type
        version = getattr(engine_package(name), "__version__", "?")
        do = f"install the {PACKAGES[name]} that the bundle's README names, or export with a lower --opset"
        if name == "onnx" and (path.parent / WEIGHTS).resolve().parent != path.resolve().parent:
            do = f"copy the bundle with its files themselves (cp -rL): {PACKAGES[name]} reads no weights behind links"
        raise ModelError(
            f"a graph that {PACKAGES[name]} {version} can run, '{shown(path)}'", first_line(error), do
        ) from error


def run_engine(engine: Engine, images: np.ndarray, of: str) -> Mapping[str, np.ndarray]:
    """The outputs about framed `images`. Raises ModelError, which says what they are `of`, where the engine cannot."""
    try:
        return engine.run(images)
    except MemoryError:
        raise
    except Exception as error:  # the engines' own errors share no type
        raise ModelError(
            f"an engine that runs {of}",
            f"{type(engine).__name__}: {first_line(error)}",
            "check the memory that is free, and the version of the engine against the bundle's README",
        ) from error


def engine_package(name: EngineName) -> Any:
    """The engine's package. Raises ModelError, which says how to install it."""
    try:
        return importlib.import_module(PACKAGES[name])
    except ImportError as error:
        raise ModelError(
            f"the engine {PACKAGES[name]}, which this bundle was exported for",
            f"none installed ({error})",
            f"pip install {PACKAGES[name]}",
        ) from error


def first_line(error: BaseException) -> str:
    """What an error says, in one line of at most 200 characters; its type where it says nothing.

    OpenVINO first says where in its sources it was raised.
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not _IN_SOURCES.match(line)]
    return ([*told, *lines, type(error).__name__][0]).strip()[:200]
