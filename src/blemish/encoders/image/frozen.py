"""A frozen network behind the promise of every encoder: normalise, split big batches, no gradient, float32 out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from blemish.encoders.image.tiling import encode_in_tiles, is_long
from blemish.encoders.precision import Precision, prepare, resolve_device, resolve_precision
from blemish.errors import SettingsError
from blemish.types import RGB, Features

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

NetworkOutput = tuple[torch.Tensor, ...]  # a network's layers, each (B, h, w, D), for normalised images (B, 3, H, W)


class FrozenEncoder:
    """An `Encoder` made of a network and the facts about it.

    `network` maps normalised images `(B, 3, H, W)` to a tuple of layers, each `(B, h, w, D)`. `mean` and `std`
    normalise RGB in [0, 1]. `config_sha256` is the hash of the config file that the network was built by, if any.
    Images over four times as long as wide are encoded in tiles (tiling.py). On a CPU images go through one at a time:
    it costs no speed there, keeps memory flat, and makes an image's features bit-identical whatever else is in its
    batch.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        layers: Sequence[int],
        stride: int,
        size_multiple: int,
        dims: Sequence[int],
        licence: str,
        weights_sha256: str,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        device: str = "cpu",
        precision: Precision = "auto",
        chunk: int | None = None,
        config_sha256: str = "",
    ) -> None:
        self.name, self.licence, self.weights_sha256 = name, licence, weights_sha256
        self.revision = ""  # the commit that weights from a hub are of
        self.modalities: tuple[str, ...] = (RGB,)
        self.layers, self.dims = tuple(layers), tuple(dims)
        self.stride, self.size_multiple = stride, size_multiple
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        self.mean, self.std = tuple(mean), tuple(std)
        self.config_sha256 = config_sha256
        self.chunk = chunk or (1 if self.device.type == "cpu" else 16)
        self.network = prepare(network, self.device, self.precision)
        self._scale = (1 / (255 * torch.tensor(self.std))).to(self.device)[:, None, None]  # (3, 1, 1)
        self._shift = (-torch.tensor(self.mean) / torch.tensor(self.std)).to(self.device)[:, None, None]  # (3, 1, 1)

    def __repr__(self) -> str:
        return (
            f"<encoder {self.name}, layers {list(self.layers)}, stride {self.stride}, {self.precision}, {self.device}>"
        )

    @property
    def feature_settings(self) -> dict[str, Any]:
        """What beside the weights decides its features (see encoders/identity.py)."""
        config = {"config": self.config_sha256} if self.config_sha256 else {}
        return {"mean": self.mean, "std": self.std, **config}

    def encode(self, images: np.ndarray) -> Features:
        """`images` `(B, H, W, 3)` uint8 RGB → Features with float32 layers `(B, h, w, D)`; no gradient.

        Raises `SettingsError` for another shape or type, or sides that are no multiples of `size_multiple`.
        """
        self._check(images)
        starts = range(0, len(images), self.chunk)
        parts = [self._encode_sized(images[start : start + self.chunk]) for start in starts]
        # Joined outside of inference mode, so that detectors may use the features in a graph of their own.
        layers = tuple(torch.cat(same) for same in zip(*parts, strict=True))  # each (B, h, w, D)
        return Features(layers={RGB: layers})

    def normalise(self, images: np.ndarray) -> torch.Tensor:
        """`(B, H, W, 3)` uint8 → `(B, 3, H, W)` float32 on the encoder's device."""
        pixels = torch.from_numpy(images.astype(np.float32)).to(self.device)  # (B, H, W, 3), in [0, 255]
        return pixels.permute(0, 3, 1, 2) * self._scale + self._shift  # (B, 3, H, W)

    @property
    def scale_and_shift(self) -> tuple[torch.Tensor, torch.Tensor]:
        """By which levels 0 to 255 are multiplied and what is added, `(3, 1, 1)` each, as `normalise` does."""
        return self._scale, self._shift

    def _encode_sized(self, images: np.ndarray) -> NetworkOutput:
        """Layers of images of any length."""
        if is_long(images):
            return encode_in_tiles(images, self.size_multiple, self._encode_chunk)
        return self._encode_chunk(images)

    def _encode_chunk(self, images: np.ndarray) -> NetworkOutput:
        bf16 = self.precision == "bf16"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            layers = self.network(self.normalise(images))
        return tuple(layer.float() for layer in layers)  # each (B, h, w, D)

    def _check(self, images: np.ndarray) -> None:
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or len(images) == 0:
            raise SettingsError(
                "pictures as a (B, H, W, 3) uint8 array with B ≥ 1",
                f"shape {tuple(images.shape)} of {images.dtype}",
                "stack RGB pictures of one size",
            )
        height, width = images.shape[1:3]
        if height % self.size_multiple or width % self.size_multiple or not height or not width:
            raise SettingsError(
                f"picture sides that are multiples of {self.size_multiple} for the encoder {self.name!r}",
                f"{height}×{width} pixels",
                "resize the pictures first",
            )
