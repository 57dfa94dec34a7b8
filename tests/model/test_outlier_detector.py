"""AnomalyInspector keeps the promises of scikit-learn's outlier detectors, and scikit-learn's own tools take it."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError as SklearnNotFitted
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

from blemish import AnomalyInspector, Inspector
from blemish.errors import ImageError, NotFittedError, SettingsError
from blemish.model.outlier_detector import DEFAULTS, excess, several
from blemish.types import Prediction


def unfitted(toy: str, **more: Any) -> AnomalyInspector:
    return AnomalyInspector(encoder="pixels", detector=toy, image_size=48, device="cpu", **more)


@pytest.fixture
def mixed(part: Any) -> tuple[np.ndarray, np.ndarray]:
    """Twelve images `(12, 64, 80, 3)`, the last four defective, and 1 for good, -1 for defective ones."""
    images = np.stack([part(seed=i, defective=i >= 8) for i in range(12)])
    return images, np.where(np.arange(12) < 8, 1, -1)


def test_outliers_are_those_that_the_inspector_calls_so(toy: str, mixed: tuple[np.ndarray, np.ndarray]) -> None:
    images, truth = mixed
    detector = unfitted(toy).fit(images[:6])
    inspector = Inspector("pixels", toy, image_size=48, device="cpu").fit(list(images[:6]))
    found = [inspector.inspect(image) for image in images]
    scores, decisions, labels = (
        function(images) for function in (detector.score_samples, detector.decision_function, detector.predict)
    )
    assert np.array_equal(decisions, scores - detector.offset_)
    assert np.array_equal(labels, np.where(decisions < 0, -1, 1))
    assert labels.tolist() == [-1 if one.is_defective or not one.is_known else 1 for one in found]
    assert set(labels) == {-1, 1}
    for one, score in zip(found, scores, strict=True):
        assert -score == pytest.approx(one.score / one.threshold, rel=1e-12) or not one.is_known
    assert roc_auc_score(truth[6:], scores[6:]) == 1
    assert (unfitted(toy).fit_predict(images[:6]) == detector.predict(images[:6])).all()
    assert detector.inspector_.is_fitted


@pytest.mark.parametrize("threshold", [0.0, 0.7, 1.9999999999999998])
def test_the_sign_is_the_verdict_whatever_is_rounded(threshold: float, predict: Any) -> None:
    above = float(np.nextafter(threshold, np.inf))
    at = replace(predict(score=threshold), threshold=threshold, verdict="unsure")
    beyond: Prediction = replace(at, score=above, verdict="defective")
    unknown = replace(at, score=0.0, verdict="unknown")
    assert 1 - excess(at) == 0
    assert 1 - excess(beyond) < 0
    assert 1 - excess(unknown) < 0
    assert excess(replace(at, score=3 * threshold + 1, verdict="defective")) > excess(beyond)


@pytest.mark.parametrize("verb", ["score_samples", "decision_function", "predict"])
def test_scores_of_many_images_do_not_hold_their_maps(toy: str, predict: Any, verb: str) -> None:
    maps: list[weakref.ref[np.ndarray]] = []
    most = 0

    class Many:
        def inspect_many(self, images: Any, category: str | None) -> Any:
            nonlocal most
            for _ in images:
                one = predict()
                maps.append(weakref.ref(one.map))
                most = max(most, sum(known() is not None for known in maps))
                yield one

    detector = unfitted(toy)
    detector.inspector_, detector.offset_ = Many(), -1.0  # type: ignore[assignment]
    assert len(getattr(detector, verb)(["part.png"] * 20)) == 20
    assert most <= 3


def test_it_is_cloned_with_all_its_parameters(toy: str) -> None:
    detector = unfitted(toy, false_alarm_rate=0.1, power=2.0)
    copy = clone(detector)
    assert copy.get_params() == detector.get_params()
    assert copy.get_params().keys() == DEFAULTS.keys() | {"power"}
    assert copy.set_params(power=3.0, image_size=56).get_params()["power"] == 3.0
    assert detector.get_params()["power"] == 2.0
    assert "false_alarm_rate=0.1" in repr(detector)
    assert "seed" not in repr(detector)
    assert eval(repr(detector), {"AnomalyInspector": AnomalyInspector}).get_params() == detector.get_params()
    assert is_outlier_detector(detector)


def test_a_pipeline_takes_it(toy: str, mixed: tuple[np.ndarray, np.ndarray]) -> None:
    images, truth = mixed
    halved = FunctionTransformer(lambda stack: stack[:, ::2, ::2])
    pipeline = Pipeline([("halved", halved), ("inspector", unfitted(toy))]).fit(images[:8])
    assert pipeline.set_params(inspector__power=1.5).get_params()["inspector__power"] == 1.5
    assert roc_auc_score(truth, pipeline.decision_function(images)) == 1
    assert pipeline.predict(images[:1]).tolist() == [1]


def test_cross_validation_and_grid_search_take_it(toy: str, mixed: tuple[np.ndarray, np.ndarray]) -> None:
    """Fitted on good images alone: the splits say which."""
    images, truth = mixed
    splits = [(np.arange(4), np.arange(4, 12)), (np.arange(4, 8), np.r_[:4, 8:12])]
    found = cross_val_score(unfitted(toy), images, truth, cv=splits, scoring="roc_auc")
    assert found.tolist() == [1, 1]
    search = GridSearchCV(unfitted(toy), {"power": [1.0, 2.0]}, cv=splits, scoring="roc_auc", refit=False)
    search.fit(images, truth)
    assert search.cv_results_["mean_test_score"].tolist() == [1, 1]
    assert search.best_params_ == {"power": 1.0}


def test_folders_lists_and_arrays_are_the_same_samples(toy: str, part: Any, tmp_path: Path) -> None:
    images = [part(seed=i) for i in range(4)]
    paths = [tmp_path / "good" / f"{i}.png" for i in range(4)]
    paths[0].parent.mkdir()
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    detector = unfitted(toy).fit(tmp_path / "good")
    expected = detector.score_samples(images)
    for X in (str(tmp_path / "good"), paths, np.array([str(path) for path in paths]), np.stack(images), iter(images)):
        assert np.array_equal(detector.score_samples(X), expected)
    assert len(several(np.stack(images)[..., 0])) == 4  # grey


def test_one_image_is_no_list_of_them(part: Any) -> None:
    for X in (part(), part()[..., 0], Image.fromarray(part())):
        with pytest.raises(SettingsError, match="several pictures"):
            several(X)


def test_before_fit_and_for_wrong_parameters_and_files_it_says_what_to_do(toy: str, part: Any, tmp_path: Path) -> None:
    detector = unfitted(toy)
    with pytest.raises(NotFittedError, match="call fit first"):
        detector.predict([part()])
    with pytest.raises(SklearnNotFitted):
        check_is_fitted(detector)
    images = [part(seed=i) for i in range(3)]
    with pytest.raises(SettingsError, match="no_such"):
        unfitted(toy, no_such=1).fit(images)
    check_is_fitted(detector.fit(images))
    with pytest.raises(ImageError, match=r"none\.png"):
        detector.predict([tmp_path / "none.png"])
