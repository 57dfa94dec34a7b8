"""Good images that score apart from the others are named, with what they do to the threshold; nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blemish import Inspector, Sample
from blemish.model.standing_out import find_standing_out
from blemish.scoring.calibration import Calibration, CalibrationSource
from blemish.scoring.outlying_scores import MIN_SCORES

Draw = Any


def fresh(detector: str = "patchcore", **settings: Any) -> Inspector:
    settings = settings or {"rotations": 1}
    return Inspector(encoder="pixels", detector=detector, image_size=64, device="cpu", **settings)


def samples(part: Draw, count: int, defective: tuple[int, ...] = (), category: str | None = None) -> list[Sample]:
    return [Sample(part("stripes", seed=i, defective=i in defective), category=category) for i in range(count)]


@pytest.mark.parametrize("count", [9, 24])  # left out one by one; in folds
def test_a_defective_image_among_the_good_ones_stands_out(part: Draw, count: int) -> None:
    inspector = fresh().fit(samples(part, count, defective=(5,)))
    (found,) = inspector.standing_out_
    assert found.score > found.others >= 1
    assert found.fingerprint in inspector.model_.fingerprints  # it was learned from all the same
    calibration = inspector.calibrations[None]
    assert found.threshold_without is not None
    assert found.threshold_without < calibration.threshold
    assert calibration.scores[-1] / np.median(calibration.scores) == pytest.approx(found.score)
    assert calibration.scores[-2] / np.median(calibration.scores) == pytest.approx(found.others)


def test_it_is_named(part: Draw, tmp_path: Path) -> None:
    from PIL import Image

    for i, sample in enumerate(samples(part, 12, defective=(7,))):
        assert isinstance(sample.image, np.ndarray)
        Image.fromarray(sample.image).save(tmp_path / f"{i}.png")
    inspector = fresh().fit(tmp_path)
    assert [one.file for one in inspector.standing_out_] == [str(tmp_path / "7.png")]
    folder = inspector.save(tmp_path / "model")
    (saved,) = json.loads((folder / "settings.json").read_text())["standing_out"]
    assert saved["file"] == "7.png"  # no places of the machine
    (back,) = Inspector.load(folder, device="cpu").standing_out_
    assert back.to_dict() == inspector.standing_out_[0].to_dict()


@pytest.mark.parametrize("kind", ["disc", "ring", "stripes"])
def test_hardly_any_clean_set_is_reported(part: Draw, kind: str) -> None:
    found = [fresh().fit([part(kind, seed=20 * draw + i) for i in range(20)]).standing_out_ for draw in range(6)]
    assert sum(map(bool, found)) <= 1


def test_every_category_is_compared_with_itself(part: Draw) -> None:
    stripes = samples(part, 16, defective=(3,), category="stripes")
    rings = [Sample(part("ring", seed=i), category="ring") for i in range(12)]
    (found,) = fresh().fit(stripes + rings).standing_out_
    assert found.category == "stripes"


def test_few_images_are_not_judged(part: Draw) -> None:
    assert fresh().fit(samples(part, MIN_SCORES - 1, defective=(2,))).standing_out_ == ()


def test_mutual_scores_are_compared_where_a_detector_is_too_slow_for_folds(part: Draw) -> None:
    settings: dict[str, Any] = {"steps": 2}
    inspector = fresh("reverse-distillation", **settings).fit(samples(part, 12, defective=(4,)))
    (found,) = inspector.standing_out_
    assert found.threshold_without is None


def test_what_was_set_aside_does_not_stand_out(part: Draw) -> None:
    inspector = fresh().fit(samples(part, 20, defective=(3,)), clean=True)
    assert len(inspector.outliers_) == 1
    assert inspector.standing_out_ == ()


def test_the_categories_share_the_level() -> None:
    """A gap that is reported in one category alone would be too common a one among twenty."""
    logs = np.concatenate([np.linspace(0, 0.2, 15), [0.8]])
    scores = dict(enumerate(np.exp(logs).tolist()))
    calibration = Calibration.of(np.exp(logs), np.exp(logs), 0.05, CalibrationSource(16, 16, folds=5))
    every = [Sample(np.zeros((2, 2, 3), np.uint8)) for _ in range(16)]
    for categories, count in ((1, 1), (20, 0)):
        names = [str(number) for number in range(categories)]
        found = find_standing_out(
            dict.fromkeys(names, scores), dict.fromkeys(names, calibration), every, [str(i) for i in range(16)]
        )
        assert len(found) == count


def test_one_image_stands_out_of_those_that_score_nothing() -> None:
    values = np.array([0.0] * 15 + [3.0])
    scores = {"": dict(enumerate(values.tolist()))}
    calibration = Calibration.of(values, values, 0.05, CalibrationSource(16, 16, folds=5))
    every = [Sample(np.zeros((2, 2, 3), np.uint8)) for _ in range(16)]
    (found,) = find_standing_out(scores, {"": calibration}, every, [str(i) for i in range(16)])
    assert found.fingerprint == "15"
    assert found.others == 0
    assert np.isfinite(found.score)


def test_the_threshold_is_not_moved(part: Draw) -> None:
    """Held-out scores of all good images make it: the accepted rate holds whatever stands out."""
    calibration = fresh().fit(samples(part, 20, defective=(5,))).calibrations[None]
    assert len(calibration.scores) == 20
    assert calibration.threshold == calibration.scores[-1]
