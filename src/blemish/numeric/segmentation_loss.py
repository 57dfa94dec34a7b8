"""Losses of maps against masks: focal (Lin et al., ICCV 2017) and Dice (Milletari et al., 3DV 2016)."""

from __future__ import annotations

from torch import Tensor

GAMMA = 2.0  # of the focal loss, as in its paper
_SMOOTH = 1.0  # added to numerator and denominator of Dice: a mask without a pixel has a finite loss
_LEAST = 1e-6  # of a probability under the logarithm


def focal_loss(probabilities: Tensor, masks: Tensor) -> Tensor:
    """The mean of −(1 − p)^γ log p over all pixels, p the probability of what the mask says; a scalar.

    `probabilities` of a defect and `masks` (1 there, 0 elsewhere) have the same shape.
    """
    right = probabilities * masks + (1 - probabilities) * (1 - masks)
    return (-((1 - right) ** GAMMA) * right.clamp_min(_LEAST).log()).mean()


def dice_loss(probabilities: Tensor, masks: Tensor) -> Tensor:
    """1 − (2 Σ p m + 1) / (Σ p + Σ m + 1), the mean over images `(B, …)`; a scalar."""
    p, m = probabilities.flatten(1), masks.flatten(1)
    overlap = (2 * (p * m).sum(1) + _SMOOTH) / (p.sum(1) + m.sum(1) + _SMOOTH)
    return (1 - overlap).mean()
