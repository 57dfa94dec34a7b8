"""From an image to its prediction by a bundle: decode, frame, run the graph, pool, judge; as `Inspector.inspect`."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

import numpy as np

from blemish.data.content import content_warnings
from blemish.data.loading import ImageInput, as_sample
from blemish.data.samples import image_of
from blemish.errors import BlemishError, DataWarning, ImageError, ModelError, SettingsError
from blemish.numeric.pooling import judged_scores
from blemish.numeric.raster import ignored_patches
from blemish.preprocessing.framing import Frame
from blemish.preprocessing.ignored_area import fill_ignored, ignored_pixels
from blemish.runtime.bundle import Bundle
from blemish.runtime.engines import Engine, load_engine, run_engine
from blemish.scoring.image_prediction import image_prediction
from blemish.types import Failure, Prediction, Sample
from blemish.utils.paths import shown
from blemish.utils.read_ahead import ReadAhead

AHEAD = 2  # decoded images that wait, at most


@dataclass(frozen=True, eq=False)
class Opened:
    """A decoded image `(H, W, 3)` uint8, its frame, and the seconds that took."""

    sample: Sample
    image: np.ndarray
    frame: Frame
    seconds: float


class Runtime:
    """Inspects images with the bundle in a folder.

    `threads` is how many the engine uses, at most as many as there are cores (0: all of them). Graphs are loaded when
    their size of frame first comes. Raises ModelError for a folder that is no whole bundle, or where its engine is
    missing, SettingsError for `threads` below 0.

    One object serves any number of threads that call it at the same time, as in a web service: each gets the results
    of its own images. ONNX Runtime runs them side by side, OpenVINO one after the other.
    """

    def __init__(self, folder: str | Path, threads: int = 0) -> None:
        if threads < 0:
            raise SettingsError("threads of 0 (all cores) or more", str(threads), "give the number of threads")
        self.bundle = Bundle.read(folder)
        self.threads = min(threads, os.cpu_count() or 1)  # engines start as many as they are told, which may take hours
        self._engines: dict[tuple[int, int], Engine] = {}
        self._loading = Lock()
        self.engine(next(iter(self.bundle.graphs)))  # a missing engine shows now

    def inspect(self, image: ImageInput) -> Prediction:
        """The prediction about one image: a path, an `(H, W, 3)` uint8 array, a PIL picture, bytes.

        Raises ImageError for what cannot be read, or frames to a size that the bundle has no graph for; ModelError
        where such a graph must be loaded, and the folder is not the one any more that was read, or the engine fails.
        """
        return self.inspect_sample(as_sample(image))[0]

    def inspect_sample(self, sample: Sample) -> tuple[Prediction, np.ndarray]:
        """The prediction about a sample's image, and its decoded pixels `(H, W, 3)` uint8."""
        opened = self._open(sample)
        return self._predict_opened(opened), opened.image

    def _open(self, sample: Sample) -> Opened:
        """A decoded and framed image."""
        started = time.perf_counter()
        image = image_of(sample, self.bundle.full_scale)
        for warning in content_warnings(image, sample.name):
            warnings.warn(warning, stacklevel=2)
        frame = self.bundle.framing.frame(fill_ignored(image, self.bundle.ignored))
        if frame.note:
            warnings.warn(DataWarning("resolution", sample.name, frame.note), stacklevel=2)
        return Opened(sample, image, frame, time.perf_counter() - started)

    def _open_or_fail(self, sample: Sample) -> Opened | Failure:
        """As `_open`, or why there is none."""
        try:
            return self._open(sample)
        except BlemishError as error:
            return Failure(sample.name, str(error))

    def _predict_opened(self, opened: Opened) -> Prediction:
        """The prediction about a framed image, with its source and all that it took."""
        started = time.perf_counter()
        found = self.predict(opened.frame, opened.sample.name)
        seconds = opened.seconds + time.perf_counter() - started
        return replace(found, seconds=seconds, source=opened.sample.name)

    def predict(self, frame: Frame, name: str = "array") -> Prediction:
        """The prediction about a framed image. Raises ImageError and ModelError as `inspect` does."""
        engine, of = self.engine(frame.input_size, name), f"the bundle '{shown(self.bundle.folder)}' on '{name}'"
        outputs = run_engine(engine, frame.encoder_input[None], of)
        patches = np.asarray(outputs["patch_scores"], dtype=np.float32)  # (1, h, w)
        if not np.isfinite(patches).all():
            raise ImageError("finite scores", f"others for '{name}'", "export the model again")
        facts, ignored = self.bundle.facts, self.bundle.ignored
        is_known = float(outputs["distance"][0]) <= facts["recognition"]["threshold"]
        gone = None  # (1, h, w)
        if ignored is not None:
            gone = ignored_patches(ignored_pixels(ignored, frame), patches.shape[1:])[None]
            is_known = is_known and not gone.all()
        own = None if facts["pooling"] else outputs["pred_score"]
        scores, patches = judged_scores(patches, facts["pooling"], gone, own)
        return image_prediction(
            frame,
            float(scores[0]),
            patches[0],
            self.bundle.calibration,
            is_known=is_known,
            category=self.bundle.category,
            ignored=ignored,
        )

    def inspect_stream(self, samples: Iterable[Sample]) -> Generator[tuple[Prediction, np.ndarray] | Failure]:
        """Each image's prediction and pixels, or why there is none; the rest goes on. Images are decoded ahead.

        Raises ModelError where the bundle itself cannot be used any more.
        """
        with closing(ReadAhead(samples, self._open_or_fail, AHEAD)) as stream:
            for opened in stream:
                yield opened if isinstance(opened, Failure) else self._predict_or_fail(opened)

    def _predict_or_fail(self, opened: Opened) -> tuple[Prediction, np.ndarray] | Failure:
        """The prediction about a framed image and its pixels, or why there is none. Raises ModelError."""
        try:
            return self._predict_opened(opened), opened.image
        except ModelError:
            raise
        except BlemishError as error:
            return Failure(opened.sample.name, str(error))

    def engine(self, size: tuple[int, int], name: str = "array") -> Engine:
        """The engine for framed images of a size (height, width).

        Raises ImageError for one without a graph, ModelError where its files are not those any more that were read.
        """
        if size not in self._engines:
            with self._loading:
                self._engines[size] = self._engines.get(size) or self._load(size, name)
        return self._engines[size]

    def _load(self, size: tuple[int, int], name: str) -> Engine:
        graphs = self.bundle.graphs
        if size not in graphs:
            known = ", ".join(f"{width}x{height}" for height, width in graphs)
            raise ImageError(
                f"a picture that is seen at {known} pixels, as the good ones",
                f"'{name}', which would be at {size[1]}x{size[0]}",
                "give pictures of the same shape, or export again with --picture of this shape",
            )
        try:
            return load_engine(self.bundle.engine, graphs[size], self.threads, self.bundle.facts["precision"])
        finally:  # not before: the folder may be replaced, by another export, while the graph is read
            self.bundle.check_graph(graphs[size])
