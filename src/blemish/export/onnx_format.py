"""Graphs as ONNX files: exported with the batch left open, their weights in one file that all sizes share, int8."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from blemish.errors import SettingsError
from blemish.export.graph import INPUT, OUTPUTS, InspectionGraph
from blemish.runtime.bundle import WEIGHTS
from blemish.runtime.engines import first_line
from blemish.utils.optional import need

OPSETS = (18, 21)
LEAST_SHARED = 1024  # bytes from which a tensor goes into the shared file
EXAMPLES = 2  # images that are traced: of one, its batch would be taken for fixed


def onnx_graph(graph: InspectionGraph, opset: int) -> Any:
    """The graph as an ONNX model. Raises SettingsError where a network has no such form."""
    need("onnxscript", "export", "exporting")
    images = torch.zeros(EXAMPLES, *graph.size, 3, dtype=torch.uint8)
    try:
        with torch.no_grad(), quiet():
            program = torch.onnx.export(
                graph.eval(),
                (images,),
                dynamo=True,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=opset,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise SettingsError(
            "a detector and an encoder whose operations a graph can hold",
            first_line(error.__cause__ or error),
            "inspect with the model itself",
        ) from error
    assert program is not None  # dynamo=True gives one
    return program.model_proto


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporter says of packages that are not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class SharedWeights:
    """The file of weights that the graphs of one bundle share; a tensor that several hold is stored once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._offsets: dict[bytes, int] = {}
        self._length = 0

    def save(self, model: Any, name: str) -> Path:
        """Write the ONNX `model` as `name`, its larger tensors into the shared file."""
        from onnx import TensorProto, external_data_helper, save_model

        with (self.folder / WEIGHTS).open("ab") as file:
            for tensor in model.graph.initializer:
                content = tensor.raw_data
                if len(content) < LEAST_SHARED:
                    continue
                key = hashlib.sha256(content).digest()
                if key not in self._offsets:
                    padding = -self._length % 4096  # engines map aligned pages
                    file.write(b"\0" * padding + content)
                    self._offsets[key] = self._length + padding
                    self._length += padding + len(content)
                external_data_helper.set_external_data(tensor, WEIGHTS, offset=self._offsets[key], length=len(content))
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
        save_model(model, str(self.folder / name))
        return self.folder / name


def set_numbers(path: Path, numbers: Mapping[str, float], facts: Mapping[str, object]) -> None:
    """Give numbers in the ONNX file at `path` their values, by their names in the graph, and the file its metadata."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(path), load_external_data=False)
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, value in numbers.items():
        tensor = held[name]
        array = np.asarray(value, dtype=np.float32).reshape(tuple(tensor.dims))
        tensor.CopyFrom(numpy_helper.from_array(array, name))
    onnx.helper.set_model_props(model, {name: str(value) for name, value in facts.items()})
    onnx.save_model(model, str(path))


def in_int8(model: Any, folder: Path) -> Any:
    """The ONNX `model` with the encoder's linear layers in int8: weights per channel, activations as they come.

    Attention itself, norms, convolutions and all that follows the encoder stay in float32. Weights have 7 bits, so that
    processors without VNNI do not saturate. `folder` takes two files for a while.
    """
    import onnx

    quantization = need("onnxruntime.quantization", "export", "int8")

    names = linear_nodes(model)
    if not names:
        raise SettingsError(
            "an encoder with linear layers for --int8, a transformer", "none", "leave --int8 out for this model"
        )
    plain, small = folder / "plain.onnx", folder / "small.onnx"
    try:
        onnx.save_model(model, str(plain))
        with quiet():
            quantization.quantize_dynamic(
                str(plain),
                str(small),
                op_types_to_quantize=["MatMul", "Gemm"],
                nodes_to_quantize=names,
                per_channel=True,
                reduce_range=True,
                extra_options={"MatMulConstBOnly": True},
            )
        return onnx.load(str(small))
    finally:
        plain.unlink(missing_ok=True)
        small.unlink(missing_ok=True)


def linear_nodes(model: Any) -> list[str]:
    """The names of the nodes that multiply by a weight of the encoder's, in a block of a transformer."""
    constants = {tensor.name for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        scopes = next((entry.value for entry in node.metadata_props if entry.key.endswith("name_scopes")), "")
        is_linear = node.op_type in ("MatMul", "Gemm") and node.input[1] in constants
        if is_linear and "encoder" in scopes and "network" in scopes:
            found.append(node.name)
    return found
