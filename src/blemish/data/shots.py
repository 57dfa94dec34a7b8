"""A few normal samples drawn so that runs compare across programs, and folds over them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from blemish.errors import DatasetError, SettingsError
from blemish.types import Sample
from blemish.utils.validation import LARGEST_SEED


def draw_shots(samples: Sequence[Sample], k: int | None, seed: int = 0) -> list[Sample]:
    """`k` of `samples` in drawn order, or all of them, sorted by path, for None.

    The draw is `numpy.random.RandomState(seed).permutation(n)[:k]` over the samples sorted by path. Samples of several
    categories are drawn category by category, `k` of each with the same seed, as if each stood alone.

    Raises SettingsError for k < 1 or a seed that numpy would refuse, and DatasetError when a category has fewer than k.
    """
    if k is not None and k < 1:
        raise SettingsError("at least 1 shot, or none for all good pictures", str(k), "raise it")
    if k is not None and not 0 <= seed <= LARGEST_SEED:
        raise SettingsError(f"a seed from 0 to {LARGEST_SEED} to draw pictures by", str(seed), "choose one of these")
    drawn: list[Sample] = []
    for category in sorted({sample.category or "" for sample in samples}):
        members = sorted((s for s in samples if (s.category or "") == category), key=_place)
        if k is not None and k > len(members):
            raise DatasetError(
                f"at least {k} good pictures" + (f" of {category}" if category else ""),
                str(len(members)),
                f"ask for at most {len(members)} shots, or give more pictures",
            )
        order = range(len(members)) if k is None else np.random.RandomState(seed).permutation(len(members))[:k]
        drawn += [members[i] for i in order]
    return drawn


def folds(n: int, count: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """`count` ways to split `range(n)` into (fitted on, held out) index arrays, both sorted.

    Each index is held out exactly once; the parts held out differ in size by at most one.
    """
    if not 2 <= count <= n:
        raise SettingsError(f"2 to {n} folds over {n} pictures", str(count), "choose a count between these")
    parts = np.array_split(np.random.RandomState(seed).permutation(n), count)
    return [(np.setdiff1d(np.arange(n), part), np.sort(part)) for part in parts]


def _place(sample: Sample) -> tuple[str, ...]:
    # Images from memory have no path: they keep the order in which they came, because sorting is stable.
    return () if isinstance(sample.source, np.ndarray) else sample.source.parts
