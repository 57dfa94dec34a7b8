"""Every benchmark can still be loaded and explains itself; those that are quick to try are tried."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SHARED = {"tables", "pictures"}  # what benchmarks share: nothing to be run
NAMES = sorted(path.stem for path in BENCHMARKS.glob("*.py"))


@pytest.fixture(autouse=True)
def beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a script is run: its folder comes first among those that modules are looked for in."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(sys, "path", list(sys.path))  # some add the golden scores' folder


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_loads_and_says_how_it_is_run(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    if name not in SHARED:
        assert f"benchmarks/{name}.py" in module.__doc__
        assert callable(module.main)


@pytest.mark.parametrize("name", sorted(set(NAMES) - SHARED))
def test_help_needs_no_data(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    assert "usage" in capsys.readouterr().out


def test_searches_that_are_compared_find_the_same_distances(tmp_path: Path) -> None:
    speed = importlib.import_module("neighbours_speed")
    for kind in speed.KINDS:
        rows = {row["program"]: row for row in speed.compared(600, kind, threads=1, runs=1)}
        assert {"blemish", "torch.cdist in chunks"} <= set(rows)
        assert rows["blemish"]["wrong"] == "0 of 64"
        assert float(rows["blemish"]["times_ours"]) == 1
