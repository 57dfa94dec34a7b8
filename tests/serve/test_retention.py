"""What is deleted: as little as the limits ask for, in the stated order, and safely across a crash."""

from __future__ import annotations

import contextlib
import random

import pytest

from blemish.errors import SettingsError
from blemish.serve.retention import DAY, DeletionPlan, Limits, StoredPart, carry_out, plan_deletions

NOW = 1000 * DAY


def drawn(seed: int) -> tuple[list[StoredPart], Limits]:
    draw = random.Random(seed)
    parts = [
        StoredPart(
            f"p{i}",
            NOW - draw.randrange(40) * DAY,
            draw.choice(["good", "good", "unsure", "unknown", "defective"]),
            draw.randrange(1, 100),
            is_reviewed=draw.random() < 0.2,
            is_referenced=draw.random() < 0.2,
        )
        for i in range(draw.randrange(60))
    ]
    limits = Limits(
        draw.choice([None, 10, 30]), draw.choice([None, 0, 10, 40]), draw.choice([None, 0, 300, 1500, 10**6])
    )
    return parts, limits


@pytest.mark.parametrize("seed", range(200))
def test_properties_of_any_plan(seed: int) -> None:
    parts, limits = drawn(seed)
    by_id = {one.part_id: one for one in parts}
    plan = plan_deletions(random.Random(seed).sample(parts, len(parts)), limits, NOW)
    gone = [by_id[name] for name in plan.part_ids]
    left = [one for one in parts if one.part_id not in plan.part_ids]
    assert len(set(plan.part_ids)) == len(plan.part_ids)
    assert not any(one.is_referenced for one in gone)
    assert plan.bytes == sum(one.bytes for one in gone)
    too_many = len(left) - limits.count if limits.count is not None else 0
    too_large = sum(one.bytes for one in left) - limits.bytes if limits.bytes is not None else 0
    assert (plan.too_many, plan.too_large) == (max(0, too_many), max(0, too_large))
    old = [] if limits.days is None else [one for one in left if one.time < NOW - limits.days * DAY]
    assert plan.too_old == len(old)
    if too_many > 0 or too_large > 0 or old:  # only what is referenced keeps a limit from holding
        rest = left if too_many > 0 or too_large > 0 else old
        assert all(one.is_referenced for one in rest)
    fresh = [one for one in gone if limits.days is None or one.time >= NOW - limits.days * DAY]
    free = [one for one in left if not one.is_referenced]
    assert all((a.rank, a.time) <= (b.rank, b.time) for a in fresh for b in free)
    if fresh:  # as little as need be: with the last one back a limit is exceeded
        count, size = len(left) + 1, sum(one.bytes for one in left) + fresh[-1].bytes
        assert (limits.count is not None and count > limits.count) or (limits.bytes is not None and size > limits.bytes)
    assert set(plan_deletions(left, limits, NOW).part_ids) == set()
    everything = plan_deletions(parts, limits, NOW, include_referenced=True)
    assert (everything.too_old, everything.too_many, everything.too_large) == (0, 0, 0)


def test_order_of_turns() -> None:
    parts = [
        StoredPart("reviewed", 0, "good", 1, is_reviewed=True),
        StoredPart("alarm", 0, "defective", 1),
        StoredPart("unsure", 0, "unsure", 1),
        StoredPart("new", 2, "good", 1),
        StoredPart("old", 1, "good", 1),
    ]
    assert plan_deletions(parts, Limits(count=0), 3).part_ids == ("old", "new", "unsure", "alarm", "reviewed")
    assert plan_deletions(parts, Limits(), 3) == DeletionPlan((), 0)


def test_impossible_limits_are_refused() -> None:
    with pytest.raises(SettingsError, match="count"):
        Limits(count=-1)


class Disk:
    """Rows and files that stop working after a number of steps."""

    def __init__(self, names: list[str]) -> None:
        self.rows = dict.fromkeys(names, False)  # name → marked
        self.files = set(names)
        self.steps = 10**9

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise KeyboardInterrupt

    def mark(self, names: list[str]) -> None:
        self.step()
        self.rows |= dict.fromkeys(names, True)

    def delete(self, name: str) -> None:
        self.step()
        assert self.rows[name]
        self.files.discard(name)

    def forget(self, names: list[str]) -> None:
        self.step()
        assert not self.files & set(names)
        for name in names:
            self.rows.pop(name, None)


@pytest.mark.parametrize("steps", range(7))
def test_a_crash_at_any_step_leaves_no_unmarked_row_without_its_file(steps: int) -> None:
    names = [f"p{i}" for i in range(4)]
    disk = Disk([*names, "stays"])
    disk.steps = steps
    with contextlib.suppress(KeyboardInterrupt):
        carry_out(names, disk.mark, disk.delete, disk.forget)
    assert all(name in disk.files for name, is_marked in disk.rows.items() if not is_marked)
    assert disk.files <= disk.rows.keys()
    disk.steps = 100
    carry_out([name for name, is_marked in disk.rows.items() if is_marked], disk.mark, disk.delete, disk.forget)
    if steps:
        assert disk.rows == {"stays": False}
        assert disk.files == {"stays"}


def test_a_file_that_cannot_be_deleted_stays_marked() -> None:
    disk = Disk(["a", "b"])

    def delete(name: str) -> None:
        if name == "a":
            raise PermissionError(name)
        disk.delete(name)

    assert carry_out(["a", "b"], disk.mark, delete, disk.forget) == 1
    assert disk.rows == {"a": True}
