from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blemish.utils.progress import progress_of_step, progress_within


def test_a_part_fills_its_share_of_the_whole() -> None:
    heard: list[tuple[float, int, Mapping[str, Any]]] = []
    inner = progress_within(lambda *call: heard.append(call), 2, 4, "run 3")
    inner(0, 10, {})
    inner(5, 10, {"loss": 0.5, "step": "learning"})
    inner(12, 10, {})
    inner(1, 0, {})
    assert [call[:2] for call in heard] == [(2, 4), (2.5, 4), (3, 4), (3, 4)]
    assert heard[0][2] == {"step": "run 3"}
    assert heard[1][2] == {"loss": 0.5, "step": "run 3: learning"}


def test_a_step_is_named() -> None:
    heard: list[Any] = []
    named = progress_of_step(lambda *call: heard.append(call), "learning")
    assert named is not None
    named(1, 2, {"loss": 0.5})
    assert heard == [(1, 2, {"loss": 0.5, "step": "learning"})]
    assert progress_of_step(None, "learning") is None
