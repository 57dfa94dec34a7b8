"""How work reports its progress: one signature for everything that takes long."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# Called with (done, total, facts): how much of how much is done, and what there is to say of it, such as the "loss".
# The fact "step" is text that names what is done now.
Progress = Callable[[float, int, Mapping[str, Any]], None]


def progress_within(progress: Progress, done: int, total: int, step: str = "") -> Progress:
    """The progress of one part of a larger whole, of which `done` of `total` parts are finished; `step` names it."""

    def report(at: float, of: int, facts: Mapping[str, Any]) -> None:
        steps = [name for name in (step, str(facts.get("step", ""))) if name]
        named = {"step": ": ".join(steps)} if steps else {}
        progress(done + min(at / max(of, 1), 1), total, {**facts, **named})

    return report


def progress_of_step(progress: Progress | None, step: str) -> Progress | None:
    """The same progress, each call with the name of the step that it is about, unless it names one itself."""
    if progress is None:
        return None
    return lambda done, total, facts: progress(done, total, {"step": step, **facts})
