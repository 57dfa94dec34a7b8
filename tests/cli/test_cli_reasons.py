"""Reasons in what `blemish inspect` prints and writes: sentence, attributes, crops, languages, sizes in mm."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from cli_parts import Blemish

from blemish.scoring.sentences import MOST_WORDS


def defective_rows(out: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if "scratch" in row["file"]]


def test_alarms_come_with_a_reason(blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path) -> None:
    result = blemish("inspect", disc_model, parts / "disc", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    for row in defective_rows(tmp_path / "out"):
        assert row["reason"] == row["regions"][0]["words"]
        assert 3 <= len(row["reason"].split()) <= MOST_WORDS
        found = row["regions"][0]["attributes"]
        assert found["match"]["file"].endswith(".png")
        assert found["colour_difference"] > 2
        assert row["reason"] in result.output.replace("\n", " ") or row["file"][-7:] in result.output
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8", newline="") as file:
        assert any(line["reason"] for line in csv.DictReader(file))
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<figcaption>here</figcaption>" in report
    assert "<figcaption>good: " in report


def test_language_and_scale_change_words_and_nothing_else(
    blemish: Blemish, parts: Path, disc_model: Path, tmp_path: Path
) -> None:
    bad = parts / "disc" / "test" / "scratch"
    assert blemish("inspect", disc_model, bad, "-o", tmp_path / "en").exit_code == 0
    options = ("--language", "de", "--mm-per-pixel", "0.5")
    assert blemish("inspect", disc_model, bad, "-o", tmp_path / "de", *options).exit_code == 0
    for one, other in zip(defective_rows(tmp_path / "en"), defective_rows(tmp_path / "de"), strict=True):
        assert one["score"] == other["score"]
        assert one["verdict"] == other["verdict"]
        assert one["regions"][0]["box"] == other["regions"][0]["box"]
        assert "Stärke" in other["reason"]
        assert " mm" in other["reason"]
        assert other["regions"][0]["attributes"]["length_mm"] == 0.5 * one["regions"][0]["attributes"]["length"]
    mixed = blemish("inspect", disc_model, bad, "-o", tmp_path / "de")
    assert mixed.exit_code == 2
    assert "--language" in mixed.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--mm-per-pixel", "0"), "above 0 mm"),
        (("--mm-per-pixel=-2",), "above 0 mm"),
        (("--language", "klingon"), "de, en"),
        (("--defect-names", ""), "an empty list"),
        (("--defect-names", "dent,,stain"), "an empty one"),
        (("--defect-names", "dent,Dent"), "twice"),
        (("--defect-names", 300 * "a"), "300 letters"),
        (("--names-encoder", "clip-vitb16"), "--defect-names"),
        (("--vlm", "no/such"), "hf download no/such"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_read(
    blemish: Blemish, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    result = blemish("inspect", tmp_path / "no model", tmp_path / "nothing", "-o", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()
