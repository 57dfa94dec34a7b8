"""Anomaly score of patches without points: how surprising it is, by their image, that nothing was measured there.

A missing piece or a hole leaves patches without points, of which a crossmodal mapping says nothing. A small network
learns on whole normal scans the probability p(points measured | image features of the patch). It knows the part from
the background, and the glare and steep flanks where sensors lose points, of all categories at once. The score is its
surprisal, −ln(1 − p). Not part of the published text-guided detector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from blemish.numeric.perceptron import perceptron
from blemish.numeric.standardise import RARE, Standardise

# Chosen with the weight of this score on synthetic anomalies of further normal scans: docs/methods/text-guided.md.
WIDTH = 128
DROPOUT = 0.3  # of the image's channels, so that few normal scans do not make it too sure
NATS = 4.0  # surprisal that scores 1: points are missing where 98 in 100 such patches have them
# Suppresses small surprisals, and lets no great one drown all else: sensors lose points at glare and steep flanks that
# few scans show, and a network that never saw a place may be as sure of it as of any.
EXPONENT = 2.0


class PointPresence(nn.Module):
    """The probability p that a patch has points, from its image features `(N, D)`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.standard = Standardise(dim, RARE)
        self.logit = nn.Sequential(nn.Dropout(DROPOUT), perceptron(dim, WIDTH, 1))

    def loss(self, image: Tensor, valid: Tensor) -> Tensor:
        """Cross-entropy, in nats, of p against which patches have points, `valid` `(N,)` bool."""
        return binary_cross_entropy_with_logits(self._logits(image), valid.float())

    @torch.no_grad()
    def anomaly_score(self, image: Tensor) -> Tensor:
        """Ψ_missing of patches without points, `(N,)` ≥ 0: (−ln(1 − p) / NATS) ** EXPONENT."""
        return (softplus(self._logits(image)) / NATS).pow(EXPONENT)

    def _logits(self, image: Tensor) -> Tensor:
        logits: Tensor = self.logit(self.standard(image))  # (N, 1)
        return logits[:, 0].float()
