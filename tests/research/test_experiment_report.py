from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from html_reader import Reader

from blemish.research.experiment_report import write_experiment_report
from blemish.research.experiments.base import BarChart, Chart, Curve, CurveChart, Experiment, Matrix, Row, Verdict
from blemish.research.experiments.verdicts import rounded

NASTY = "<script>alert(1)</script>"


@dataclass(frozen=True, kw_only=True)
class Asked(Experiment):
    """An experiment whose answers are known."""

    QUESTION = "Is <b> better than c?"
    SOURCE = "somebody"
    KEY = ("name", "seed")
    MEASURES = ("auroc",)
    lines: int = 2

    def verdict(self, rows: Sequence[Row]) -> Verdict:
        return Verdict((f"{NASTY} is better.",), "the larger number")

    def charts(self, rows: Sequence[Row]) -> list[Chart]:
        lines = tuple(Curve(f"line {i}", {"1": (0.5, 0.7), "all": (0.9,)}) for i in range(self.lines))
        return [
            CurveChart("Shots", "shots", "AUROC", ("1", "2", "all"), lines, ("chance", 0.5)),
            BarChart("Bars", {NASTY: (0.5, 0.7)}),
        ]

    def tables(self, rows: Sequence[Row]) -> list[Matrix]:
        cells = {("disc", "10"): (0.5, 0.7), ("disc", "2"): (0.9,), ("ring", "all"): (123.4,)}
        return [Matrix("Table", "category", cells), Matrix("Empty", "category", {})]

    def notes(self, rows: Sequence[Row]) -> list[str]:
        return ["A note."]


ROWS = [{"settings": "s", "cell": "c", "of": 1, "name": NASTY, "seed": seed, "auroc": 0.5} for seed in (0, 2)]


def test_a_page_says_all_that_a_reader_needs(tmp_path: Path) -> None:
    path = write_experiment_report(tmp_path / "a.html", "asked", Asked(), ROWS, missing=3, command="blemish x")
    page = path.read_text(encoding="utf-8")
    found = Reader(page)
    for words in ("Is <b> better than c?", "the larger number", "2 seeds (0, 2)", "A note.", "blemish x", "somebody"):
        assert words in found.text
    assert "3 cells of the plan not measured yet" in found.text
    assert NASTY not in page
    assert "0.600 ± 0.141" in found.text
    assert "Empty" not in found.text
    heads = ("category", "2", "10", "all")
    assert found.text.index("Table") < found.text.index("".join(heads))  # numbers by size, words last


def test_a_finished_page_does_not_speak_of_missing_cells(tmp_path: Path) -> None:
    page = write_experiment_report(tmp_path / "a.html", "asked", Asked(), ROWS).read_text(encoding="utf-8")
    assert "not measured yet" not in page


def test_nothing_measured_is_a_page_too(tmp_path: Path) -> None:
    page = write_experiment_report(tmp_path / "a.html", "asked", Asked(), []).read_text(encoding="utf-8")
    assert "Nothing has been measured yet" in Reader(page).text


@pytest.mark.parametrize(("lines", "drawings"), [(2, 2), (5, 2), (6, 3)])
def test_curves_share_a_chart_as_long_as_tones_tell_them_apart(tmp_path: Path, lines: int, drawings: int) -> None:
    page = write_experiment_report(tmp_path / "a.html", "asked", Asked(lines=lines), ROWS).read_text(encoding="utf-8")
    assert len(Reader(page).all("svg")) == drawings


@pytest.mark.parametrize(("value", "words"), [(0.12345, "0.123"), (12.345, "12.3"), (1234.5, "1,234")])
def test_numbers_have_the_digits_that_mean_something(value: float, words: str) -> None:
    assert rounded(value, value) == words
