"""Which images are held out, and how their scores are corrected."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from blemish import Inspector, Sample
from blemish.augmentation.small_defects import SMALL_DEFECTS
from blemish.detectors.base import Needs
from blemish.detectors.components import MIN_IMAGES, Components
from blemish.encoders import build
from blemish.errors import DatasetError
from blemish.model import held_out_scores
from blemish.model.held_out_scores import (
    COPIES_CORRECTION,
    DEFAULT_SLOPE,
    SLOPE_SHRINKAGE,
    HeldOutScores,
    calibrate,
    leave_one_out_bias,
    leaves_enough,
)
from blemish.scoring.anomaly_map import map_peak
from blemish.scoring.calibration import CalibrationSource
from blemish.scoring.held_out_plan import DEFECT_IMAGES, FEW, FOLDS, TARGET, plan_held_out
from blemish.types import POINTS, RGB

SCORES = HeldOutScores([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])


def test_scores_of_images_left_out_one_by_one_are_lowered_for_the_image_missed() -> None:
    for images in (2, 4, FEW - 1):
        found = calibrate(SCORES, 0.05, CalibrationSource(images, 3, folds=images), images)
        lowered = (images / (images - 1)) ** (-SLOPE_SHRINKAGE * DEFAULT_SLOPE)
        assert found.scores.tolist() == pytest.approx([lowered * s for s in SCORES.scores])
        assert f"times {lowered:.2f}" in found.source.words


@pytest.mark.parametrize("exponent", [1, 2])
@pytest.mark.parametrize("images", [3, 4, 9])
def test_the_bias_follows_the_learning_curve_that_two_left_out_show(images: int, exponent: int) -> None:
    """Scores that fall as a power of the number of images: the bias is that power's, shrunk."""
    power = 0.3 * exponent
    grown = [math.log((images - 2) ** -power / (images - 1) ** -power)] * 2
    expected = SLOPE_SHRINKAGE * math.log((images - 1) ** -power / images**-power)
    assert leave_one_out_bias(grown, images, exponent) == pytest.approx(expected)
    assert (
        leave_one_out_bias([-0.1, 0.0], images, exponent) == 0
    )  # one image more never makes normal images more anomalous


def test_scores_of_copies_are_raised_and_those_of_enough_images_stand() -> None:
    copied = calibrate(SCORES, 0.05, CalibrationSource(1, 1, copies=True), 1)
    assert copied.scores.tolist() == pytest.approx([COPIES_CORRECTION * s for s in SCORES.scores])
    for source in (CalibrationSource(FEW, 3, folds=FOLDS), CalibrationSource(4, 3)):
        assert calibrate(SCORES, 0.05, source, source.images).scores.tolist() == SCORES.scores


def test_squared_distances_scatter_twice_as_much() -> None:
    """The limit for squares of scores is the square of the limit for the scores."""
    squares = HeldOutScores([s**2 for s in SCORES.scores], [s**2 for s in SCORES.peaks])
    for source in (CalibrationSource(4, 3, folds=3), CalibrationSource(3, 3, copies=True), CalibrationSource(3, 3)):
        plain = calibrate(SCORES, 0.05, source, source.images)
        squared = calibrate(squares, 0.05, replace(source, score_exponent=2), source.images)
        assert squared.threshold == pytest.approx(plain.threshold**2)
        assert squared.p_value(2.5**2) == pytest.approx(plain.p_value(2.5))


def test_scores_that_scatter_more_have_a_higher_limit_and_are_themselves_as_they_are() -> None:
    """As if the logarithms of all scores and the priors were multiplied by the same factor."""
    cubes = HeldOutScores([s**3 for s in SCORES.scores], [s**3 for s in SCORES.peaks])
    source = CalibrationSource(4, 3)
    plain, wide = calibrate(SCORES, 0.05, source, 4), calibrate(SCORES, 0.05, replace(source, score_spread=3.0), 4)
    assert wide.scores.tolist() == plain.scores.tolist()
    assert wide.threshold > plain.threshold
    cubed = calibrate(cubes, 0.05, replace(source, score_spread=3.0), 4)
    assert cubed.threshold == pytest.approx(plain.threshold**3)


@pytest.mark.parametrize("count", [2, 5, 9, 10, 40, 500])
def test_folds_hold_every_image_out_once_at_most_and_all_are_learned_in_the_end(count: int) -> None:
    plan = plan_held_out(["part"] * count, Needs(), 0.05)
    held = [i for fold in plan.folds for i in fold]
    assert len(held) == len(set(held)) >= min(count, TARGET)
    assert plan.fitted == tuple(range(count))
    assert not plan.split
    assert len(plan.folds) == (count if count < FEW else min(FOLDS, -(-TARGET // (count // FOLDS))))


@pytest.mark.parametrize(("count", "folds"), [(7, 7), (6, 0), (10, FOLDS)])
def test_of_a_category_as_many_images_stay_as_a_detector_needs(count: int, folds: int) -> None:
    """Whatever other categories there are."""
    needs = Needs(min_images=7, min_images_left=6)
    plan = plan_held_out(["part"] * count + ["other"] * 30, needs, 0.05)
    assert sum(any(i < count for i in fold) for fold in plan.folds) == folds
    assert plan.copied == (() if folds else tuple(range(count)))
    strict = plan_held_out(["part"] * count, Needs(min_images=count), 0.05)
    assert strict.copied == tuple(range(count))


def test_two_images_are_left_out_where_enough_stay() -> None:
    names, needs = ["part"] * 8 + ["other"] * 7 + ["pair"] * 2, Needs(min_images=8, min_images_left=6)
    assert leaves_enough(names, (0, 1), needs)
    assert not leaves_enough(names, (8, 9), needs)
    assert not leaves_enough(names, (0, 1, 8, 9), needs)
    assert leaves_enough(names, (0, 15, 16), needs)  # of the last nothing is scored
    assert not leaves_enough(names, (0,), Needs(min_images=8))


def test_components_of_the_fewest_images_have_held_out_scores() -> None:
    plan = plan_held_out(["part"] * MIN_IMAGES, Components().needs, 0.05)
    assert len(plan.folds) == MIN_IMAGES
    assert leaves_enough(["part"] * MIN_IMAGES, (0, 1), Components().needs)


def test_dear_learning_sets_images_apart_or_copies_few() -> None:
    dear = Needs(synthetic_anomalies=True)
    few, many = plan_held_out(["part"] * 4, dear, 0.05), plan_held_out(["part"] * 50, dear, 0.05)
    assert few.copied == (0, 1, 2, 3)
    assert not few.folds
    assert len(many.split) == 10
    assert not set(many.split) & set(many.fitted)


def test_small_defects_are_made_up_where_scores_are_too_few_for_the_rate() -> None:
    def with_defects(categories: list[str], needs: Needs = Needs(), rate: float = 0.05) -> tuple[int, ...]:
        return plan_held_out(categories, needs, rate).with_defects

    assert with_defects(["part"]) == (0,)
    assert with_defects(["part"] * 4) == (0, 1, 2, 3)
    assert len(with_defects(["part"] * 18)) == DEFECT_IMAGES
    assert with_defects(["part"] * 19) == ()
    assert len(with_defects(["part"] * 19, rate=0.01)) == DEFECT_IMAGES
    assert with_defects(["one"] * 2 + ["other"] * 30) == (0, 1)
    assert with_defects(["part"] * 4, Needs(synthetic_anomalies=True)) == (0, 1, 2, 3)
    assert with_defects(["part"] * 4, Needs(modalities=(RGB, POINTS))) == ()


@pytest.mark.parametrize("count", [1, 4])
def test_gains_say_what_small_defects_score_on_images_that_the_detector_does_not_know(count: int) -> None:
    """On even stripes any change that can be seen scores many times what the stripes do."""
    random = np.random.default_rng(0)
    stripes = np.full((96, 96, 3), 90.0) + 60 * (np.arange(96) // 8 % 2)[None, :, None]
    images = [(stripes + random.standard_normal(stripes.shape)).astype(np.uint8) for _ in range(count)]
    inspector = Inspector(encoder="patches", detector="patchcore", image_size=96, framing="plain").fit(images)
    (calibration,) = inspector.calibrations.values()
    gains = calibration.defect_gains
    assert len(gains) == count * len(SMALL_DEFECTS)
    assert (np.diff(gains) >= 0).all()
    assert gains.min() > -0.1
    assert count == 1 or np.quantile(gains, 0.75) > 0.3  # copies of stripes differ from them by as much as defects do
    assert f"Of {len(gains)} small made-up defects" in calibration.words
    assert inspector.inspect(images[0]).verdict == "good"


@pytest.mark.parametrize("count", [1, 6, 40])
@pytest.mark.parametrize("is_slow", [False, True])
def test_images_that_were_chosen_are_fitted_on_and_never_held_out(count: int, is_slow: bool) -> None:
    chosen = {count, count + 1}
    needs = Needs(slow_fit=is_slow)
    plan = plan_held_out(["part"] * (count + 2), needs, 0.05, never_held_out=chosen)
    assert chosen <= set(plan.fitted)
    scored = [*(i for fold in plan.folds for i in fold), *plan.split, *plan.copied]
    assert scored
    assert not chosen & set(scored)
    assert sorted(scored) == sorted(set(scored))


def test_chosen_images_join_the_fit_but_not_the_threshold(part: Callable[..., np.ndarray]) -> None:
    """Images with a defect among them as ordinary good ones raise the threshold; `learned_only` they do not."""
    good, chosen = [part(seed=i) for i in range(12)], [part(seed=90 + i, defective=True) for i in range(3)]
    options = {"encoder": "pixels", "detector": "patchcore", "image_size": 64, "device": "cpu"}
    plain = Inspector(**options).fit(good)
    with_chosen = Inspector(**options).fit(good, learned_only=chosen)
    mixed = Inspector(**options).fit([*good, *chosen])
    new = part(seed=200, defective=True)
    assert with_chosen.inspect(new).score < 0.5 * plain.inspect(new).score
    assert len(with_chosen.calibrations[None].scores) == len(plain.calibrations[None].scores) == 12
    assert with_chosen.calibrations[None].threshold <= plain.calibrations[None].threshold * 1.05
    assert mixed.calibrations[None].threshold > with_chosen.calibrations[None].threshold


def test_images_to_learn_from_alone_do_not_count_as_evidence(part: Callable[..., np.ndarray]) -> None:
    options = {"encoder": "pixels", "detector": "patchcore", "image_size": 64, "device": "cpu"}
    found = Inspector(**options).fit([part(seed=i) for i in range(9)], learned_only=[part(seed=50)])
    source = found.calibrations[None].source
    assert source.images == 9
    assert source.correction < 1  # as for any nine that were left out one by one
    pair = Inspector(**options).fit(
        [part(seed=i) for i in range(2)], learned_only=[part(seed=50 + i) for i in range(8)]
    )
    missed = (10 / 9) ** (-SLOPE_SHRINKAGE * DEFAULT_SLOPE)  # one of the ten that are learned from, not of two
    assert pair.calibrations[None].source.correction == pytest.approx(missed)
    single = Inspector(**options).fit([part(seed=0)], learned_only=[part(seed=50 + i) for i in range(4)])
    assert "changed copies of 1 good picture" in single.calibrations[None].source.words
    with pytest.raises(DatasetError, match="thresholds may rest on"):
        Inspector(**options).fit(
            [Sample(part(seed=0), category="a")], learned_only=[Sample(part("ring", seed=1), category="b")]
        )


@pytest.mark.parametrize("count", [1, 4, 12])
def test_peaks_are_those_of_maps_at_the_size_that_the_encoder_saw(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of two joined encoders has the finer grid; of plain images, copies and made-up defects alike."""
    random = np.random.default_rng(0)
    images = [random.integers(0, 255, (96, 128, 3), dtype=np.uint8) for _ in range(count + 1)]
    sizes = []

    def noted(patches: np.ndarray, input_size: tuple[int, int]) -> float:
        sizes.append(input_size)
        return map_peak(patches, input_size)

    monkeypatch.setattr(held_out_scores, "map_peak", noted)
    encoder = build("pixels+pixels", layers=[(1,), (0, 1)])
    features = encoder.encode(images[0][None])
    assert encoder.stride == 16
    assert [layer.shape[1] for layers in features.layers.values() for layer in layers] == [6, 12, 6]
    inspector = Inspector(encoder, "patchcore", image_size=96, square=False, framing="plain").fit(images[:count])
    assert set(sizes) == {(96, 128)}
    inspector.calibrate(images[count:])
    (added,) = inspector.calibrations[None].added
    assert added.peak == inspector.inspect(images[count]).map.max()


def test_one_left_out_of_a_category_says_nothing_of_two() -> None:
    """The learning curve of a category of three is that which it has beside another one, of another size."""
    random = np.random.default_rng(0)
    images = {name: random.integers(0, 255, (count, 56, 56, 3), dtype=np.uint8) for name, count in (("a", 3), ("b", 8))}

    def slope(*names: str) -> list[float]:
        samples = [Sample(image, category=name) for name in names for image in images[name]]
        fitted = Inspector("patches", "subspace", image_size=56, device="cpu").fit(samples)
        return fitted.calibrations["a"].scores.tolist()

    assert slope("a", "b") == pytest.approx(slope("a"), rel=1e-6)
