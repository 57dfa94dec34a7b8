"""Every benchmark can still be loaded and explains itself; those that are quick to try are tried."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from blemish import Sample
from blemish.data import draw_shots

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


def test_trials_of_unlabelled_images_draw_different_images_and_keep_those_that_judge_apart() -> None:
    module = importlib.import_module("unlabelled")
    scores = module.Measured(
        *(
            np.stack([start + np.arange(count), np.ones(count)], axis=1)
            for start, count in ((0, 4), (100, 30), (200, 20), (300, 20))
        )
    )
    for unlabelled, good, defective in scores.trials(20, 0.2, 5):
        drawn = unlabelled[:, 0]
        assert (len(np.unique(drawn)), (drawn >= 300).sum(), drawn.min() >= 100) == (20, 4, True)
        assert not set(drawn) & {*good[:, 0], *defective[:, 0]}
        assert (len(good), len(defective)) == (10, 16)
        assert set(good[:, 0]) <= set(scores.good[:, 0])
    assert list(scores.trials(60, 0.0, 5)) == []  # there are no 60 good ones


def test_a_row_of_unlabelled_images_is_that_of_a_calibrated_line() -> None:
    module = importlib.import_module("unlabelled")
    random = np.random.default_rng(0)

    def drawn(count: int, mean: float) -> np.ndarray:
        return np.exp(np.repeat(random.normal(mean, 0.05, count)[:, None], 2, axis=1))

    scores = module.Measured(drawn(4, 0.1), drawn(60, 0), drawn(40, 0), drawn(40, 0.5))
    before, after = (module.row_of(scores, number, 0.1, 0.1, 4) for number in (0, 50))
    assert after["false_alarm_rate"] == pytest.approx(0.06, abs=0.05)
    assert before["false_alarm_rate"] < after["false_alarm_rate"]  # held-out scores lie too high
    assert after["miss_rate"] == after["oracle_miss_rate"] == after["refused"] == 0
    assert after["uniform"] > before["uniform"]
    assert module.row_of(scores, 200, 0.1, 0.1, 4) is None


def test_what_a_table_holds_is_not_measured_again(tmp_path: Path) -> None:
    tables = importlib.import_module("tables")
    asked: list[tuple[str, float]] = []

    def measured(product: str, scale: float) -> list[tuple[str, str]]:
        asked.append((product, scale))
        return [("one", f"{scale:.2f}"), ("two", "0")]

    path, head = tmp_path / "table.csv", ("product", "scale", "way", "value")
    tables.add_missing(path, head, [("bolt", 0.75), ("bolt", 1.0)], measured)
    tables.add_missing(path, head, [("bolt", 0.75), ("nut", 1.0)], measured)
    assert asked == [("bolt", 0.75), ("bolt", 1.0), ("nut", 1.0)]
    found = tables.read_rows(path)
    assert [tuple(row[name] for name in head[:2]) for row in found[::2]] == [
        ("bolt", "0.75"),
        ("bolt", "1.0"),
        ("nut", "1.0"),
    ]
    assert found[2] == {"product": "bolt", "scale": "1.0", "way": "one", "value": "1.00"}
    assert tables.read_rows(tmp_path / "none.csv") == []


def test_a_benchmark_draws_the_shots_that_an_evaluation_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = importlib.import_module("pictures")
    folder = tmp_path / "mvtec_ad" / "pill" / "train" / "good"
    folder.mkdir(parents=True)
    for number in range(9):
        (folder / f"{number}.png").touch()
    monkeypatch.setattr(pictures, "DATA", tmp_path)
    samples = [Sample(path) for path in pictures.good_files("pill")]
    for seed in (0, 3):
        drawn = draw_shots(samples, 4, seed)
        assert sorted(pictures.drawn_good_files("pill", seed)[:4]) == sorted(sample.image for sample in drawn)


@pytest.mark.slow
def test_the_gpu_script_runs_in_all_its_parts_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU is to run in minutes that count is tried before; the bound is for a machine with much else to do."""
    module, output = importlib.import_module("gpu"), tmp_path / "gpu.csv"
    few = ["patchcore", "winclip", "foundad", "hybrid"]
    tried = ["gpu.py", "-o", str(output), "--device", "cpu", "--tiny", "--only", *few, "--seconds", "600"]
    monkeypatch.setattr(sys, "argv", tried)
    assert module.main() == 0
    rows = importlib.import_module("tables").read_rows(output)
    assert [(row["part"], row["detector"], row["way"]) for row in rows] == [
        *(("correctness", name, "") for name in few),
        ("default", "hybrid", ""),
        ("published", "foundad", ""),
        *(("compile", "encoder alone", way) for way in ("eager", "torch.compile", "CUDA graph")),
    ]
    assert {row["error"] for row in rows} == {"", "RuntimeError: CUDA graphs need a GPU"}
    assert {row["score_difference"] for row in rows[:4]} == {"0"}
    assert float(rows[5]["published_ms"]) == 128.7
    assert all(float(row["images_per_second"]) > 0 for row in rows[4:8])


def test_a_row_of_the_gpu_script_fails_where_devices_differ_and_never_ends_the_run() -> None:
    module = importlib.import_module("gpu")
    good = {"part": "correctness", "verdicts_agree": True, "score_difference": module.TOLERANCE, "map_difference": 0.0}
    assert not module.has_failed(good)
    assert module.has_failed(good | {"map_difference": 2 * module.TOLERANCE})
    assert module.has_failed(good | {"verdicts_agree": False})
    assert not module.has_failed({"part": "compile", "error": "no compiler"})
    row = module.measured_row({"part": "default"}, lambda: 1 / 0, 60.0)
    assert row["error"].startswith("ZeroDivisionError")
    assert module.has_failed(row)
    late = module.measured_row({"part": "default"}, lambda: pytest.fail("begun"), 0.5)
    assert late["error"] == "not begun: out of time"
    slow = module.measured_row({"part": "default"}, lambda: importlib.import_module("time").sleep(60), 1.0)
    assert slow["error"] == "TimeoutError: out of time"
    assert not module.has_failed(late)
    assert not module.has_failed(slow)
