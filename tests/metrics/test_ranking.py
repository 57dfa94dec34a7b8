"""Image measures against scikit-learn and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from metric_oracles import best_f1
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from blemish.errors import DatasetError
from blemish.metrics import auroc, average_precision, f1_max, ranking_measures
from blemish.metrics.ranking import precision_recall_points, roc_points

SCALES = {
    "plain": lambda s: s,
    "quantised": lambda s: np.round(s * 3) / 3,
    "two values": lambda s: (s > 0).astype(float),
    "all equal": lambda s: s * 0 + 5,
    "negative": lambda s: s - 100,
    "huge": lambda s: s * 1e300,
    "tiny": lambda s: s * 1e-300,
    "float32": lambda s: s.astype(np.float32),
    "integers": lambda s: np.round(s * 10).astype(np.int64),
}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("defective", [1, 20, 59])
def test_points_of_the_curves_equal_scikit_learn(scale: str, defective: int) -> None:
    rng = np.random.default_rng(defective)
    labels = rng.permutation(np.arange(60) < defective)
    scores = SCALES[scale](rng.normal(size=60) + 0.7 * labels)
    false_alarms, found = roc_points(scores, labels)
    expected = roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(false_alarms, expected[0], atol=1e-12)
    np.testing.assert_allclose(found, expected[1], atol=1e-12)
    area = np.sum(np.diff(false_alarms) * (found[1:] + found[:-1]) / 2)
    assert area == pytest.approx(auroc(scores, labels), abs=1e-12)
    recall, precision = precision_recall_points(scores, labels)
    precise, recalled, _ = precision_recall_curve(labels, scores)  # thresholds rise, and (0, 1) is added at the end
    np.testing.assert_allclose(recall, recalled[-2::-1], atol=1e-12)
    np.testing.assert_allclose(precision, precise[-2::-1], atol=1e-12)


def test_points_of_a_curve_without_one_class() -> None:
    """The rate of a class that is missing stays 0; without scores there is the origin alone."""
    assert [points.tolist() for points in roc_points([1.0, 2.0], [0, 0])] == [[0, 0.5, 1], [0, 0, 0]]
    assert [points.tolist() for points in roc_points([], [])] == [[0], [0]]
    assert [points.tolist() for points in precision_recall_points([1.0, 2.0], [0, 0])] == [[0, 0], [0, 0]]
    with pytest.raises(DatasetError, match="one label for each score"):
        roc_points([1.0], [0, 1])


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("defective", [1, 20, 59])
def test_equals_scikit_learn(scale: str, defective: int) -> None:
    rng = np.random.default_rng(defective)
    labels = np.arange(60) < defective
    scores = SCALES[scale](rng.normal(size=60) + 0.7 * labels)
    order = rng.permutation(60)
    labels, scores = labels[order], scores[order]
    got = ranking_measures(scores, labels)
    assert got.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert got.ap == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    precision, recall, _ = precision_recall_curve(labels, scores)
    assert got.f1max == pytest.approx(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300)))
    assert (got.f1max, got.f1max_threshold) == best_f1(scores, labels)


def test_single_measures_are_those_of_the_joint_one() -> None:
    scores, labels = [0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]
    got = ranking_measures(scores, labels)
    assert auroc(scores, labels) == got.auroc == 0.75
    assert average_precision(scores, labels) == got.ap == pytest.approx(5 / 6)
    assert f1_max(scores, labels) == (got.f1max, got.f1max_threshold) == (0.8, 0.35)


@pytest.mark.parametrize("change", [np.exp, np.arctan, lambda s: s**3, lambda s: -1 / (s + 50), lambda s: 1e6 * s - 3])
def test_increasing_change_of_scale_changes_nothing(change) -> None:
    rng = np.random.default_rng(1)
    labels = rng.random(200) < 0.3
    scores = np.round(rng.normal(size=200) + labels, 1)
    before, after = ranking_measures(scores, labels), ranking_measures(change(scores), labels)
    assert before[:3] == after[:3]
    assert after.f1max_threshold == change(before.f1max_threshold)


def test_one_class_alone_is_nan_not_an_error() -> None:
    for labels in ([0, 0], [1, 1]):
        assert all(math.isnan(value) for value in ranking_measures([1.0, 2.0], labels))
    assert math.isnan(auroc([], []))


@pytest.mark.parametrize(
    ("scores", "labels", "said"),
    [
        ([1.0, 2.0], [0], r"shape \(2,\) and labels of shape \(1,\)"),
        ([[1.0, 2.0]], [[0, 1]], "flat"),
        ([1.0, math.nan, 2.0], [0, 1, 1], "1 NaN or infinite of 3, the first at position 1"),
        ([math.inf, 2.0], [0, 1], "finite"),
        ([1.0, 2.0], [0, 2], "labels 0"),
        ([1.0, 2.0], [0, None], r"labels 0 .* got \[None\]"),
        (["a", "b"], [0, 1], "real numbers"),
    ],
)
def test_bad_input_is_named(scores: list, labels: list, said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        ranking_measures(scores, labels)
