"""Has a stream of values changed? An alarm that may be read after every part, with a stated risk of being false.

Each value is ranked among all before it, ties broken by chance. While the stream is exchangeable (no change), these
conformal p-values are independent and uniform (Vovk, Nouretdinov & Gammerman, "Testing exchangeability on-line",
ICML 2003). Bets against uniformity then make a test martingale, which ever reaches 20 with probability 1/20 at most
(Ville's inequality; Vovk, "Testing randomness online", Statistical Science, 2021).

Why not p-values from a calibration set: its n scores are the same for every part, so those p-values share an error of
about 1/√n and are not uniform for the stream. A martingale finds that out sooner or later: with 20 scores it raised a
false alarm in 7 of 12 streams of 10,000 good parts (tests/monitoring/test_martingale.py). Here a calibration set is
only the stream's beginning: it is ranked against and not betted on, and its weight falls as good parts arrive. The
guarantee then is exact if the stream with that beginning is exchangeable, whatever the distribution and its ties.

A martingale that has lost for 10,000 parts needs as long to recover. So capital is divided over the parts at which
betting might begin: what waits is not lost, and a late change costs the logarithm of the time before it. Two divisions:

* for ever: shares 1/log₂(k + 1) − 1/log₂(k + 2), k = 1, 2, …, sum to 1. One false alarm ever with probability ≤ 5 %.
* for a `horizon` of N parts: 1/N each. This is the Shiryaev–Roberts statistic over N (Vovk et al., "Retrain or not
  retrain: conformal test martingales for change-point detection", COPA 2021): a false alarm among any N parts from its
  start with probability ≤ 5 %, and beyond them at least 20·N parts to a false alarm on average; late changes are found
  somewhat sooner.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import Any

from blemish.errors import SettingsError

LEVEL = 0.05  # probability of a false alarm that is accepted
# Exponents ε of the power martingales ε·p^(ε−1), one for each size of a change: 0.9 for one hardly seen, 0.1 for one
# that puts every part beyond all before. Evenly spaced; not tuned.
POWERS = (0.1, 0.3, 0.5, 0.7, 0.9)
CAP = 1e30  # capital beyond this says nothing more, and stays finite; capping keeps the guarantee
MAX_BIN = 4096  # values beyond this many steps from 0 are as one
SMALLEST_P = 1e-12
KEPT = 512  # reference values that are kept for a new start


@dataclass
class Evidence:
    """Capital won by betting against uniform p-values: ≥ 1/LEVEL with probability ≤ LEVEL while they are uniform.

    `up` and `down` hold the capital of bets on small and on large p-values, one for each of POWERS.
    """

    horizon: int | None = None
    parts: int = 0
    up: list[float] = field(default_factory=lambda: [0.0] * len(POWERS))
    down: list[float] = field(default_factory=lambda: [0.0] * len(POWERS))

    def __post_init__(self) -> None:
        if self.horizon is not None and self.horizon < 1:
            raise SettingsError("a horizon of 1 part or more, or None", repr(self.horizon), "set horizon")

    def add(self, p_value: float) -> float:
        """Bet on one more p-value in [0, 1]; the `value` after it."""
        self.parts += 1
        share = starting_share(self.parts, self.horizon) / (2 * len(POWERS))
        small = max(p_value, SMALLEST_P)
        large = max(1 - p_value, SMALLEST_P)
        self.up = [_won(held + share, power, small) for held, power in zip(self.up, POWERS, strict=True)]
        self.down = [_won(held + share, power, large) for held, power in zip(self.down, POWERS, strict=True)]
        return self.value

    @property
    def value(self) -> float:
        """The test martingale: 1 at the start, what waits to be betted included."""
        return sum(self.up) + sum(self.down) + waiting_share(self.parts, self.horizon)

    @property
    def rises(self) -> bool:
        """Whether the evidence is of larger values (small p-values) rather than of smaller ones."""
        return sum(self.up) >= sum(self.down)


def _won(capital: float, power: float, p_value: float) -> float:
    return min(CAP, capital * power * p_value ** (power - 1))


def starting_share(part: int, horizon: int | None) -> float:
    """The capital that is first betted on the `part`-th p-value, from 1 on."""
    if horizon is not None:
        return 1 / horizon
    return 1 / math.log2(part + 1) - 1 / math.log2(part + 2)


def waiting_share(parts: int, horizon: int | None) -> float:
    """The capital that has not been betted after so many parts."""
    if horizon is not None:
        return max(0.0, 1 - parts / horizon)
    return 1 / math.log2(parts + 2)


@dataclass
class RankHistogram:
    """Counts of all values so far on a fixed grid: enough for their ranks, in memory that does not grow with the parts.

    The grid (multiples of `step`) is fixed before any value is seen, so values on it are as exchangeable as the values
    themselves; values of one cell are ties. `first` is the number of the cell of `counts[0]`, `total` their number.
    """

    step: float
    first: int = 0
    total: int = 0
    counts: list[int] = field(default_factory=list)

    def cell(self, value: float) -> int:
        """The grid's cell of a `value` that is a number."""
        return math.floor(max(-MAX_BIN, min(MAX_BIN, value / self.step)))

    def add(self, value: float) -> tuple[int, int]:
        """Count one more value; how many before it were larger, and how many equal."""
        cell = self.cell(value)
        if not self.counts:
            self.first = cell
        if cell < self.first:
            self.counts[:0] = [0] * (self.first - cell)
            self.first = cell
        place = cell - self.first
        if place >= len(self.counts):
            self.counts += [0] * (place + 1 - len(self.counts))
        larger, equal = sum(self.counts[place + 1 :]), self.counts[place]
        self.counts[place] += 1
        self.total += 1
        return larger, equal

    @property
    def mean(self) -> float:
        """The mean of the cells' lower ends; NaN without values."""
        if not self.counts:
            return math.nan
        return self.step * sum(cell * count for cell, count in enumerate(self.counts, self.first)) / self.total

    @property
    def median(self) -> float:
        """The middle of the median's cell; NaN without values."""
        if not self.counts:
            return math.nan
        cumulated = list(accumulate(self.counts))
        return (self.first + bisect_right(cumulated, (self.total - 1) // 2) + 0.5) * self.step


@dataclass
class ChangeTest:
    """An anytime-valid test that a stream of values does not change, up or down.

    `step` is the grid on which values count as equal. `reference` are values that the stream is expected to continue;
    none are needed. `seed` decides ties, so that a replayed stream gives the same evidence. One part costs O(cells).
    """

    step: float
    seed: int = 0
    reference: list[float] = field(default_factory=list)
    evidence: Evidence = field(default_factory=Evidence)
    ranks: RankHistogram = field(default_factory=lambda: RankHistogram(1.0))
    peak: float = 1.0

    @classmethod
    def started(
        cls, step: float, reference: Iterable[float] = (), seed: int = 0, horizon: int | None = None
    ) -> ChangeTest:
        """A test before the first part. Raises SettingsError for a step that is no positive number."""
        if not (math.isfinite(step) and step > 0):
            raise SettingsError("a step above 0", repr(step), "set step")
        values = [float(value) for value in reference if math.isfinite(value)]
        ranks = RankHistogram(step)
        for value in values:
            ranks.add(value)
        return cls(step, seed, values[-KEPT:], Evidence(horizon), ranks)

    def add(self, value: float) -> float:
        """Take one more value (NaN: none, nothing changes); the evidence after it."""
        if math.isnan(value):
            return self.evidence.value
        larger, equal = self.ranks.add(value)
        before = self.ranks.total - 1
        # Among before + 1 values the new one shares its cell with `equal` others: its rank is random among equal + 1.
        p_value = (larger + _uniform(self.seed, before) * (equal + 1)) / (before + 1)
        found = self.evidence.add(p_value)
        self.peak = max(self.peak, found)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ChangeTest:
        """Take back what `to_dict` gave."""
        given = dict(values)
        return cls(
            **given | {"evidence": Evidence(**given["evidence"]), "ranks": RankHistogram(**given["ranks"])},
        )


def _uniform(seed: int, count: int) -> float:
    """A number in [0, 1) that depends on nothing but both; independent of the values."""
    digest = hashlib.blake2b(f"{seed}:{count}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53
