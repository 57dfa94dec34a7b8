from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_parts import prediction
from PIL import Image
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score

from blemish.errors import DatasetError
from blemish.evaluation import CategoryData, TestResults
from blemish.evaluation.results import certainty, put_aside, resized
from blemish.types import Prediction, Sample, Saturation

CATEGORY = CategoryData("d", "c", (), ())


def results(
    labels: list[int], predictions: list[Prediction], masks: list[np.ndarray | None] | None = None
) -> TestResults:
    samples = [
        Sample(Path(f"{i}"), label=label, mask=mask)
        for i, (label, mask) in enumerate(zip(labels, masks or [None] * len(labels), strict=True))
    ]
    return TestResults(CATEGORY, samples, predictions)


def test_pixel_measures_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(0)
    masks = [None, random.random((9, 7)) > 0.8, random.random((9, 7)) > 0.7]
    maps = [random.random((9, 7)).astype(np.float32) for _ in masks]
    found = results([0, 1, 1], [prediction(1.0, scores=m) for m in maps], masks).measures()
    truth = np.concatenate([np.zeros(63) if m is None else m.ravel() for m in masks])
    scores = np.concatenate([m.ravel() for m in maps])
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(truth, scores))
    assert found["pixel_ap"] == pytest.approx(average_precision_score(truth, scores))


def test_without_masks_pixel_measures_are_blank_and_that_is_said() -> None:
    tested = results([0, 1], [prediction(0.5), prediction(2.0)])
    found = tested.measures()
    assert found["image_auroc"] == 1
    assert found["n_masks"] == 0
    assert all(math.isnan(found[name]) for name in ("pixel_auroc", "aupro_30", "aupro_01"))
    assert tested.notes() == ("masks for 0 of 1 defective pictures; pixel figures are left blank",)


def test_groups_of_defects_and_saturated_overlap() -> None:
    """A logical anomaly is found whole by half of its mask where that is its saturation; the other group is apart."""
    mask = np.zeros((4, 4), bool)
    mask[:2, :2] = True
    maps = [np.zeros((4, 4), np.float32) for _ in range(4)]
    maps[2][0, :2] = 1  # half of the logical one
    maps[3][0, 0] = 1  # a quarter of the structural one
    tested = results([0, 0, 1, 1], [prediction(s, scores=m) for s, m in zip((1, 2, 3, 0.5), maps, strict=True)])
    for i, kind in ((2, "logical_anomalies"), (3, "structural_anomalies")):
        tested.samples[i] = replace(
            tested.samples[i], defect=kind, mask=mask, saturations={1: Saturation(0.5, is_relative=True)}
        )
    found = tested.measures()
    assert (found["image_auroc_logical"], found["image_auroc_structural"]) == (1, 0)
    # All defect-free pixels tie at 0: the straight line to (1, 1) adds what is missing, in part.
    assert found["spro_05_logical"] == pytest.approx(1)
    assert found["spro_05_structural"] == pytest.approx(0.5 + 0.5 * 0.05 / 2 / (1 / 2) * 0.5, abs=0.02)
    assert found["spro_05"] == pytest.approx((found["spro_05_logical"] + found["spro_05_structural"]) / 2, abs=0.01)
    assert found["spro_30"] > found["spro_05"]


def test_without_groups_and_saturations_these_are_blank() -> None:
    mask = np.ones((4, 4), bool)
    mask[0] = False
    found = results([0, 1], [prediction(0.5), prediction(2.0)], [None, mask]).measures()
    names = [name for name in found if name.startswith("spro") or name.endswith(("logical", "structural"))]
    assert len(names) == 6
    assert all(math.isnan(found[name]) for name in names)


def test_what_is_left_to_a_person_counts_half() -> None:
    """A normal image called defective or unknown is a false alarm, a defective one called good is missed."""
    verdicts = ("good", "unsure", "unknown", "defective")
    tested = results(
        [0] * 4 + [1] * 4,
        [prediction(0.5, verdict=verdict) for verdict in verdicts * 2],  # type: ignore[arg-type]
    )
    found = tested.measures()
    assert (found["false_alarm_rate"], found["miss_rate"]) == (0.625, 0.375)
    assert (found["unknown_rate"], found["unsure_rate"]) == (0.25, 0.25)
    assert [image.is_alarm for image in tested.images()] == [
        verdict in ("unknown", "defective") for verdict in verdicts * 2
    ]


def test_the_interval_of_the_kept_rate_is_that_of_alarms_alone() -> None:
    """It stands beside what is promised of them; one that is unsure is no alarm."""
    verdicts = ["good"] * 10 + ["unsure"] * 8 + ["unknown"] + ["defective"]
    found = results([0] * 20, [prediction(0.5, verdict=verdict) for verdict in verdicts]).measures()  # type: ignore[arg-type]
    expected = binomtest(2, 20).proportion_ci()  # Clopper-Pearson
    assert found["false_alarm_rate_low"] == pytest.approx(expected.low)
    assert found["false_alarm_rate_high"] == pytest.approx(expected.high)
    assert found["false_alarm_rate"] == pytest.approx(0.3)


def test_p_values_and_certainty_are_judged() -> None:
    honest = [prediction(0.5, p_value=p) for p in np.linspace(0.05, 1, 20)]
    assert results([0] * 20, honest).measures()["p_value_excess"] == pytest.approx(0)
    hasty = [prediction(0.5, p_value=p / 2) for p in np.linspace(0.05, 1, 20)]
    assert results([0] * 20, hasty).measures()["p_value_excess"] == pytest.approx(0.5)
    sure = results([0, 0, 1, 1], [prediction(s) for s in (0.1, 1.1, 9.0, 8.0)])  # the one error is the least certain
    rash = results([0, 0, 1, 1], [prediction(s) for s in (0.9, 99.0, 1.1, 1.2)])  # the one error is the most certain
    assert sure.measures()["aurc"] < rash.measures()["aurc"]
    assert certainty(prediction(2.0)) == pytest.approx(certainty(prediction(0.5)))
    assert certainty(prediction(0.0, verdict="unknown")) < certainty(prediction(1.0))


def test_masks_of_another_shape_are_refused_and_scaled_ones_are_not() -> None:
    scores = np.zeros((40, 60), np.float32)
    turned = results([1], [prediction(1.0, scores=scores)], [np.ones((60, 40), bool)])
    with pytest.raises(DatasetError, match="60x40"):
        turned.measures()
    half = np.zeros((20, 30), bool)
    half[:5, :5] = True
    assert results([0, 1], [prediction(1.0, scores=scores)] * 2, [None, half]).measures()["pixel_auroc"] == 0.5


def test_empty_and_inverted_masks_are_noticed() -> None:
    masks = [np.zeros((4, 4), bool), np.ones((4, 4), bool), np.eye(4, dtype=bool)]
    notes = results([1] * 3, [prediction(1.0)] * 3, masks).notes()
    assert notes == (
        "1 of 3 masks are empty: nothing is marked in them",
        "1 of 3 masks mark over 50 % of their picture: inverted?",
    )


def test_examples_are_the_most_telling_and_their_maps_may_lie_on_disk(tmp_path: Path) -> None:
    scores = [0.2, 1.5, 3.0, 0.9, 5.0, 0.1]
    maps = [np.full((3, 3), score, dtype=np.float32) for score in scores]
    tested = results([0, 0, 0, 1, 1, 1], [prediction(s, scores=m) for s, m in zip(scores, maps, strict=True)])
    examples = tested.examples(1, tmp_path)
    assert {kind: [p.score for _, p in pairs] for kind, pairs in examples.items()} == {
        "found": [5.0],
        "missed": [0.1],
        "false alarm": [3.0],
    }
    for pairs in examples.values():
        for _, kept in pairs:
            assert isinstance(kept.map, np.memmap)
            assert (kept.map == np.float32(kept.score)).all()
    assert put_aside(tested.predictions[0], None) is tested.predictions[0]


def test_a_map_is_measured_at_its_masks_size() -> None:
    scores = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert resized(scores, (3, 4)) is scores
    assert resized(scores, (6, 8)).shape == (6, 8)
    assert resized(scores, (6, 8)).mean() == pytest.approx(scores.mean())


def test_masks_that_may_lie_on_unturned_images_are_noticed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 3
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
    marked = np.zeros((4, 6), np.uint8)
    marked[1, 1] = 255
    Image.fromarray(marked).save(tmp_path / "a_mask.png")
    sample = Sample(tmp_path / "a.jpg", label=1, mask=tmp_path / "a_mask.png")
    found = TestResults(CATEGORY, [sample], [prediction(1.0, scores=np.zeros((4, 6), np.float32))])
    assert found.notes() == ("1 of 1 masks lie on pictures that EXIF turns: drawn as shown upright?",)
