"""Where there should be points: of a cell that lost them, its image alone can tell what is wrong.

A piece that is missing, or a hole, leaves cells without points; a mapping between image and points has nothing to say
of them. A small network learns from whole good scans how likely points are measured where the image looks as it does.
That knows the part from the ground, and glare and steep flanks where sensors lose points, of all categories at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from blemish.numeric.perceptron import perceptron
from blemish.numeric.standardise import RARE, Standardise

WIDTH = 128
DROPOUT = 0.3  # of the image's channels, so that few good scans do not make it too sure
UNIT = 4.0  # nats of surprise that count as 1: points are missing where 98 in 100 such cells have them
_POWER = 4.0  # a little surprise is none


class Presence(nn.Module):
    """The probability p that points are measured in a cell, from its image features `(N, D)`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.standard = Standardise(dim, RARE)
        self.logit = nn.Sequential(nn.Dropout(DROPOUT), perceptron(dim, WIDTH, 1))

    def loss(self, image: Tensor, measured: Tensor) -> Tensor:
        """Cross-entropy of p against whether points were `measured` `(N,)`, in nats."""
        return binary_cross_entropy_with_logits(self._logits(image), measured.float())

    @torch.no_grad()
    def strangeness(self, image: Tensor) -> Tensor:
        """Ψ_lost of cells without points, `(N,)`: the surprise −ln(1 − p), of which 4 nats make 1."""
        return (softplus(self._logits(image)) / UNIT).pow(_POWER)

    def _logits(self, image: Tensor) -> Tensor:
        logits: Tensor = self.logit(self.standard(image))
        return logits[:, 0].float()
