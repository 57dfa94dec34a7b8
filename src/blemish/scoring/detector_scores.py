"""A detector's scores as numpy: the one way from features to an image score, while fitting and while inspecting."""

from __future__ import annotations

import numpy as np

from blemish.detectors.base import Scorer
from blemish.errors import WeightsError
from blemish.numeric.pooling import judged_scores
from blemish.types import Features


def detector_scores(detector: Scorer, features: Features) -> tuple[np.ndarray, np.ndarray]:
    """Image scores `(B,)` and patch scores `(B, h, w)`, both float32, ≥ 0, larger is more anomalous.

    Patch scores are pooled as the detector's needs say, unless it has image scores of its own. Ignored patches score 0
    and are not pooled. Raises WeightsError when scores are not finite.
    """
    scores = detector.score(features)
    patches = scores.patches.detach().float().cpu().numpy()  # (B, h, w)
    own = None if scores.images is None else scores.images.detach().float().cpu().numpy()  # (B,)
    if not np.isfinite(patches).all() or (own is not None and not np.isfinite(own).all()):
        raise WeightsError("finite scores", "NaN or infinite ones", "check the encoder's weights, and fit again")
    found = features.ignored_on(patches.shape[1:])
    return judged_scores(patches, detector.needs.pooling, None if found is None else found.cpu().numpy(), own)
