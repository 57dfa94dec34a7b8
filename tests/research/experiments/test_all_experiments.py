"""The promise of every registered experiment: a page, a table, and nothing measured twice."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

import pytest
from blemish.research.experiments.running import Notebook, configured
from experiment_parts import ROWS, TINY, write_data
from markupsafe import escape

from blemish.cli.evaluate import categories_of
from blemish.errors import SettingsError
from blemish.registry import EXPERIMENTS
from blemish.research.experiment_report import write_experiment_report
from blemish.research.experiments.base import Cell

pytestmark = pytest.mark.parametrize("name", sorted(EXPERIMENTS))


def notebook(name: str, data: Path, out: Path, **options: object) -> Notebook:
    return Notebook(name, configured(name, {**TINY[name], "seeds": [0], **options}), categories_of([data], None), out)


def silent(words: str, done: float, total: int) -> None:
    assert done <= total


def test_every_experiment_gives_a_page_and_a_table(name: str, data: Path, tmp_path: Path) -> None:
    book = notebook(name, data, tmp_path)
    book.work(silent)
    assert not book.waiting
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    whole = [row for row in written if not row.get("defect")]
    assert len(whole) == ROWS[name]
    assert {row["seed"] for row in written} == {"0"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "settings.json"]

    experiment, rows = book.experiment, book.book.rows
    assert all(isinstance(row[measure], float) for row in rows for measure in experiment.MEASURES)
    measured = [row[measure] for row in rows for measure in experiment.MEASURES[:3]]
    assert any(math.isfinite(value) for value in measured)
    found = experiment.verdict(rows)
    assert found.sentences
    assert all(sentence.endswith(".") for sentence in (*found.sentences, found.rule))
    assert experiment.QUESTION.endswith("?")
    assert experiment.SOURCE

    page = write_experiment_report(tmp_path / "report.html", name, experiment, rows, command="blemish").read_text()
    assert "<svg" in page
    assert "<table" in page
    assert escape(experiment.QUESTION) in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_finished_cells_are_never_measured_again(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[object] = []
    init = Cell.__init__

    def counting(self: Cell, key: dict[str, object], compute: object) -> None:
        def measure(tools: object) -> list[dict[str, object]]:
            counted.append(key)
            return [{"category": "disc"}]

        init(self, key, measure)

    monkeypatch.setattr(Cell, "__init__", counting)
    first = notebook(name, data, tmp_path)
    first.work(silent)
    cells = len(counted)
    assert cells == len(first.cells) > 0
    content = (tmp_path / "results.csv").read_bytes()
    again = notebook(name, data, tmp_path)
    assert again.finished == cells
    again.work(silent)
    assert len(counted) == cells
    assert (tmp_path / "results.csv").read_bytes() == content
    assert again.book.rows == first.book.rows or any(v != v for row in first.book.rows for v in row.values())

    more = notebook(name, data, tmp_path, seeds=[0, 1])
    more.work(silent)
    assert len(counted) == 2 * cells
    assert (tmp_path / "results.csv").read_bytes().startswith(content)


def test_other_settings_never_share_a_table(name: str, data: Path, tmp_path: Path) -> None:
    book = notebook(name, data, tmp_path)
    book.book.add(book.cells[0].key, [{}])
    with pytest.raises(SettingsError, match="most_test 20 there, 2 now"):
        notebook(name, data, tmp_path, most_test=2)


def test_images_that_changed_are_measured_again(name: str, tmp_path: Path) -> None:
    root = write_data(name, tmp_path / "data")
    book = notebook(name, root, tmp_path / "out")
    for cell in book.cells:
        book.book.add(cell.key, [{"category": "disc"}])
    assert notebook(name, root, tmp_path / "out").finished == len(book.cells)
    next(root.glob("*/train/good/**/*.png")).write_bytes(b"another picture")
    after = notebook(name, root, tmp_path / "out")
    assert after.finished == 0
    assert after.stale == len(book.cells)
    assert after.book.rows == []


def test_full_size_is_possible(name: str) -> None:
    full = configured(name, full=True)
    assert full != configured(name)
    full.check()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sseds": [1]}, "sseds"),
        ({"seeds": [-1]}, "seeds"),
        ({"seeds": "zero"}, "seeds"),
        ({"seeds": []}, "seeds"),
        ({"most_test": 1}, "most_test"),
        ({"most_test": True}, "most_test"),
        ({"image_size": 0}, "image_size"),
    ],
)
def test_options_that_cannot_be_are_refused(name: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        configured(name, options)
