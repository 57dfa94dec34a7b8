"""From an image to its prediction by a bundle: decode, frame, run the graph, pool, judge; as `Inspector.inspect`."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from blemish.data.content import content_warnings
from blemish.data.loading import ImageInput, as_sample
from blemish.data.samples import image_of
from blemish.errors import BlemishError, DataWarning, ImageError
from blemish.numeric.pooling import judged_scores
from blemish.numeric.raster import ignored_patches
from blemish.preprocessing.framing import Frame
from blemish.preprocessing.ignored_area import fill_ignored, ignored_pixels
from blemish.runtime.bundle import Bundle
from blemish.runtime.engines import Engine, load_engine
from blemish.scoring.image_prediction import image_prediction
from blemish.types import Failure, Prediction, Sample


class Runtime:
    """Inspects images with the bundle in a folder.

    `threads` is how many the engine uses (0: as many as there are cores). Graphs are loaded when their size of frame
    first comes. Raises ModelError for a folder that is no whole bundle, or where its engine is missing.
    """

    def __init__(self, folder: str | Path, threads: int = 0) -> None:
        self.bundle = Bundle.read(folder)
        self.threads = threads
        self._engines: dict[tuple[int, int], Engine] = {}
        self.engine(next(iter(self.bundle.graphs)))  # a missing engine shows now

    def inspect(self, image: ImageInput) -> Prediction:
        """The prediction about one image: a path, an `(H, W, 3)` uint8 array, a PIL picture, bytes.

        Raises ImageError for what cannot be read, or frames to a size that the bundle has no graph for.
        """
        return self.inspect_sample(as_sample(image))[0]

    def inspect_sample(self, sample: Sample) -> tuple[Prediction, np.ndarray]:
        """The prediction about a sample's image, and its decoded pixels `(H, W, 3)` uint8."""
        started = time.perf_counter()
        image = image_of(sample, self.bundle.full_scale)
        for warning in content_warnings(image, sample.name):
            warnings.warn(warning, stacklevel=2)
        frame = self.bundle.framing.frame(fill_ignored(image, self.bundle.ignored))
        if frame.note:
            warnings.warn(DataWarning("resolution", sample.name, frame.note), stacklevel=2)
        found = self.predict(frame, sample.name)
        return replace(found, seconds=time.perf_counter() - started, source=sample.name), image

    def predict(self, frame: Frame, name: str = "array") -> Prediction:
        """The prediction about a framed image."""
        outputs = self.engine(frame.encoder_input.shape[:2], name).run(frame.encoder_input[None])
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

    def inspect_stream(self, samples: Iterable[Sample]) -> Iterator[tuple[Prediction, np.ndarray] | Failure]:
        """Each image's prediction and pixels, or why there is none; the rest goes on."""
        for sample in samples:
            try:
                yield self.inspect_sample(sample)
            except BlemishError as error:
                yield Failure(sample.name, str(error))

    def engine(self, size: tuple[int, int], name: str = "array") -> Engine:
        """The engine for framed images of a size (height, width). Raises ImageError for one without a graph."""
        if size not in self._engines:
            graphs = self.bundle.graphs
            if size not in graphs:
                known = ", ".join(f"{width}x{height}" for height, width in graphs)
                raise ImageError(
                    f"a picture that is seen at {known} pixels, as the good ones",
                    f"'{name}', which would be at {size[1]}x{size[0]}",
                    "give pictures of the same shape, or export again with --picture of this shape",
                )
            precision = self.bundle.facts["precision"]
            self._engines[size] = load_engine(self.bundle.engine, graphs[size], self.threads, precision)
        return self._engines[size]
