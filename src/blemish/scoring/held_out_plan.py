"""Which normal images are held out, so that thresholds rest on scores of images that a detector was not fitted on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from blemish.detectors.base import Needs
from blemish.scoring.calibration import order_statistics_suffice
from blemish.types import POINTS

FOLDS = 5  # as usual in cross-validation
FEW = 10  # normal images of a category; fewer are left out one by one, or not at all where fitting is slow
TARGET = 60  # held-out scores of a category; more folds would only cost time
DEFECT_IMAGES = 6  # held-out images of a category that small defects are made up on: bounds the cost


@dataclass(frozen=True)
class HeldOutPlan:
    """Indices of normal images.

    The final detector is fitted on `fitted`; the images of each of `folds` are scored by a detector that was fitted on
    all others; those of `split` are never fitted on; of `copied`, perturbed copies are scored. Those of `with_defects`,
    held out or copied, are also scored with small synthetic defects: where held-out scores are too few to reach down to
    the accepted rate, these say what the threshold lets pass. Those `never_held_out` are fitted on alone.
    """

    fitted: tuple[int, ...]
    folds: tuple[tuple[int, ...], ...] = ()
    split: tuple[int, ...] = ()
    copied: tuple[int, ...] = ()
    with_defects: tuple[int, ...] = ()
    never_held_out: frozenset[int] = frozenset()

    def counts(self, categories: Sequence[str]) -> Counter[str]:
        """How many images of each of the `categories` `(n,)` of normal images thresholds may rest on."""
        return Counter(name for i, name in enumerate(categories) if i not in self.never_held_out)


def is_slow(needs: Needs) -> bool:
    """Whether fitting takes long: as detectors say, or by their asking for augmentations or synthetic anomalies."""
    return needs.slow_fit or needs.augmentation or needs.synthetic_anomalies


def plan_held_out(
    categories: Sequence[str],
    needs: Needs,
    rate: float,
    seed: int = 0,
    never_held_out: Collection[int] = (),
) -> HeldOutPlan:
    """How each category's held-out scores are gained; `categories` `(n,)` names that of every normal image.

    Those `never_held_out` are fitted on alone: they were chosen by their scores, and say nothing about those of others.

    - One image: perturbed copies of it, for there is no other.
    - Quick fitting: under `FEW` images, leave one out; else `FOLDS` folds, of which only as many are fitted as it takes
      to hold out `TARGET` images (more for a very small `rate`). The final detector is fitted on all.
    - Slow fitting: under `FEW` images, perturbed copies of them; else a fifth (at most `TARGET`) is split off for good.
    """
    random = np.random.default_rng(seed)
    names = np.asarray(categories)
    target = max(TARGET, math.ceil(2 / rate))
    folds: list[list[int]] = []
    split: list[int] = []
    copied: list[int] = []
    for name in dict.fromkeys(categories):
        members = np.setdiff1d(np.flatnonzero(names == name), list(never_held_out))
        shuffled = random.permutation(members).tolist()
        are_few = len(members) < FEW
        largest = 1 if are_few else -(-len(members) // FOLDS)  # images of a fold
        leaves_enough = needs.enough_left(int((names == name).sum()) - largest)
        if len(members) == 1 or (is_slow(needs) and are_few) or not leaves_enough:
            copied += members.tolist()
        elif is_slow(needs):
            split += shuffled[: min(target, max(2, len(members) // 5))]
        else:
            held_out = 0
            for number, fold in enumerate(np.array_split(shuffled, len(members) if are_few else FOLDS)):
                if held_out >= target:
                    break
                folds += [[]] * (number + 1 - len(folds))
                folds[number] = [*folds[number], *fold.tolist()]
                held_out += len(fold)
    fitted = tuple(np.setdiff1d(np.arange(len(names)), split).tolist())
    scored = [*(i for fold in folds for i in fold), *split, *copied]
    return HeldOutPlan(
        fitted,
        tuple(tuple(sorted(fold)) for fold in folds),
        tuple(sorted(split)),
        tuple(copied),
        () if POINTS in needs.modalities else tuple(few_of_each([(names[i], i) for i in scored], rate)),
        frozenset(never_held_out),
    )


def few_of_each(scored: Sequence[tuple[str, int]], rate: float) -> Iterator[int]:
    """Up to `DEFECT_IMAGES` of the images scored, by (category, index), of categories with too few for `rate`."""
    by_name: dict[str, list[int]] = {}
    for name, index in scored:
        by_name.setdefault(name, []).append(index)
    for members in by_name.values():
        if not order_statistics_suffice(len(members), rate):
            yield from sorted(members)[:DEFECT_IMAGES]
