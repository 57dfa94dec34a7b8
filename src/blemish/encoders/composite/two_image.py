"""Two image encoders over one image: the second may see it at a lower resolution than the first.

A convolutional network has a small receptive field and sees fine texture and edges, a transformer relates every patch
to all others; each finds defects that the other misses (see detectors/hybrid.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from blemish.encoders.base import Encoder
from blemish.encoders.identity import joined_settings
from blemish.encoders.precision import precision_of
from blemish.errors import SettingsError
from blemish.types import CONTEXT, RGB, Features

# Patches a side of the second encoder over those of the first: 1 gives both one grid. Fewer are quicker (.75: about
# half the time of the transformer), and miss small defects on whole images (benchmarks/joining.py).
CONTEXT_SCALE = 1.0


class JointEncoder:
    """An `Encoder` of two: the first one's layers under `RGB`, the second one's under `CONTEXT`.

    Images have the size that the first one asks for; for the second they are downsampled so that it has
    `context_scale` times as many patches a side. `layers` holds those of each part.
    """

    def __init__(self, parts: Sequence[Encoder], context_scale: float = CONTEXT_SCALE) -> None:
        if len(parts) != 2:
            raise SettingsError(
                "two encoders joined by +", f"{len(parts)}", "name two, such as efficientnet-lite2+dino-vits16"
            )
        self.parts, self.context_scale = tuple(parts), context_scale
        first, second = self.parts
        self.name = "+".join(part.name for part in parts)
        self.modalities: tuple[str, ...] = (RGB, CONTEXT)
        self.layers: tuple[Any, ...] = (first.layers, second.layers)
        self.dims = first.dims + second.dims
        self.stride, self.size_multiple = first.stride, first.size_multiple
        self.licence = "; ".join(dict.fromkeys(part.licence for part in parts))
        self.weights_sha256 = hashlib.sha256("+".join(part.weights_sha256 for part in parts).encode()).hexdigest()
        self.feature_settings = joined_settings(first=first, second=second) | {"context_scale": context_scale}
        self.device = getattr(first, "device", "cpu")
        self.precision = tuple(precision_of(part) for part in self.parts)

    def encode(self, images: np.ndarray) -> Features:
        """`images` `(B, H, W, 3)` uint8 → layers `(B, h, w, D)` of both, each on its own grid."""
        first, second = self.parts
        fine = first.encode(images)
        context = second.encode(downsampled(images, self.context_size(*images.shape[1:3])))
        return Features({RGB: fine.layers[RGB], CONTEXT: context.layers[RGB]})

    def context_size(self, height: int, width: int) -> tuple[int, int]:
        """The size at which the second encoder sees images of `height` x `width`, in multiples of what it takes."""
        first, second = self.parts
        factor = self.context_scale * second.size_multiple / first.size_multiple
        return scaled_size(height, width, factor, second.size_multiple)


def rgb_encoder(encoder: Encoder) -> Encoder:
    """The first of two joined encoders, which sees images at full resolution; else the encoder itself.

    Enough where the features of `RGB` alone are needed.
    """
    return encoder.parts[0] if isinstance(encoder, JointEncoder) else encoder


def scaled_size(height: int, width: int, factor: float, multiple: int) -> tuple[int, int]:
    """`height` and `width` times about `factor`, as positive multiples of `multiple`."""
    down, across = (max(1, round(side * factor / multiple)) * multiple for side in (height, width))
    return down, across


def downsampled(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`(B, H, W, 3)` uint8 resized (bilinear, antialiased) to `size` (height, width)."""
    if size == images.shape[1:3]:
        return images
    planes = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
    small = interpolate(planes, size, mode="bilinear", antialias=True)
    return small.permute(0, 2, 3, 1).contiguous().numpy()
