"""Masked auto-encoder: every patch is reconstructed from others only, so that no anomaly can be copied.

He, Chen, Xie, Li, Dollár, Girshick, "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022,
https://arxiv.org/abs/2111.06377. The network of vit_autoencoder.py without a bottleneck, trained with half of the
patches hidden; at inspection complementary masks hide every patch once.
"""

from __future__ import annotations

from dataclasses import dataclass

from blemish.detectors.settings import CountOrZero, FractionBelowOne
from blemish.detectors.vit_autoencoder import ViTAutoencoder


@dataclass(kw_only=True, eq=False, repr=False)
class ViTMAE(ViTAutoencoder):
    """`ViTAutoencoder` with masking in place of a bottleneck; see there what each setting means."""

    bottleneck: CountOrZero = 0
    masking: FractionBelowOne = 0.5
