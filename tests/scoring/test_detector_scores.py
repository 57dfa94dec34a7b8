"""A detector's scores as numpy: what cannot be judged is refused."""

from __future__ import annotations

import pytest
import torch

from blemish.detectors.base import Needs
from blemish.errors import WeightsError
from blemish.scoring.detector_scores import detector_scores
from blemish.types import RGB, Features, PatchScores


class Says:
    """Gives the same scores of whatever it sees."""

    needs = Needs()

    def __init__(self, patch: float, image: float) -> None:
        self.scores = PatchScores(torch.full((1, 2, 2), patch), images=torch.tensor([image]))

    def score(self, features: Features) -> PatchScores:
        return self.scores


@pytest.mark.parametrize(("patch", "image"), [(float("nan"), 1.0), (1.0, float("nan")), (1.0, float("inf"))])
def test_scores_that_are_not_finite_are_refused(patch: float, image: float) -> None:
    """A score of NaN is above no threshold: the part would pass as good."""
    features = Features({RGB: (torch.zeros(1, 2, 2, 3),)})
    with pytest.raises(WeightsError, match="finite"):
        detector_scores(Says(patch, image), features)
    assert detector_scores(Says(1.0, 2.0), features)[0].tolist() == [2.0]
