from __future__ import annotations

import csv
import os
import shutil
from functools import partial
from io import StringIO
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_parts import METHOD, Blemish
from rich.console import Console

from blemish.cli.evaluate import categories_of, comma_separated, means_table, run_details, several_at_a_time
from blemish.errors import SettingsError
from blemish.evaluation import Run
from blemish.utils.locking import exclusive

COLUMNS = (
    *("dataset", "category", "detector", "encoder", "image_size", "shots", "seed", "pooled"),
    *("n_train", "n_good", "n_defective", "n_masks", "image_auroc", "image_ap", "image_f1max"),
    *("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro_30", "aupro_05", "aupro_01", "spro_30", "spro_05"),
    *("image_auroc_logical", "image_auroc_structural", "spro_05_logical", "spro_05_structural"),
    *("false_alarm_rate", "miss_rate", "oracle_miss_rate", "unknown_rate", "unsure_rate"),
    *("target_false_alarm_rate", "false_alarm_rate_low", "false_alarm_rate_high", "p_value_excess", "aurc"),
    *("fit_seconds", "ms_per_picture", "peak_memory_mb"),
)


def rows_of(out: Path, name: str = "results.csv") -> list[dict[str, str]]:
    with (out / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_one_row_for_each_category_shots_and_seed(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    result = blemish("evaluate", parts, "-o", tmp_path, *METHOD, "--shots", "1,all", "--seeds", "0,1")
    assert result.exit_code == 0, result.output
    rows = rows_of(tmp_path)
    assert tuple(rows[0]) == COLUMNS
    assert {(r["category"], r["shots"], r["seed"]) for r in rows} == {
        (category, shots, seed) for category in ("disc", "ring") for shots in ("1", "all") for seed in "01"
    }
    for row in rows:
        assert (row["n_good"], row["n_defective"], row["pooled"]) == ("3", "3", "false")
        assert row["n_train"] == ("1" if row["shots"] == "1" else "6")
        assert (row["detector"], row["encoder"], row["image_size"]) == ("patchcore", "pixels", "64")
        assert row["dataset"] == parts.name
        assert float(row["image_auroc"]) == 1  # a red square on a disc is hard to miss
        assert float(row["aupro_30"]) > 0.8
        assert float(row["ms_per_picture"]) > 0
        assert float(row["peak_memory_mb"]) > 10
    assert "patchcore" in result.stdout
    assert "disc" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_what_is_done_is_told_in_plain_lines(
    blemish: Blemish, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blemish.cli.progress.EVERY", 0)
    result = blemish("evaluate", parts / "disc", "-o", tmp_path, *METHOD, "--seeds", "0,1")
    assert "seed 0: learning" in result.stderr
    assert "patchcore, all shots, seed 0: setting the limit\n" in result.stderr
    assert " 50%  patchcore, all shots, seed 0: testing disc\n" in result.stderr
    assert "100%  patchcore, all shots, seed 1: testing disc\n" in result.stderr
    assert "seed 1" not in result.stdout


def test_pooled_is_one_model_for_all(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    result = blemish("evaluate", parts, "-o", tmp_path, *METHOD, "--shots", 2, "--seeds", 0, "--pooled")
    assert result.exit_code == 0, result.output
    rows = rows_of(tmp_path)
    assert [(r["category"], r["pooled"], r["n_train"]) for r in rows] == [("disc", "true", "2"), ("ring", "true", "2")]
    assert rows[0]["fit_seconds"] == rows[1]["fit_seconds"]


def test_only_the_categories_named(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    common = ("-o", tmp_path, "--restart", *METHOD, "--shots", "1", "--seeds", "0", "--category")
    assert blemish("evaluate", parts, *common, "ring").exit_code == 0
    assert [row["category"] for row in rows_of(tmp_path)] == ["ring"]
    assert blemish("evaluate", parts / "disc", parts / "ring", *common, "ring").exit_code == 0
    assert [row["category"] for row in rows_of(tmp_path)] == ["ring"]
    assert blemish("evaluate", parts, *common, "cube").exit_code == 2


def test_coarse_aupro_is_offered_and_named_in_the_report(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    common = ("evaluate", parts / "disc", *METHOD, "--shots", 1, "--seeds", 0)
    assert blemish(*common, "-o", tmp_path / "exact").exit_code == 0
    assert blemish(*common, "-o", tmp_path / "coarse", "--aupro-thresholds", 5).exit_code == 0
    exact, coarse = (float(rows_of(tmp_path / name)[0]["aupro_01"]) for name in ("exact", "coarse"))
    assert exact != coarse
    assert "5 thresholds" in (tmp_path / "coarse" / "report.html").read_text(encoding="utf-8")


def test_an_unreadable_test_image_is_named_and_left_out(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    shutil.copytree(parts / "disc", tmp_path / "disc")
    (tmp_path / "disc" / "test" / "good" / "001.png").write_bytes(b"")
    result = blemish("evaluate", tmp_path / "disc", "-o", tmp_path / "out", *METHOD, "--seeds", 0)
    assert result.exit_code == 3
    assert "001.png" in result.stderr
    assert rows_of(tmp_path / "out")[0]["n_good"] == "2"


def test_missing_masks_and_the_promise_are_reported(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    shutil.copytree(parts / "disc", tmp_path / "disc")
    masks = sorted((tmp_path / "disc" / "ground_truth").rglob("*.png"))
    masks[0].unlink()
    result = blemish("evaluate", tmp_path / "disc", "-o", tmp_path / "out", *METHOD, "--seeds", 0)
    assert result.exit_code == 0, result.output
    assert "disc: masks for 2 of 3 defective pictures" in result.stderr
    assert "patchcore: false alarms promised 5 %, kept " in result.stdout
    assert "3 good pictures" in result.stdout
    row = rows_of(tmp_path / "out")[0]
    assert (row["n_masks"], row["target_false_alarm_rate"]) == ("2", "0.05")
    assert float(row["false_alarm_rate_low"]) <= float(row["false_alarm_rate"]) <= float(row["false_alarm_rate_high"])


def test_one_dataset_given_twice_is_refused(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    result = blemish("evaluate", parts, parts, "-o", tmp_path / "out", *METHOD, "--seeds", 0)
    assert result.exit_code == 2
    assert "every category once" in result.stderr


def test_finished_rows_survive_what_ends_the_rest(
    blemish: Blemish, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blemish.evaluation import runner

    real = runner.fit_run

    def fails_at_seed_1(run: Run, *others: Any) -> object:
        if run.seed == 1:
            raise KeyboardInterrupt
        return real(run, *others)

    monkeypatch.setattr(runner, "fit_run", fails_at_seed_1)
    result = blemish("evaluate", parts / "disc", "-o", tmp_path, *METHOD, "--seeds", "0,1")
    assert result.exit_code == 130
    assert [path.name for path in tmp_path.iterdir()] == ["results.partial.csv"]
    assert [row["seed"] for row in rows_of(tmp_path, "results.partial.csv")] == ["0"]


def test_finished_rows_survive_a_report_that_cannot_be_written(
    blemish: Blemish, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blemish import report

    def fails(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "write_evaluation_report", fails)
    result = blemish("evaluate", parts / "disc", "-o", tmp_path, *METHOD, "--seeds", 0)
    assert result.exit_code != 0
    assert [path.name for path in tmp_path.iterdir()] == ["results.partial.csv"]
    assert [row["seed"] for row in rows_of(tmp_path, "results.partial.csv")] == ["0"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--shots", "0"),
        ("--shots", "some"),
        ("--seeds", "one"),
        ("--seeds", "-1"),
        ("--shots", "99"),
        ("--detector", "nay"),
        ("--shots", "²"),
        ("--seeds", "²"),
        ("--seeds", ","),
        ("--seeds", ""),
        ("--shots", ","),
        ("--category", ","),
        ("--units", "mm"),
        ("--depth-scale", "0.001"),
    ],
)
def test_impossible_settings_are_refused(
    blemish: Blemish, parts: Path, tmp_path: Path, arguments: tuple[str, str]
) -> None:
    out = tmp_path / "out"
    assert blemish("evaluate", parts / "disc", "-o", out, *METHOD, "--seeds", "0", *arguments).exit_code == 2
    assert not out.exists()


def test_a_category_without_defects_to_test_on_is_refused(blemish: Blemish, tmp_path: Path, parts: Path) -> None:
    shutil.copytree(parts / "disc" / "train", tmp_path / "disc" / "train")
    result = blemish("evaluate", tmp_path / "disc", "-o", tmp_path / "out", *METHOD)
    assert result.exit_code == 2
    assert "disc" in result.stderr


def test_a_registered_detector_is_a_choice_like_any_other(
    blemish: Blemish, parts: Path, tmp_path: Path, toy: str
) -> None:
    """One line in the registry is all that a new detector needs to be listed, set and evaluated."""
    assert toy in blemish("list", "detectors").stdout
    method = ("--encoder", "pixels", "--detector", toy, "--image-size", 64, "--device", "cpu")
    result = blemish("evaluate", parts, "-o", tmp_path, *method, "--set", "power=2", "--shots", 2, "--seeds", 0)
    assert result.exit_code == 0, result.output
    rows = rows_of(tmp_path)
    assert [(row["category"], row["detector"]) for row in rows] == [("disc", toy), ("ring", toy)]
    assert all(float(row["image_auroc"]) == 1 for row in rows)
    assert toy in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_what_follows_an_options_value_is_a_dataset(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    """`--category disc DATASET`: the second word is no further category, wherever the option stands."""
    for words in (("--category", "disc", parts / "disc"), (parts / "disc", "--category", "disc")):
        result = blemish("evaluate", *words, tmp_path / "nowhere", "-o", tmp_path / "out", *METHOD)
        assert result.exit_code == 2
        assert "nowhere" in result.stderr


def test_earlier_results_are_refused_unless_replaced(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    common = ("evaluate", parts / "disc", "-o", tmp_path, *METHOD, "--shots", 1, "--seeds")
    assert blemish(*common, "0,1").exit_code == 0
    before = (tmp_path / "results.csv").read_bytes()
    refused = blemish(*common, 0)
    assert refused.exit_code == 2
    assert "got 2 rows in" in refused.stderr
    assert (tmp_path / "results.csv").read_bytes() == before
    assert blemish(*common, 0, "--restart").exit_code == 0
    assert len(rows_of(tmp_path)) == 1


def test_two_evaluations_at_once_do_not_replace_each_other(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with exclusive(tmp_path):
        result = blemish("evaluate", parts / "disc", "-o", tmp_path, *METHOD, "--seeds", 0)
    assert result.exit_code != 0
    assert f"process {os.getpid()}" in result.stderr.replace("\n", " ")
    assert not (tmp_path / "results.csv").exists()


def test_maps_that_other_processes_made_lie_in_files(parts: Path, tmp_path: Path) -> None:
    """As those of runs one after the other: memory does not grow with the number of runs."""
    run = Run(tuple(categories_of([parts / "disc"], None)), "patchcore", "pixels", 64, 1, device="cpu")

    class InThisProcess:
        def map_ready(self, function: Any, items: Any) -> Any:
            return ((place, function(item)) for place, item in enumerate(items))

    work = partial(run_details, aupro_thresholds=None, cache=None)
    (detail,) = several_at_a_time([run], work, InThisProcess(), lambda *_: None, tmp_path)
    maps = [prediction.map for pairs in detail.examples.values() for _, prediction in pairs]
    assert maps
    assert all(isinstance(one, np.memmap) for one in maps)


def test_results_go_not_among_pictures(blemish: Blemish, parts: Path) -> None:
    good = parts / "disc" / "test" / "good"
    result = blemish("evaluate", parts / "disc", "-o", good, *METHOD, "--shots", 1, "--seeds", 0)
    assert result.exit_code == 2
    assert not (good / "results.csv").exists()


def test_several_encoders(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    method = ("--detector", "patchcore", "--encoder", "pixels,pixels+pixels", "--image-size", 64, "--device", "cpu")
    result = blemish("evaluate", parts / "disc", "-o", tmp_path, *method, "--shots", 1, "--seeds", 0)
    assert result.exit_code == 0, result.output
    assert [row["encoder"] for row in rows_of(tmp_path)] == ["pixels", "pixels+pixels"]


def row_of(category: str, detector: str, encoder: str = "pixels", **more: Any) -> dict[str, Any]:
    facts = {"dataset": "parts", "category": category, "detector": detector, "encoder": encoder}
    return dict.fromkeys(COLUMNS, 0.5) | facts | {"image_size": 96, "shots": 4, "seed": 0, "pooled": False} | more


def table_text(rows: list[dict[str, Any]], width: int) -> str:
    file = StringIO()
    Console(width=width, file=file).print(means_table(rows, width))
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 120, 160])
@pytest.mark.parametrize("categories", [["bottle"], ["bottle", "metal_nut"]])
def test_the_table_names_every_method_at_any_width(width: int, categories: list[str]) -> None:
    detectors = ["subspace", "padim", "reverse-distillation"]
    text = table_text([row_of(category, detector) for category in categories for detector in detectors], width)
    lines = [line.split() for line in text.splitlines()]
    named = [["mean"]] + [[category] for category in categories] if len(categories) > 1 else [[]]
    for detector in detectors:
        for category in named:
            assert any(line[: len(category) + 1] == [*category, detector] for line in lines), text
    heads = " ".join(text.split())
    assert "AUROC" in heads
    assert "Means over the seeds: parts, " in heads
    assert "pixels, 96 px, 4 shots" in heads
    assert all(len(line) <= width for line in text.splitlines())


def test_the_table_leaves_out_measures_for_want_of_room_and_says_which() -> None:
    rows = [row_of("bottle", detector, unknown_rate=0.125) for detector in ("subspace", "padim")]
    wide, narrow = table_text(rows, 160), table_text(rows, 80)
    assert "0.125" in wide
    assert "Also in results.csv" not in wide
    assert "0.125" not in narrow
    assert "Also in results.csv: unknown, " in narrow


def test_the_table_has_no_column_without_values() -> None:
    rows = [row_of("bottle", "padim", pixel_auroc=nan, aupro_30=nan, aupro_05=nan)]
    assert "AUPRO" not in table_text(rows, 160)


def test_commas_separate_as_well() -> None:
    assert comma_separated(["1,4", "all", "1"], "--shots") == ["1", "4", "all"]
    assert comma_separated([], "--category") == []
    with pytest.raises(SettingsError, match="value of --category"):
        comma_separated([" ,"], "--category")
