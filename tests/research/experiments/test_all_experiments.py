"""The promise of every registered experiment: a page, a table, and nothing measured twice."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from experiment_parts import ROWS, TINY, write_data
from markupsafe import escape

from blemish.cli.evaluate import categories_of
from blemish.errors import SettingsError
from blemish.registry import EXPERIMENTS
from blemish.research.experiment_report import write_experiment_report
from blemish.research.experiments.base import Cell
from blemish.research.experiments.runner import ExperimentRunner, configured

pytestmark = pytest.mark.parametrize("name", sorted(EXPERIMENTS))


def runner_of(name: str, data: Path, out: Path, **options: object) -> ExperimentRunner:
    return ExperimentRunner(
        name, configured(name, {**TINY[name], "seeds": [0], **options}), categories_of([data], None), out
    )


def silent(done: float, total: int, facts: Mapping[str, Any]) -> None:
    assert done <= total


def test_every_experiment_gives_a_page_and_a_table(name: str, data: Path, tmp_path: Path) -> None:
    runner = runner_of(name, data, tmp_path)
    runner.run(silent)
    assert not runner.waiting
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    whole = [row for row in written if not row.get("defect")]
    assert len(whole) == ROWS[name]
    assert {row["seed"] for row in written} == {"0"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "results.sqlite"]

    experiment, rows = runner.experiment, runner.store.rows
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
    first = runner_of(name, data, tmp_path)
    first.run(silent)
    cells = len(counted)
    assert cells == len(first.cells) > 0
    content = (tmp_path / "results.csv").read_bytes()
    again = runner_of(name, data, tmp_path)
    assert again.finished == cells
    again.run(silent)
    assert len(counted) == cells
    assert (tmp_path / "results.csv").read_bytes() == content
    assert again.store.rows == first.store.rows or any(v != v for row in first.store.rows for v in row.values())

    more = runner_of(name, data, tmp_path, seeds=[0, 1])
    more.run(silent)
    assert len(counted) == 2 * cells
    assert (tmp_path / "results.csv").read_bytes().startswith(content)


def test_other_settings_never_share_a_table(name: str, data: Path, tmp_path: Path) -> None:
    runner = runner_of(name, data, tmp_path)
    runner.store.add(runner.cells[0].key, [{}])
    with pytest.raises(SettingsError, match="most_test 20 there, 2 now"):
        runner_of(name, data, tmp_path, most_test=2)


def test_images_that_changed_are_measured_again(name: str, tmp_path: Path) -> None:
    root = write_data(name, tmp_path / "data")
    runner = runner_of(name, root, tmp_path / "out")
    for cell in runner.cells:
        runner.store.add(cell.key, [{"category": "disc"}])
    assert runner_of(name, root, tmp_path / "out").finished == len(runner.cells)
    next(root.glob("*/train/good/**/*.png")).write_bytes(b"another picture")
    after = runner_of(name, root, tmp_path / "out")
    assert after.finished == 0
    assert after.stale == len(runner.cells)
    assert after.store.rows == []


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
