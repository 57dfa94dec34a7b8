"""The sign "prompts do not separate": it shows where sentences fit a spot no better than the part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_text_parts import write_model

from blemish import Inspector
from blemish.detectors.base import ComparesWithText
from blemish.detectors.patchcore import PatchCore
from blemish.diagnosis import Sign, diagnose
from blemish.diagnosis.prompt_separation import NAME, covered_share
from blemish.preprocessing.framing import Frame
from blemish.types import Features


@dataclass(kw_only=True, eq=False, repr=False)
class Speaking(PatchCore):
    """A bank whose patches claim a nearness to sentences: `sense` 1 follows their distance, −1 is its opposite."""

    sense: int = 1

    def text_margins(self, features: Features) -> torch.Tensor:
        return self.sense * self.score(features).patches


def sign_of(model: Inspector, images: list[np.ndarray]) -> Sign:
    (found,) = [sign for sign in diagnose(model, images).signs if sign.name == NAME]
    return found


@pytest.fixture
def discs(part: Any) -> list[np.ndarray]:
    return [part(seed=i) for i in range(6)]


@pytest.mark.parametrize(("sense", "finding"), [(1, "ok"), (0, "warn"), (-1, "warn")])
def test_it_shows_where_sentences_fit_spots_no_better_than_the_part(
    sense: int, finding: str, discs: list[np.ndarray]
) -> None:
    detector = Speaking(sense=sense, image_size=64, rotations=1)
    assert isinstance(detector, ComparesWithText)
    sign = sign_of(Inspector(encoder="pixels", detector=detector, device="cpu").fit(discs[:4]), discs)
    assert sign.finding == finding
    (measure,) = sign.measures
    assert measure.value is not None
    assert {1: measure.value > 0.9, 0: measure.value == 0.5, -1: measure.value < 0.1}[sense]
    (gap,) = sign.facts.values()
    assert isinstance(gap, float)
    assert np.sign(gap) == sense
    assert any("zero-shot-prompts" in line for line in sign.advice)


def test_detectors_without_sentences_are_not_measured(discs: list[np.ndarray]) -> None:
    plain = Inspector(encoder="pixels", detector="patchcore", image_size=64, rotations=1, device="cpu").fit(discs[:4])
    for images in (discs, []):
        sign = sign_of(plain, images)
        assert sign.finding == "not measured"
        assert sign.measures[0].why == "the detector compares no sentences with patches"
    speaking = Inspector(encoder="pixels", detector=Speaking(image_size=64, rotations=1), device="cpu").fit(discs[:4])
    assert sign_of(speaking, []).measures[0].why == "no good picture of a known part"


@pytest.mark.parametrize("detector", ["promptad", "winclip"])
def test_detectors_of_sentences_are_measured(detector: str, discs: list[np.ndarray], tmp_path: Path) -> None:
    folder = write_model(tmp_path / "clip")
    quick = {"epochs": 2} if detector == "promptad" else {}
    model = Inspector(encoder=folder, detector=detector, image_size=40, device="cpu", **quick).fit(discs[:2], "disc")
    (measure,) = sign_of(model, discs[:3]).measures
    assert measure.value is not None
    assert 0 <= measure.value <= 1


@pytest.mark.parametrize("is_crop", [False, True])
def test_a_mask_is_looked_up_where_a_frame_shows_it(is_crop: bool) -> None:
    """A frame of 20 × 30 pixels of an image of 40 × 60, whole, or its lower right quarter."""
    mask = np.zeros((40, 60), bool)
    mask[20:30, 30:45] = True
    to_image = np.array([[1.0, 0, 30], [0, 1, 20]]) if is_crop else None
    found = covered_share(mask, Frame(np.zeros((20, 30, 3), np.uint8), (40, 60), to_image), (4, 4))
    expected = np.zeros((4, 4))
    if is_crop:
        expected[:2, :2] = 1
    else:
        expected[2, 2] = 1
    assert np.array_equal(found, expected)
