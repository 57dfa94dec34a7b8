"""What a method costs: seconds to fit, milliseconds a picture, peak memory; each measured, never reconstructed."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from blemish.types import Sample

if TYPE_CHECKING:
    from blemish.encoders.base import Encoder
    from blemish.model.inspector import Inspector

TIMED_IMAGES = 20  # inspected again without a feature cache; the mean of so many varies by a few per cent


class FitTimer:
    """Seconds since it was made, nan where `encoder` read features back that an earlier run had computed.

    A fit that finds its features in a cache takes seconds that no user would see.
    """

    def __init__(self, encoder: Encoder | None = None) -> None:
        from blemish.encoders.feature_cache import CachingEncoder

        self._cache = encoder if isinstance(encoder, CachingEncoder) else None
        if self._cache is not None:
            self._cache.mark()
        self._started = time.perf_counter()

    def seconds(self) -> float:
        """Wall-clock seconds so far."""
        return math.nan if self._cache and self._cache.hits else time.perf_counter() - self._started


def milliseconds_per_image(
    inspector: Inspector, samples: Sequence[Sample], category: str | None = None, most: int = TIMED_IMAGES
) -> float:
    """Wall-clock milliseconds an image, decoding included, with nothing encoded before; nan for `most` 0.

    Measured over at most `most` of the samples, evenly spaced, after one that warms up. Images that cannot be read
    count like others: they take next to no time, but there are few of them.
    """
    if most < 1 or not samples:
        return math.nan
    chosen = [samples[i * len(samples) // min(most, len(samples))] for i in range(min(most, len(samples)))]
    with uncached(inspector.encoder_):
        for _ in inspector.inspect_many(chosen[:1], category):
            pass
        started = time.perf_counter()
        for _ in inspector.inspect_many(chosen, category):
            pass
        return 1000 * (time.perf_counter() - started) / len(chosen)


def uncached(encoder: Encoder) -> AbstractContextManager[None]:
    """Have an encoder with a feature cache encode every image until the block ends."""
    from blemish.encoders.feature_cache import CachingEncoder

    return encoder.paused() if isinstance(encoder, CachingEncoder) else nullcontext()


class PeakMemory:
    """The largest resident memory of this process since the object was made, the interpreter and weights included.

    Linux can forget an earlier peak; elsewhere the peak of the whole process is given, which earlier runs may have set.
    """

    def __init__(self) -> None:
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self.resettable = True
        except OSError:
            self.resettable = False

    def megabytes(self) -> float:
        """The peak so far, in 10⁶ bytes; nan where the system does not report it."""
        if self.resettable:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return float(line.split()[1]) * 1024 / 1e6
        try:
            import resource
        except ImportError:  # Windows
            return math.nan
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
