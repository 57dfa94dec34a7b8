"""An encoder of images beside one of measured points, for scans: the features of both lie on one grid.

The pairing of 2D features with those of the points of the same patch follows BTF (Horwitz, Hoshen: Back to the feature:
classical 3D features are (almost) all you need for 3D anomaly detection, CVPRW 2023).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from blemish.encoders.base import Encoder, PointsEncoder
from blemish.encoders.identity import joined_settings
from blemish.encoders.precision import precision_of
from blemish.errors import SettingsError
from blemish.types import POINTS, RGB, Features, Scan

FINEST = 4  # points a side that a cell of the image grid covers, at least; finer would enlarge the image manyfold


class ScanEncoder:
    """An `Encoder` of scans: the image encoder's layers under `RGB`, the points encoder's under `POINTS`.

    The image is resized so that its finest grid has one cell for every `stride` × `stride` points, as that of the
    points has, but for no fewer than `FINEST` a side: finer cells would need an image many times larger than it was
    taken, and show no more. `valid[POINTS]` is True where anything was measured, nowhere for a scan without points;
    for a scan without image `valid[RGB]` is False and its layers are 0.
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
        self.size_multiple = math.lcm(self.stride, self.cell * (image_encoder.size_multiple // image_encoder.stride))
        self.licence = "; ".join(dict.fromkeys((image_encoder.licence, points_encoder.licence)))
        weights = f"{image_encoder.weights_sha256}+{points_encoder.weights_sha256}"
        self.weights_sha256 = hashlib.sha256(weights.encode()).hexdigest()
        self.feature_settings = joined_settings(image=image_encoder, points=points_encoder)
        self.device = getattr(image_encoder, "device", "cpu")
        self.precision = precision_of(image_encoder), precision_of(points_encoder)
        self._blank: tuple[tuple[int, ...], Features] | None = None

    def encode(self, scans: Sequence[Scan]) -> Features:
        """B scans of one shape `(H, W)` → float32 layers `(B, h, w, D)` of both modalities; no gradient.

        Raises SettingsError for another type, several shapes, or sides that are no multiples of `size_multiple`.
        """
        self._check(scans)
        nothing = np.full((*scans[0].shape, 3), np.nan, dtype=np.float32)
        surface = self.points.encode_points(np.stack([nothing if s.xyz is None else s.xyz for s in scans]))
        seen = np.array([scan.rgb is not None for scan in scans])  # (B,)
        height, width = scans[0].shape[0] // self.cell, scans[0].shape[1] // self.cell
        size = height * self.images.stride, width * self.images.stride
        layers = self._images(resized([scan.rgb for scan in scans if scan.rgb is not None], size), seen)
        place = layers[0].device  # points may be described on the CPU
        valid = {
            RGB: torch.from_numpy(seen)[:, None, None].expand(-1, height, width).contiguous().to(place),
            POINTS: surface.valid[POINTS].to(place),
        }
        points = tuple(layer.to(place) for layer in surface.layers[POINTS])
        return Features({RGB: layers, POINTS: points}, valid)

    def _images(self, images: np.ndarray, seen: np.ndarray) -> tuple[torch.Tensor, ...]:
        """Layers `(B, h, w, D)` of all scans: from `images` `(b, h, w, 3)` uint8 where `seen` `(B,)`, else 0."""
        if seen.all():
            return self.images.encode(images).layers[RGB]
        features = self.images.encode(images) if len(images) else self._black(images.shape[1:3])
        found = torch.from_numpy(seen)

        def scatter(rows: torch.Tensor) -> torch.Tensor:
            full = rows.new_zeros((len(seen), *rows.shape[1:]))
            full[found] = rows[: len(images)]
            return full

        return tuple(scatter(layer) for layer in features.layers[RGB])

    def _black(self, size: tuple[int, ...]) -> Features:
        """The features of a black image: what shape a missing one would have. The last is kept."""
        kept = self._blank  # read once: another thread may replace it
        if kept is None or kept[0] != size:
            kept = self._blank = size, self.images.encode(np.zeros((1, *size, 3), np.uint8))
        return kept[1]

    def _check(self, scans: Sequence[Scan]) -> None:
        if len(scans) == 0 or not all(isinstance(scan, Scan) for scan in scans):
            raise SettingsError("at least one Scan", _kind_of(scans), "give scans as load_scan gives them")
        if len(shapes := {scan.shape for scan in scans}) > 1:
            raise SettingsError("scans of one shape", f"{sorted(shapes)}", "encode those of each shape by themselves")
        height, width = scans[0].shape
        if height % self.size_multiple or width % self.size_multiple:
            raise SettingsError(
                f"scan sides that are multiples of {self.size_multiple} for the encoder {self.name!r}",
                f"{height}×{width} pixels",
                "resize the scans first",
            )


def _kind_of(scans: Any) -> str:
    if isinstance(scans, np.ndarray):
        return f"an array of shape {scans.shape}"
    return f"{type(scans[0]).__name__}s" if len(scans) else "none"


def resized(images: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """b images `(H, W, 3)`, levels in [0, 255], as `(b, h, w, 3)` uint8 of `size` (h, w): bilinear, antialiased.

    Computed in float32 and rounded once.
    """
    if not images:
        return np.zeros((0, *size, 3), np.uint8)
    planes = torch.from_numpy(np.stack(images).astype(np.float32)).permute(0, 3, 1, 2)  # (b, 3, H, W)
    if images[0].shape[:2] != size:
        planes = interpolate(planes, size, mode="bilinear", antialias=True)
    return planes.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
