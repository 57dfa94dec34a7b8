from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_parts import Blemish, command

from blemish.registry import EXPERIMENTS
from blemish.utils.locking import exclusive

SMALL = ("--encoder", "pixels", "--detector", "patchcore", "--image-size", 64, "--device", "cpu", "--shots", 2)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_page_and_rows_that_the_next_run_goes_on_from(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    common = ("experiment", "shots", parts, "-o", tmp_path, *SMALL, "--category", "disc")
    result = blemish(*common, "--seeds", 0)
    assert result.exit_code == 0, result.output
    assert [(row["category"], row["shots"], row["seed"]) for row in rows_of(tmp_path)] == [("disc", "2", "0")]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "How many good pictures does each detector need?" in page
    assert "1 seed (0)" in page
    assert "patchcore" in result.stdout

    result = blemish(*common, "--seeds", "0,1")
    assert result.exit_code == 0, result.output
    assert "1 of 2 cells are there already" in result.stderr
    assert [row["seed"] for row in rows_of(tmp_path)] == ["0", "1"]
    assert "2 seeds (0, 1)" in (tmp_path / "report.html").read_text(encoding="utf-8")
    page = tmp_path / "report.html"
    page.unlink()
    assert blemish(*common, "--seeds", "0,1").exit_code == 0
    assert "2 seeds (0, 1)" in page.read_text(encoding="utf-8")


def test_unlike_settings_are_refused_in_the_same_folder(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    common = ("experiment", "shots", parts / "disc", "-o", tmp_path, *SMALL, "--seeds", 0)
    assert blemish(*common).exit_code == 0
    before = (tmp_path / "results.csv").read_bytes()
    result = blemish(*common, "--set", "most_test=2")
    assert result.exit_code == 2
    assert "most_test 20 there, 2 now" in result.stderr
    other = blemish("experiment", "area-distance", parts, "-o", tmp_path, "--encoder", "pixels")
    assert other.exit_code == 2
    assert "shots" in other.stderr
    assert (tmp_path / "results.csv").read_bytes() == before


def test_two_runs_at_once_in_one_folder_are_refused(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with exclusive(tmp_path):
        result = blemish("experiment", "shots", parts / "disc", "-o", tmp_path, *SMALL, "--seeds", 0)
    assert result.exit_code != 0
    assert f"process {os.getpid()}" in result.stderr.replace("\n", " ")
    assert not (tmp_path / "results.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("shotz",), "shots"),
        (("pretrain",), "pretraining"),
        (("shots", "--seeds", "x"), "seeds"),
        (("shots", "--seeds", ""), "seeds"),
        (("shots", "--detector", ","), "detector"),
        (("shots", "--shots", "0"), "shots"),
        (("shots", "--set", "stepz=3"), "stepz"),
        (("shots", "--detector", "patchcoer"), "patchcore"),
        (("shots", "--encoder", "pixels,small"), "one --encoder"),
        (("area-distance", "--shots", "1"), "area-distance has"),
        (("shots", "--category", "cube"), "cube"),
        (("shots", "--text-encoder", "minilm"), "shots has"),
        (("multimodal-ablation", "--shots", "2"), "points"),
        (("foundad-encoders", "--encoder", "pixel"), "pixels"),
        (("foundad-projector", "--encoder", "random:pixel"), "pixels"),
    ],
)
def test_what_cannot_be_is_told(
    blemish: Blemish, parts: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    name, *options = arguments
    result = blemish("experiment", name, parts, "-o", tmp_path / "out", *options)
    assert result.exit_code == 2, result.output
    assert words in result.stderr.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_missing_data_is_told(blemish: Blemish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = blemish("experiment", "shots", tmp_path / "nothing", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "nothing" in result.stderr
    monkeypatch.setattr(sys.modules["blemish.data.elpv"], "PACKAGE", "no_such_package")
    result = blemish("experiment", "shots", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "blemish[demo]" in result.stderr


def test_solar_cells_are_named_where_they_stand_in(blemish: Blemish, tmp_path: Path) -> None:
    pytest.importorskip("elpv_dataset")
    small = ("--encoder", "pixels", "--seeds", 0, "--set", "images=1", "--set", "areas=[0.1,0.3]")
    result = blemish("experiment", "area-distance", "-o", tmp_path, "--category", "mono", "--image-size", 64, *small)
    assert result.exit_code == 0, result.output
    assert "solar cells" in result.stderr
    assert {row["category"] for row in rows_of(tmp_path)} == {"mono"}
    assert blemish("experiment", "area-distance", "-o", tmp_path, "--category", "bolt").exit_code == 2


def test_scans_are_rendered_where_no_dataset_is_given(blemish: Blemish, tmp_path: Path) -> None:
    pytest.importorskip("tifffile")
    small = ("classes=1", "train=2", "good=1", "defective=1", "timed=1", "own_process=false")
    settings = [word for one in small for word in ("--set", one)]
    eyes = ("--encoder", "pixels+points-shape", "--detector", "btf", "--image-size", 64, "--shots", "all")
    result = blemish("experiment", "multimodal-cost", "-o", tmp_path, *eyes, *settings, "--seeds", 0)
    assert result.exit_code == 0, result.output
    assert "rendered into OUT" in result.stderr
    assert [row["pooled"] for row in rows_of(tmp_path)] == ["true", "false"]
    result = blemish("experiment", "multimodal-cost", "-o", tmp_path, "--category", "bolt")
    assert result.exit_code == 2
    assert "classes=N" in result.stderr


def test_every_experiment_is_listed(blemish: Blemish) -> None:
    shown = blemish("list", "experiments").stdout
    for name in EXPERIMENTS:
        assert name in shown
    assert "patchcore" not in blemish("list", "experiments").stdout
    assert "identity-mapping" in blemish("list").stdout


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_keeps_finished_rows_and_their_page(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    seeds = ",".join(map(str, range(80)))
    arguments = ("experiment", "shots", parts / "disc", "-o", tmp_path, *SMALL, "--seeds", seeds)
    with subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as started:
        table = tmp_path / "results.csv"
        until = time.monotonic() + 60
        while time.monotonic() < until and not (table.exists() and table.read_bytes().count(b"\n") > 2):
            time.sleep(0.05)
        started.send_signal(signal.SIGINT)
        words = started.communicate(timeout=60)[1].decode()
    assert started.returncode == 130, words
    assert "the same command goes on" in words
    rows = rows_of(tmp_path)
    assert 2 <= len(rows) < 80
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"{80 - len(rows)} cells of the plan not measured yet" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "results.csv", "results.sqlite"]
