"""An encoder that keeps on disk what it has encoded: for measuring many methods on the same pictures."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from blemish.encoders.base import Encoder
from blemish.types import Features

MOST_BYTES = 8 << 30  # on disk, and a quarter of its free room at most; what comes later is encoded again


class RememberingEncoder:
    """`encoder`, whose features of every single picture are kept in `folder` until `forget`.

    Exact where a picture's features do not depend on its batch, as on CPUs. `saved_seconds` adds up what would have
    been spent without the memory, so that a measured time can be told as that of a run on its own.
    """

    def __init__(self, encoder: Encoder, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.encoder, self.folder = encoder, folder
        self.most_bytes = min(most_bytes, shutil.disk_usage(folder).free // 4)
        # The facts of an encoder are copied: they must be found as attributes, whatever looks for them.
        self.name, self.modalities, self.layers = encoder.name, encoder.modalities, encoder.layers
        self.stride, self.multiple, self.dims = encoder.stride, encoder.multiple, encoder.dims
        self.licence, self.weights = encoder.licence, encoder.weights
        self.device = getattr(encoder, "device", "cpu")
        self.saved_seconds = 0.0
        self._seconds: dict[str, float] = {}  # by picture: what encoding it took
        self._bytes = 0

    def encode(self, pictures: np.ndarray) -> Features:
        """As the encoder's own `encode`; pictures `(B, H, W, 3)` seen before are read back."""
        return joined([self._encode_one(pictures[i : i + 1]) for i in range(len(pictures))])

    def forget(self) -> None:
        """Delete all that was kept."""
        for key in self._seconds:
            self._file(key).unlink(missing_ok=True)
        self._seconds.clear()
        self._bytes = 0

    def _encode_one(self, picture: np.ndarray) -> Features:
        key = hashlib.sha256(repr(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()).hexdigest()
        started = time.perf_counter()
        if key in self._seconds:
            features = read_features(self._file(key))
            self.saved_seconds += self._seconds[key] - (time.perf_counter() - started)
            return features
        features = self.encoder.encode(picture)
        ended = time.perf_counter()
        size = sum(t.nbytes for tensors in features.layers.values() for t in tensors)
        if self._bytes + size <= self.most_bytes:
            write_features(self._file(key), features)
            self._seconds[key] = ended - started
            self._bytes += size
            self.saved_seconds -= time.perf_counter() - ended  # writing is no part of the method either
        return features

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


def write_features(file: Path, features: Features) -> None:
    """Features without categories, as tensors by name."""
    from safetensors.torch import save_file

    tensors = {f"layer/{m}/{i}": t for m, layers in features.layers.items() for i, t in enumerate(layers)}
    tensors |= {f"valid/{m}": t for m, t in features.valid.items()}
    if features.vector is not None:
        tensors["vector"] = features.vector
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)


def read_features(file: Path) -> Features:
    """What `write_features` wrote."""
    from safetensors.torch import load_file

    tensors = load_file(file)
    modalities: dict[str, list[tuple[int, torch.Tensor]]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "layer":
            modality, _, index = rest.rpartition("/")
            modalities.setdefault(modality, []).append((int(index), tensor))
    return Features(
        layers={m: tuple(t for _, t in sorted(found, key=lambda f: f[0])) for m, found in modalities.items()},
        vector=tensors.get("vector"),
        valid={name.removeprefix("valid/"): t for name, t in tensors.items() if name.startswith("valid/")},
    )


def joined(parts: Sequence[Features]) -> Features:
    """Features of single pictures as those of one batch."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return Features(
        layers={
            m: tuple(torch.cat(same) for same in zip(*(part.layers[m] for part in parts), strict=True))
            for m in first.layers
        },
        vector=None if first.vector is None else torch.cat([part.vector for part in parts if part.vector is not None]),
        valid={m: torch.cat([part.valid[m] for part in parts]) for m in first.valid},
    )
