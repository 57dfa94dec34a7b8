"""An encoder that keeps on disk what it has encoded: for learning again, or many methods, from the same images."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from blemish.encoders.base import Encoder
from blemish.encoders.precision import precision_of
from blemish.types import EncoderInput, Features, ImageOrScan

MOST_BYTES = 8 << 30  # on disk, and a quarter of its free room at most; what comes later is encoded again


class RememberingEncoder:
    """`encoder`, whose features of every single image are kept in `folder`: until `forget`, or for later runs.

    Exact where an image's features do not depend on its batch, as on CPUs. With `half` they are rounded to float16,
    also for the run that encoded them, so that every run sees the same numbers. `hits` counts the images that were read
    back and had been kept before the last `mark`; inside `paused()` nothing is read or kept, to measure times.

    At most `most_bytes` are kept. What earlier runs left in the folder, and this one has not looked at, makes room, the
    oldest first; what then finds no room is encoded again.
    """

    def __init__(self, encoder: Encoder, folder: Path, most_bytes: int = MOST_BYTES, half: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.encoder, self.folder, self.half = encoder, folder, half
        # The facts of an encoder are copied: they must be found as attributes, whatever looks for them.
        self.name, self.modalities, self.layers = encoder.name, encoder.modalities, encoder.layers
        self.stride, self.multiple, self.dims = encoder.stride, encoder.multiple, encoder.dims
        self.licence, self.weights = encoder.licence, encoder.weights
        self.device = getattr(encoder, "device", "cpu")
        self.precision = precision_of(encoder)
        self.hits, self._before = 0, frozenset[str]()
        self._paused = False
        self._sizes: dict[str, int] = {}  # by image: bytes of what this run has written or read
        self._left = sizes_of(folder)  # the same of what earlier runs left, the oldest first
        self._bytes = sum(self._left.values())
        self.most_bytes = min(most_bytes, (shutil.disk_usage(folder).free + self._bytes) // 4)
        self.mark()

    def encode(self, images: EncoderInput) -> Features:
        """As the encoder's own `encode`; images and scans seen before are read back."""
        if self._paused:
            return self.encoder.encode(images)
        return joined([self._encode_one(images[i : i + 1]) for i in range(len(images))])

    def mark(self) -> None:
        """Count hits from here on, of what is kept now."""
        self.hits, self._before = 0, frozenset((*self._sizes, *self._left))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Encode as `encoder` itself does until the block ends."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def forget(self) -> None:
        """Delete all that was kept."""
        for key in (*self._sizes, *self._left):
            self._file(key).unlink(missing_ok=True)
        self._sizes.clear()
        self._left.clear()
        self._bytes = 0

    def _encode_one(self, image: EncoderInput) -> Features:
        """The features of a batch of one."""
        key = key_of(image[0])
        if (found := self._read(key)) is not None:
            self.hits += key in self._before
            return found
        features = self.encoder.encode(image)
        kept = in_half(features) if self.half else features
        size = sum(t.nbytes for tensors in kept.layers.values() for t in tensors)
        if self._make_room(size):
            write_features(self._file(key), kept)
            self._sizes[key] = size
            self._bytes += size
        return in_full(kept)

    def _read(self, key: str) -> Features | None:
        """Features; None for what is not there, or cannot be read (and is deleted)."""
        from safetensors import SafetensorError

        if key not in self._sizes and key not in self._left:
            return None
        file = self._file(key)
        try:
            features = in_full(read_features(file))
        except (OSError, SafetensorError, ValueError):  # another run made room, or was killed
            file.unlink(missing_ok=True)
            self._bytes -= self._sizes.pop(key, 0) + self._left.pop(key, 0)
            return None
        if key in self._left:
            self._sizes[key] = self._left.pop(key)
            file.touch()
        return features

    def _make_room(self, size: int) -> bool:
        """Whether `size` more bytes may be kept, once what is not looked at has gone."""
        while self._bytes + size > self.most_bytes and self._left:
            key = next(iter(self._left))
            self._file(key).unlink(missing_ok=True)
            self._bytes -= self._left.pop(key)
        return self._bytes + size <= self.most_bytes

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


def lasting(encoder: Encoder, folder: Path, most_bytes: int = MOST_BYTES) -> RememberingEncoder:
    """`encoder` with a memory in `folder` that later runs share, in float16; each encoder has its own part of it."""
    facts = (encoder.name, encoder.weights, encoder.layers, encoder.stride, encoder.multiple, encoder.dims)
    precision = str(getattr(encoder, "precision", ""))
    part = hashlib.sha256(repr((*facts, precision)).encode()).hexdigest()[:16]
    return RememberingEncoder(encoder, folder.expanduser() / part, most_bytes, half=True)


def key_of(image: ImageOrScan) -> str:
    """A hash of an image or scan: its kind, its size, and every value in it."""
    kind = image.dtype if isinstance(image, np.ndarray) else "scan"
    return hashlib.sha256(f"{(1, *image.shape)} {kind}".encode() + image.tobytes()).hexdigest()


def sizes_of(folder: Path) -> dict[str, int]:
    """What is kept in a folder by its key, in bytes, the oldest first."""
    found = []
    for file in folder.glob("*.safetensors"):
        with suppress(OSError):  # another run made room
            facts = file.stat()
            found.append((facts.st_mtime, file.stem, facts.st_size))
    return {key: size for _, key, size in sorted(found)}


def in_half(features: Features) -> Features:
    """Features rounded to float16, what is beyond its range cut off."""
    most = torch.finfo(torch.float16).max
    layers = {
        m: tuple(t.clamp(-most, most).to(torch.float16) for t in tensors) for m, tensors in features.layers.items()
    }
    return replace(features, layers=layers)


def in_full(features: Features) -> Features:
    """The same with float32 layers."""
    return replace(features, layers={m: tuple(t.float() for t in layers) for m, layers in features.layers.items()})


def write_features(file: Path, features: Features) -> None:
    """Features without categories, as tensors by name; whole or not at all."""
    from safetensors.torch import save_file

    tensors = {f"layer/{m}/{i}": t for m, layers in features.layers.items() for i, t in enumerate(layers)}
    tensors |= {f"valid/{m}": t for m, t in features.valid.items()}
    if features.vector is not None:
        tensors["vector"] = features.vector
    partial = file.with_suffix(f".{os.getpid()}.partial")
    save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, partial)
    os.replace(partial, file)


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
    """Features of single images as those of one batch."""
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
