"""Runs and cells on several processes give the rows that they give one after the other."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from cli_parts import METHOD, Blemish

MEASURED_TIME = ("fit_seconds", "ms_per_picture", "peak_memory_mb")


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if name not in MEASURED_TIME} for row in rows]


@pytest.mark.slow
def test_evaluate_by_processes_as_serially(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    asked = ("evaluate", parts, *METHOD, "--shots", "2", "--seeds", "0")
    for engine in ("serial", "local"):
        result = blemish(*asked, "-o", tmp_path / engine, "--engine", engine)
        assert result.exit_code == 0, result.output
    assert rows_of(tmp_path / "local") == rows_of(tmp_path / "serial") != []
    assert (tmp_path / "local" / "report.html").is_file()


@pytest.mark.slow
def test_experiment_cells_by_processes_as_serially(blemish: Blemish, parts: Path, tmp_path: Path) -> None:
    method = ("--encoder", "pixels", "--detector", "patchcore", "--image-size", 64, "--device", "cpu", "--shots", 2)
    for engine in ("serial", "local"):
        asked = ("experiment", "shots", parts, "-o", tmp_path / engine, *method, "--category", "disc")
        result = blemish(*asked, "--seeds", "0,1", "--engine", engine)
        assert result.exit_code == 0, result.output
    serial, local = (sorted(rows_of(tmp_path / engine), key=lambda row: row["cell"]) for engine in ("serial", "local"))
    assert local == serial != []
