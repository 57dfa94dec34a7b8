"""An encoder whose features are cached on disk: for fitting again, or many methods, on the same images."""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from blemish.encoders.base import Encoder
from blemish.encoders.identity import feature_settings, identity
from blemish.encoders.precision import precision_of
from blemish.errors import OutputError
from blemish.types import EncoderInput, Features, ImageOrScan
from blemish.utils.atomic import atomic_file, remove
from blemish.utils.paths import expanded

MOST_BYTES = 8 << 30  # on disk, and a quarter of its free space at most (chosen by eye: some 10⁴ images of a ViT-S)


class CachingEncoder:
    """`encoder`, whose features of every single image are cached in `folder`: until `clear`, or for later runs.

    Exact where an image's features do not depend on its batch, as on CPUs. With `half` they are rounded to float16,
    also for the run that encoded them, so that every run gets the same numbers. `hits` counts the images that were read
    back and had been cached before the last `mark`; inside `paused()` nothing is read or written, to measure times.

    At most `most_bytes` are cached. Files of earlier runs that this one has not read are evicted, the oldest first;
    what then finds no room is encoded again. A cache that cannot be written (a full disk) gives one warning; from then
    on nothing more is cached, and encoding goes on.
    """

    def __init__(self, encoder: Encoder, folder: Path, most_bytes: int = MOST_BYTES, half: bool = False) -> None:
        self.encoder, self.folder, self.half = encoder, folder, half
        # Copied, so that isinstance(…, Encoder) finds them.
        self.name, self.modalities, self.layers = encoder.name, encoder.modalities, encoder.layers
        self.stride, self.size_multiple, self.dims = encoder.stride, encoder.size_multiple, encoder.dims
        self.licence, self.weights_sha256 = encoder.licence, encoder.weights_sha256
        self.feature_settings = feature_settings(encoder)
        self.device = getattr(encoder, "device", "cpu")
        self.precision = precision_of(encoder)
        self.text, self.alignment = getattr(encoder, "text", None), getattr(encoder, "alignment", None)
        self.hits, self._before = 0, frozenset[str]()
        self._paused = False
        self._sizes: dict[str, int] = {}  # by image: bytes of what this run has written or read
        self._left = sizes_of(folder)  # the same of what earlier runs wrote, the oldest first
        self._bytes = sum(self._left.values())
        self.most_bytes = min(most_bytes, (self._free_bytes() + self._bytes) // 4)
        self.mark()

    def encode(self, images: EncoderInput) -> Features:
        """As the encoder's own `encode`; cached images and scans are read back."""
        if self._paused:
            return self.encoder.encode(images)
        return Features.cat([self._encode_one(images[i : i + 1]) for i in range(len(images))])

    def mark(self) -> None:
        """Count hits from here on, of what is cached now."""
        self.hits, self._before = 0, frozenset((*self._sizes, *self._left))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Encode as `encoder` itself does until the block ends."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def clear(self) -> None:
        """Delete all that is cached."""
        for key in (*self._sizes, *self._left):
            remove(self._file(key))
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
            self._write(key, kept, size)
        return on_device(kept, self.device).to(torch.float32)

    def _write(self, key: str, features: Features, size: int) -> None:
        """Cache the features of an image; where that fails, warn and cache no more."""
        try:
            write_features(self._file(key), features)
        except OutputError as error:
            self.most_bytes = 0
            warnings.warn(f"Features are no longer cached: {error}", stacklevel=2)
        else:
            self._sizes[key] = size
            self._bytes += size

    def _read(self, key: str) -> Features | None:
        """Cached features; None where there are none, or they cannot be read (and are deleted)."""
        from safetensors import SafetensorError

        if key not in self._sizes and key not in self._left:
            return None
        file = self._file(key)
        try:
            features = on_device(read_features(file), self.device).to(torch.float32)
        except (OSError, SafetensorError, ValueError):  # another run has evicted it, or the file is damaged
            remove(file)
            self._bytes -= self._sizes.pop(key, 0) + self._left.pop(key, 0)
            return None
        if key in self._left:
            self._sizes[key] = self._left.pop(key)
            with suppress(OSError):  # a cache that others own may be read alone
                file.touch()
        return features

    def _make_room(self, size: int) -> bool:
        """Whether `size` more bytes may be cached, after files that this run has not read are evicted."""
        while size <= self.most_bytes and self._bytes + size > self.most_bytes and self._left:
            key = next(iter(self._left))
            remove(self._file(key))
            self._bytes -= self._left.pop(key)
        return self._bytes + size <= self.most_bytes

    def _free_bytes(self) -> int:
        """The free space of the disk that holds the folder, which need not exist yet."""
        for place in (self.folder, *self.folder.absolute().parents):
            with suppress(OSError):
                return shutil.disk_usage(place).free
        return 0

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


def with_disk_cache(encoder: Encoder, folder: Path, most_bytes: int = MOST_BYTES) -> CachingEncoder:
    """`encoder` with a float16 cache in `folder` that later runs share; each encoder has its own sub-folder."""
    facts = (encoder.name, identity(encoder), encoder.layers, encoder.stride, encoder.size_multiple, encoder.dims)
    precision = str(getattr(encoder, "precision", ""))
    aligned = [one for one in [getattr(encoder, "alignment", None)] if one]  # none: as ever, so that caches stay valid
    part = hashlib.sha256(repr((*facts, precision, *aligned)).encode()).hexdigest()[:16]
    return CachingEncoder(encoder, expanded(folder) / part, most_bytes, half=True)


def key_of(image: ImageOrScan) -> str:
    """A hash of an image or scan: its kind, its size, and every value in it."""
    kind = image.dtype if isinstance(image, np.ndarray) else "scan"
    return hashlib.sha256(f"{(1, *image.shape)} {kind}".encode() + image.tobytes()).hexdigest()


def sizes_of(folder: Path) -> dict[str, int]:
    """The sizes of cached files in bytes, by key, the oldest first."""
    found = []
    for file in folder.glob("*.safetensors"):
        with suppress(OSError):  # another run has evicted it
            stat = file.stat()
            found.append((stat.st_mtime, file.stem, stat.st_size))
    return {key: size for _, key, size in sorted(found)}


def in_half(features: Features) -> Features:
    """Features rounded to float16, values beyond its range clamped."""
    most = torch.finfo(torch.float16).max
    layers = {
        m: tuple(t.clamp(-most, most).to(torch.float16) for t in tensors) for m, tensors in features.layers.items()
    }
    return replace(features, layers=layers)


def on_device(features: Features, device: str | torch.device) -> Features:
    """The same features, on another device."""
    layers = {m: tuple(t.to(device) for t in tensors) for m, tensors in features.layers.items()}
    return replace(features, layers=layers, valid={m: t.to(device) for m, t in features.valid.items()})


def write_features(file: Path, features: Features) -> None:
    """Write features without their categories, as tensors by name, whole or not at all. Raises OutputError."""
    from safetensors.torch import save_file

    tensors = {f"layer/{m}/{i}": t for m, layers in features.layers.items() for i, t in enumerate(layers)}
    tensors |= {f"valid/{m}": t for m, t in features.valid.items()}
    with atomic_file(file, durable=False) as partial:
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, partial)


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
        valid={name.removeprefix("valid/"): t for name, t in tensors.items() if name.startswith("valid/")},
    )
