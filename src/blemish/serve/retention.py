"""Which stored parts are deleted when disk or time run out: unreviewed good ones first, the oldest of them first.

Planning is a pure function; `carry_out` is a few lines around three callables, in an order that survives a crash: rows
are marked (durably), then files are deleted, then rows are forgotten. Whatever is marked and still there is carried out
again at the next start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from blemish.errors import SettingsError
from blemish.types import Verdict

DAY = 86_400.0  # seconds
BATCH = 500  # parts that are marked, deleted and forgotten together


@dataclass(frozen=True)
class StoredPart:
    """A part on disk: when it was inspected (seconds since 1970) and how many `bytes` its files take.

    `is_reviewed`: a person has decided it. `is_referenced`: a calibration, a bank or a review in progress needs it.
    """

    part_id: str
    time: float
    verdict: Verdict
    bytes: int
    is_reviewed: bool = False
    is_referenced: bool = False

    @property
    def rank(self) -> int:
        """How late its turn comes: good, then unsure or unknown, then alarms, then what a person has decided."""
        if self.is_reviewed:
            return 3
        return {"good": 0, "unsure": 1, "unknown": 1, "defective": 2}[self.verdict]


@dataclass(frozen=True)
class Limits:
    """What may stay: parts of at most `days`, at most `count` parts of `bytes` in all; None: no such limit."""

    days: float | None = None
    count: int | None = None
    bytes: int | None = None

    def __post_init__(self) -> None:
        for name in ("days", "count", "bytes"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise SettingsError(f"{name} of 0 or more, or None", repr(value), f"set {name}")


@dataclass(frozen=True)
class DeletionPlan:
    """Parts to delete, in this order, and the bytes that this frees. `too_many` and `too_large`: by how much the limits
    are still exceeded because the rest is referenced; `too_old` parts stay for the same reason."""

    part_ids: tuple[str, ...]
    bytes: int
    too_old: int = 0
    too_many: int = 0
    too_large: int = 0

    @property
    def exceeded(self) -> dict[str, int]:
        """By how much each limit is still exceeded, by the field's name; 0: it holds."""
        return {"too_old": self.too_old, "too_many": self.too_many, "too_large": self.too_large}


@dataclass(frozen=True)
class Retention:
    """How the last tidying ended: the `plan` that was carried out, `bytes` that the rest takes, and `error`, why
    something could not be deleted ("": nothing went wrong)."""

    limits: Limits
    bytes: int = 0
    plan: DeletionPlan = DeletionPlan((), 0)
    error: str = ""

    @property
    def is_kept(self) -> bool:
        """Whether the limits hold."""
        return not (any(self.plan.exceeded.values()) or self.error)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; of the plan by how much the limits are still exceeded."""
        kept = {"limits": asdict(self.limits), "bytes": self.bytes, **self.plan.exceeded}
        return kept | {"error": self.error, "is_kept": self.is_kept}


def plan_deletions(
    parts: Iterable[StoredPart], limits: Limits, now: float, include_referenced: bool = False
) -> DeletionPlan:
    """What to delete so that `limits` hold at the time `now`; referenced parts only with `include_referenced`."""
    stored = sorted(parts, key=lambda one: (one.rank, one.time, one.part_id))
    count, size = len(stored), sum(one.bytes for one in stored)
    oldest = float("-inf") if limits.days is None else now - limits.days * DAY
    most = float("inf") if limits.count is None else limits.count
    largest = float("inf") if limits.bytes is None else limits.bytes
    expired = [one for one in stored if one.time < oldest]
    fresh = [one for one in stored if one.time >= oldest]
    chosen: list[str] = []
    freed = too_old = 0
    for one in [*expired, *fresh]:
        is_expired = one.time < oldest
        if not is_expired and count <= most and size <= largest:
            break
        if one.is_referenced and not include_referenced:
            too_old += is_expired
            continue
        chosen.append(one.part_id)
        count, size, freed = count - 1, size - one.bytes, freed + one.bytes
    return DeletionPlan(
        tuple(chosen),
        freed,
        too_old,
        0 if limits.count is None else max(0, count - limits.count),
        0 if limits.bytes is None else max(0, size - limits.bytes),
    )


def carry_out(
    part_ids: Sequence[str],
    mark: Callable[[Sequence[str]], None],
    delete_files: Callable[[str], None],
    forget: Callable[[Sequence[str]], None],
) -> int:
    """Delete parts for good, batch by batch; how many are gone.

    `mark` must be on disk when it returns: from then on a part is no longer shown. `delete_files` must not mind files
    that are gone already. A part whose files cannot be deleted (OSError) stays marked for the next time.
    """
    gone = 0
    for start in range(0, len(part_ids), BATCH):
        batch = part_ids[start : start + BATCH]
        mark(batch)
        deleted = []
        for part_id in batch:
            try:
                delete_files(part_id)
            except OSError:
                continue
            deleted.append(part_id)
        forget(deleted)
        gone += len(deleted)
    return gone
