from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluation_parts import toy_run, write_category

from blemish.errors import DatasetError, SettingsError
from blemish.evaluation import CategoryData, check_runs, plan_runs, training_samples


def test_plan_is_every_combination() -> None:
    categories = [CategoryData("d", name, (), ()) for name in "ab"]
    runs = plan_runs(categories, ["x", "y"], [1, None], [0, 1, 2], encoder="pixels")
    assert len(runs) == 2 * 2 * 2 * 3
    assert {run.encoder for run in runs} == {"pixels"}
    assert len({(run.detector, run.shots, run.categories[0].name, run.seed) for run in runs}) == len(runs)
    pooled = plan_runs(categories, ["x"], [1], [0], pooled=True)
    assert [[category.name for category in run.categories] for run in pooled] == [["a", "b"]]


def test_shots_are_drawn_as_documented(tmp_path: Path, part) -> None:  # type: ignore[no-untyped-def]
    made = write_category(tmp_path, part)
    order = np.random.RandomState(7).permutation(6)[:3]
    assert [s.image for s in training_samples(toy_run(made, shots=3, seed=7))] == [made.train[i].image for i in order]
    assert {s.category for s in training_samples(toy_run(made))} == {"disc"}


def test_impossible_runs_are_refused_before_any_is_done(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    made = write_category(tmp_path, part)
    check_runs([toy_run(made)])
    with pytest.raises(DatasetError):
        check_runs([toy_run(made), toy_run(made, shots=7)])
    with pytest.raises(SettingsError):
        check_runs([toy_run(made), toy_run(made, detector="none such")])


def test_two_datasets_of_one_name_are_refused(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    """Their rows would be averaged as if they were seeds of one category."""
    one, other = (write_category(tmp_path / folder, part) for folder in "ab")
    check_runs([toy_run(one, seed=0), toy_run(one, seed=1)])
    with pytest.raises(DatasetError, match="made/disc"):
        check_runs([toy_run(one), toy_run(other)])


def test_one_name_twice_in_a_pooled_model_is_refused(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    one = write_category(tmp_path, part)
    other = CategoryData("another", one.name, one.train, one.test)
    check_runs([toy_run(one), toy_run(other)])
    with pytest.raises(SettingsError, match="disc, disc"):
        check_runs(plan_runs([one, other], ["toy"], pooled=True, encoder="pixels"))
