"""A channel that is 0 on all good images, as may be behind a ReLU, and next to nothing on another one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from blemish.detectors.base import Detector
from blemish.types import Batch, Features


def scores_with_and_without(
    detector: Detector, good: Sequence[torch.Tensor], features: Callable[[list[torch.Tensor]], Features]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Patch scores `(1, h, w)` of a good image, and of the same with a hundredth of the features' own spread in one
    patch of the channel.

    The `detector` is fitted on the `good` images, layers `(B, h, w, D)`, whose first layer has 0 in its first channel;
    `features` makes them features.
    """
    dead = [layer.clone() for layer in good]
    dead[0][..., 0] = 0
    detector.fit([Batch(features(dead))])
    plain = [layer[:1] for layer in dead]
    shown = [layer.clone() for layer in plain]
    shown[0][:, 2, 3, 0] = 0.01 * float(dead[0].std())
    return detector.score(features(shown)).patches, detector.score(features(plain)).patches
