from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from experiment_parts import TINY, made_part

from blemish.cli.evaluate import parts_of
from blemish.errors import OutputError, SettingsError
from blemish.research.experiments.base import Experiment
from blemish.research.experiments.rows import RowBook
from blemish.research.experiments.running import Notebook, configured

KEY, MEASURES = ("category", "shots", "seed", "data"), ("auroc", "seconds")


def book(folder: Path, name: str = "an-experiment", **settings: Any) -> RowBook:
    return RowBook(folder, name, KEY, MEASURES, settings).open()


def key(seed: int = 0, data: str = "d", **more: Any) -> dict[str, Any]:
    return {"category": "001", "shots": "all", "seed": seed, "data": data, **more}


def test_rows_come_back_as_they_were_added(tmp_path: Path) -> None:
    first = book(tmp_path / "new" / "folder")
    first.add(key(), [{"auroc": 0.1234567, "seconds": 3}, {"auroc": float("nan"), "category": "a,b\n"}])
    again = book(tmp_path / "new" / "folder")
    assert repr(again.rows) == repr(first.rows)
    one, two = again.rows
    assert (one["category"], one["shots"], one["seed"], one["auroc"], one["seconds"]) == ("001", "all", 0, 0.123457, 3)
    assert two["auroc"] != two["auroc"]
    assert two["category"] == "a,b "
    assert again.has(key())
    assert not again.has(key(1))


@pytest.mark.parametrize("kept", range(1, 40, 3))
def test_a_kill_while_writing_leaves_whole_cells_alone(tmp_path: Path, kept: int) -> None:
    """Whatever is cut off the end of the file, its first cell stays, and the second is whole or gone."""
    first = book(tmp_path)
    first.add(key(0), [{"auroc": 0.5}])
    before = first.path.read_bytes()
    first.add(key(1), [{"auroc": 0.6}, {"auroc": 0.7}])
    whole = first.path.read_bytes()
    cut = whole[: len(before) + kept * (len(whole) - len(before)) // 40]
    first.path.write_bytes(cut)
    again = book(tmp_path)
    assert again.has(key(0))
    assert not again.has(key(1))
    assert again.path.read_bytes() == before
    again.add(key(1), [{"auroc": 0.6}, {"auroc": 0.7}])
    assert again.path.read_bytes() == whole


def test_other_settings_are_told_and_refused(tmp_path: Path) -> None:
    book(tmp_path, steps=100).add(key(), [{}])
    with pytest.raises(SettingsError, match="steps 100 there, 200 now"):
        book(tmp_path, steps=200)
    with pytest.raises(SettingsError, match="results of an-experiment"):
        book(tmp_path, "another", steps=100)
    assert book(tmp_path, steps=100).rows


def test_a_table_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("file,score\na,1\n")
    with pytest.raises(SettingsError, match="something else"):
        book(tmp_path)
    (tmp_path / "settings.json").write_text(json.dumps({"experiment": "an-experiment", "settings": {}}))
    with pytest.raises(SettingsError, match="columns"):
        book(tmp_path)
    assert (tmp_path / "results.csv").read_text() == "file,score\na,1\n"


def test_rows_of_changed_images_are_forgotten(tmp_path: Path) -> None:
    first = book(tmp_path)
    first.add(key(0, "old"), [{"auroc": 0.5}])
    first.add(key(1, "old"), [{"auroc": 0.5}])
    assert first.forget(key(0, "old"), "data") == 0
    assert first.forget(key(0, "new"), "data") == 1
    assert [row["seed"] for row in book(tmp_path).rows] == [1]


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        book(tmp_path / "file").add(key(), [{}])


@pytest.mark.parametrize("name", ["cnn-vs-attention", "identity-mapping", "area-distance"])
def test_a_run_that_went_on_ends_like_one_that_ran_through(name: str, dataset: Path, tmp_path: Path) -> None:
    def notebook(out: str) -> Notebook:
        made = configured(name, {**TINY[name], "seeds": [0, 1]})
        return Notebook(name, made, parts_of([dataset], None), tmp_path / out)

    whole = notebook("whole")
    whole.work(lambda words, done, total: None)
    started = notebook("parts")

    def interrupted(words: str, done: float, total: int) -> None:
        if started.finished == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        started.work(interrupted)
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["results.csv", "settings.json"]
    went_on = notebook("parts")
    assert went_on.finished == 1
    went_on.work(lambda words, done, total: None)
    clocks = {"fit_seconds", "ms_per_picture", "peak_memory_mb"}
    assert len(whole.book.rows) == len(went_on.book.rows)
    for one, other in zip(whole.book.rows, went_on.book.rows, strict=True):
        assert {k: repr(v) for k, v in one.items() if k not in clocks} == {
            k: repr(v) for k, v in other.items() if k not in clocks
        }


def test_lines_are_on_disk_before_the_next_cell_begins(dataset: Path, tmp_path: Path) -> None:
    name = "cnn-vs-attention"
    made = configured(name, {**TINY[name], "seeds": [0]})
    notebook = Notebook(name, made, parts_of([dataset], None), tmp_path)
    seen = []

    def look(words: str, done: float, total: int) -> None:
        if (tmp_path / "results.csv").exists():
            with (tmp_path / "results.csv").open(newline="") as file:
                seen.append((notebook.finished, len(list(csv.DictReader(file)))))

    notebook.work(look)
    assert (1, 1) in seen
    assert all(finished == rows for finished, rows in seen)


def test_single_values_stand_for_lists_and_defaults_are_stated_once() -> None:
    made = configured("shots", {"shots": 4, "detectors": "patchcore"})
    assert (made.shots, made.detectors) == ((4,), ("patchcore",))  # type: ignore[attr-defined]
    assert configured("shots", {"shots": [1, None]}).shots == (1, None)  # type: ignore[attr-defined]
    assert configured("identity-mapping", {"maskings": [0, 0.5]}).maskings == (0.0, 0.5)  # type: ignore[attr-defined]
    assert "seeds" not in configured("shots").common
    with pytest.raises(SettingsError, match="known experiment"):
        configured("a-question")


def test_an_unknown_name_lists_those_written_alike() -> None:
    with pytest.raises(SettingsError, match="pretraining"):
        configured("pretrainig")


def test_a_promise_alone_is_no_experiment() -> None:
    with pytest.raises(NotImplementedError):
        Experiment().cells([made_part()])
