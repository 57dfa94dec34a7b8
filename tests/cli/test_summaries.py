"""What is said of a model in the terminal and in reports."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from blemish import Inspector
from blemish.cli.summaries import calibration_facts, model_in_words

Draw = Any


def test_a_model_that_finds_few_made_up_defects_is_not_to_be_relied_on_untested(toy: str, part: Draw) -> None:
    inspector = Inspector(encoder="pixels", detector=toy, device="cpu").fit([part(seed=i) for i in range(6)])
    model = inspector.model_
    said = {}
    for found in (0, 2, 3, 9):
        gains = np.array([0.0] * (9 - found) + [99.0] * found)
        told = replace(model.calibrations[None], defect_gains=gains)
        other = Inspector.of(replace(model, calibrations={None: told}))
        said[found] = " ".join(model_in_words(other)), calibration_facts(other)[0].obtained
    for found in (0, 2):
        for words in said[found]:
            assert f"It finds {found} of 9 small made-up defects: test it on defective parts" in words
    for found in (3, 9):
        for words in said[found]:
            assert "test it" not in words


def test_both_limits_are_said_once(toy: str, part: Draw) -> None:
    inspector = Inspector(encoder="pixels", detector=toy, device="cpu").fit([part(seed=i) for i in range(6)])
    calibration = inspector.calibrations[None]
    assert calibration.unsure_threshold < calibration.threshold
    limits = f"Defective above {calibration.threshold:.4g}, unsure above {calibration.unsure_threshold:.4g}."
    assert limits in " ".join(model_in_words(inspector))
    one = replace(calibration, unsure_rate=0.0)
    model = replace(inspector.model_, calibrations={None: one})
    words = " ".join(model_in_words(Inspector.of(model)))
    assert f"Defective above {one.threshold:.4g}." in words
    assert "unsure above" not in words


def test_pictures_of_unknown_state_are_among_what_a_limit_was_taken_from(toy: str, part: Draw) -> None:
    inspector = Inspector(encoder="pixels", detector=toy, device="cpu").fit([part(seed=i) for i in range(6)])
    calibration = inspector.calibrations[None]
    scores = np.geomspace(calibration.scores.min(), calibration.scores.max(), 20)
    joined = replace(inspector.model_, calibrations={None: calibration.with_unlabelled(scores, scores, 0.1)})
    (facts,) = calibration_facts(Inspector.of(joined))
    assert facts.unlabelled == 20
    assert "20 pictures of unknown state" in facts.obtained
    (before,) = calibration_facts(inspector)
    assert not before.unlabelled
    assert "unknown state" not in before.obtained
