"""Several encoders that look at one image: the first up close, the others further away but with a wider view.

A convolutional network sees fine texture and edges and little of what stands around them, a transformer relates every
patch to all others. Side by side they answer for each other's blind spots (see detectors/hybrid.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from blemish.encoders.base import Encoder
from blemish.errors import SettingsError
from blemish.types import CONTEXT, RGB, Features

FURTHER = 0.75  # of the first encoder's patches a side that the others look at: attention costs their square


class JointEncoder:
    """An `Encoder` of several: the first one's layers under `RGB`, the second one's under `CONTEXT`.

    Images have the size that the first one asks for; for the second they are shrunk so that it sees `further` times
    as many patches a side. `layers` holds those of each part.
    """

    def __init__(self, parts: Sequence[Encoder], further: float = FURTHER) -> None:
        if len(parts) != 2:
            raise SettingsError(
                "two encoders joined by +", f"{len(parts)}", "name two, such as efficientnet-lite2+dino-vits16"
            )
        self.parts, self.further = tuple(parts), further
        first, second = self.parts
        self.name = "+".join(part.name for part in parts)
        self.modalities: tuple[str, ...] = (RGB, CONTEXT)
        self.layers: tuple[Any, ...] = (first.layers, second.layers)
        self.dims = first.dims + second.dims
        self.stride, self.multiple = first.stride, first.multiple
        self.licence = "; ".join(dict.fromkeys(part.licence for part in parts))
        self.weights = hashlib.sha256("+".join(part.weights for part in parts).encode()).hexdigest()
        self.device = getattr(first, "device", "cpu")

    def encode(self, images: np.ndarray) -> Features:
        """`images` `(B, H, W, 3)` uint8 → the features of both, each on its own grid; the first one's vector."""
        first, second = self.parts
        near = first.encode(images)
        far = second.encode(shrunk(images, self.further * second.multiple / first.multiple, second.multiple))
        return Features({RGB: near.layers[RGB], CONTEXT: far.layers[RGB]}, near.vector)


def nearest_part(encoder: Encoder) -> Encoder:
    """The one of several joined encoders that looks up close, and sees images as they are; else the encoder itself.

    Enough where the features of `RGB` alone are wanted.
    """
    return encoder.parts[0] if isinstance(encoder, JointEncoder) else encoder


def shrunk(images: np.ndarray, factor: float, multiple: int) -> np.ndarray:
    """`(B, H, W, 3)` uint8 resized (bilinear, antialiased) by about `factor`, to sides that `multiple` divides."""
    height, width = (max(1, round(side * factor / multiple)) * multiple for side in images.shape[1:3])
    if (height, width) == images.shape[1:3]:
        return images
    planes = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
    small = interpolate(planes, (height, width), mode="bilinear", antialias=True)
    return small.permute(0, 2, 3, 1).contiguous().numpy()
