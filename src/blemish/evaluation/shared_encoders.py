"""One encoder for all runs that use it, and its features for all runs on the same images."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from blemish.evaluation.runs import CategoryData, Run, build_inspector

if TYPE_CHECKING:
    from blemish.encoders.base import Encoder


class SharedEncoders:
    """The encoder of every method, loaded once; on a CPU its features are kept while runs use the same categories,
    or some of them.

    They are kept in a new folder inside `folder` (None: the system's temporary folder), which is removed at the end of
    this context manager. With a `cache` they are kept there instead, in float16, and later evaluations find them.
    """

    def __init__(self, folder: Path | None = None, cache: Path | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="blemish-", dir=folder)
        self._cache = cache
        self._encoders: dict[tuple[object, ...], Encoder] = {}
        self._categories: tuple[CategoryData, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def of(self, run: Run) -> Encoder:
        """The run's encoder, with the layers its detector asks for. Raises WeightsError when it cannot load."""
        from blemish.encoders.feature_cache import CachingEncoder, with_disk_cache

        if not all(any(category is known for known in self._categories) for category in run.categories):
            for encoder in self._encoders.values():
                if isinstance(encoder, CachingEncoder) and self._cache is None:
                    encoder.clear()
            self._categories = run.categories
        method = build_inspector(run)
        name, needs = method.chosen_encoder, method.detector.needs
        own = tuple(str(run.settings.get(setting)) for setting in ("layers", "precision"))
        key = (name, run.device, needs.layers, *own, needs.points_stride, needs.alignment)
        if key not in self._encoders:
            encoder = method.built_encoder()
            if self._cache is not None:
                encoder = with_disk_cache(encoder, self._cache)
            elif str(getattr(encoder, "device", "")) == "cpu":  # there, features do not depend on the batch
                encoder = CachingEncoder(encoder, Path(self._folder.name) / str(len(self._encoders)))
            self._encoders[key] = encoder
        return self._encoders[key]
