"""An encoder of images and one of measured points that look at the same scan, patch by patch on one grid."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from blemish.encoders.base import Encoder, PointsEncoder
from blemish.errors import SettingsError
from blemish.types import POINTS, RGB, Features

FINEST = 4  # points a side that a cell of the image stands for, at least


class ScanEncoder:
    """An `Encoder` of scans: the image encoder's layers under `RGB`, the points encoder's under `POINTS`.

    A scan is `(H, W, 6)` float32: R, G, B in 0…255, then x, y, z in metres. The image is resized so that its finest
    grid has one cell for every `stride` × `stride` points, as that of the points has, but for no fewer than `FINEST` a
    side: finer ones would take an image many times as large as it was taken, and show no more. `valid[POINTS]` says
    where anything was measured; where an image is missing (all NaN), `valid[RGB]` is False and its layers are 0.
    """

    def __init__(self, image_encoder: Encoder, points_encoder: PointsEncoder) -> None:
        self.images, self.points = image_encoder, points_encoder
        self.name = f"{image_encoder.name}+{points_encoder.name}"
        self.modalities: tuple[str, ...] = (RGB, POINTS)
        self.layers: tuple[Any, ...] = (image_encoder.layers, tuple(getattr(points_encoder, "layers", ())))
        self.dims = tuple(image_encoder.dims) + tuple(points_encoder.dims)
        self.stride = points_encoder.stride
        self.cell = max(FINEST, self.stride)
        # So many cells a side that the image, resized to them, has sides its own encoder accepts.
        self.multiple = math.lcm(self.stride, self.cell * (image_encoder.multiple // image_encoder.stride))
        self.licence = "; ".join(dict.fromkeys((image_encoder.licence, points_encoder.licence)))
        weights = f"{image_encoder.weights}+{points_encoder.weights}"
        self.weights = hashlib.sha256(weights.encode()).hexdigest()
        self.device = getattr(image_encoder, "device", "cpu")
        self._blank: tuple[tuple[int, ...], Features] | None = None

    def encode(self, scans: np.ndarray) -> Features:
        """`scans` `(B, H, W, 6)` float32 → float32 layers `(B, h, w, D)` of both; no gradient.

        Raises SettingsError for another shape or type, or sides that are no multiples of `multiple`.
        """
        self._check(scans)
        surface = self.points.encode_points(np.ascontiguousarray(scans[..., 3:]))
        seen = ~np.isnan(scans[..., :3]).all(axis=(1, 2, 3))  # (B,)
        height, width = scans.shape[1] // self.cell, scans.shape[2] // self.cell
        size = height * self.images.stride, width * self.images.stride
        layers, vector = self._images(resized(scans[seen, ..., :3], size), seen)
        place = layers[0].device  # points may be described on the CPU
        valid = {
            RGB: torch.from_numpy(seen)[:, None, None].expand(-1, height, width).contiguous().to(place),
            POINTS: surface.valid[POINTS].to(place),
        }
        points = tuple(layer.to(place) for layer in surface.layers[POINTS])
        return Features({RGB: layers, POINTS: points}, vector, valid)

    def _images(self, there: np.ndarray, seen: np.ndarray) -> tuple[tuple[torch.Tensor, ...], torch.Tensor | None]:
        """Layers and vector of all scans from the images that are `there` `(b, h, w, 3)` uint8; 0 for the others."""
        if seen.all():
            features = self.images.encode(there)
            return features.layers[RGB], features.vector
        features = self.images.encode(there) if len(there) else self._black(there.shape[1:3])
        found = torch.from_numpy(seen)

        def spread(rows: torch.Tensor) -> torch.Tensor:
            full = rows.new_zeros((len(seen), *rows.shape[1:]))
            full[found] = rows[: len(there)]
            return full

        layers = tuple(spread(layer) for layer in features.layers[RGB])
        return layers, None if features.vector is None else spread(features.vector)

    def _black(self, size: tuple[int, ...]) -> Features:
        """The features of a black image: what shape a missing one would have. The last is kept."""
        if self._blank is None or self._blank[0] != size:
            self._blank = size, self.images.encode(np.zeros((1, *size, 3), np.uint8))
        return self._blank[1]

    def _check(self, scans: np.ndarray) -> None:
        if scans.ndim != 4 or scans.shape[-1] != 6 or scans.dtype != np.float32 or len(scans) == 0:
            raise SettingsError(
                "scans as a (B, H, W, 6) float32 array with B ≥ 1",
                f"shape {tuple(scans.shape)} of {scans.dtype}",
                "stack scans of one size, as load_sample gives them",
            )
        height, width = scans.shape[1:3]
        if height % self.multiple or width % self.multiple or not height or not width:
            raise SettingsError(
                f"scan sides that are multiples of {self.multiple} for the encoder {self.name!r}",
                f"{height}×{width} pixels",
                "resize the scans first",
            )


def resized(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Images `(b, H, W, 3)` float32 in 0…255 as `(b, h, w, 3)` uint8 of `size` (h, w): bilinear, antialiased."""
    if not len(images):
        return np.zeros((0, *size, 3), np.uint8)
    planes = torch.from_numpy(np.nan_to_num(images)).permute(0, 3, 1, 2)
    if images.shape[1:3] != size:
        planes = interpolate(planes, size, mode="bilinear", antialias=True)
    return planes.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
