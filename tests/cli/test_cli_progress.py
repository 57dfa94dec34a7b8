from __future__ import annotations

import pytest

from blemish.cli import progress


def test_where_nobody_watches_a_line_comes_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter((0.0, 1.0, 31.0, 31.0, 40.0, 62.0, 62.0))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.progress_bar("learning") as move:
        move(1, 8, {})
        move(2, 8, {"loss": 0.12345})
        move(3, 8, {})
        move(4, 0, {"step": "testing disc"})
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == " 25%  learning, loss 0.123\ntesting disc\n"
