"""An encoder's layers as patches on one grid: each averaged over its neighbourhood, resized, then concatenated.

And what detectors that collect patches ask of a batch: which are judged, and of which image they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from blemish.numeric.grids import box_mean, on_coarsest
from blemish.numeric.pooling import image_scores
from blemish.types import Batch, Features, resize_to_finest

Grid = Literal["finest", "coarsest"]


def concatenate_layers(
    layers: Sequence[Tensor], neighbourhood_size: int = 1, grid: Grid = "finest", unit: bool = False
) -> Tensor:
    """Layers, each `(B, h, w, D)` on its own grid → `(B, h, w, ΣD)` on one of their grids.

    Each is averaged over squares of `neighbourhood_size` patches' side (odd), and, where `unit`, made unit length. On
    the "finest" grid coarser layers are interpolated, on the "coarsest" finer ones averaged down.
    """
    ready = [_averaged(layer.float(), neighbourhood_size) for layer in layers]  # each (B, h, w, D)
    ready = [normalize(layer, dim=-1) for layer in ready] if unit else ready
    ready = list(on_coarsest(ready)) if grid == "coarsest" else resize_to_finest(ready)
    return ready[0] if len(ready) == 1 else torch.cat(ready, dim=-1)  # (B, h, w, ΣD)


def judged_patches(patches: Tensor, features: Features) -> list[Tensor]:
    """Each image's patches, of `(B, h, w, D)`, in rows `(N, D)`, without those that `features` say are ignored."""
    ignored = features.ignored_on(patches.shape[1:3])  # (B, h, w)
    if ignored is None:
        return list(patches.flatten(1, 2))
    return [own[~gone] for own, gone in zip(patches, ignored.to(patches.device), strict=True)]


def numbered(batches: Iterable[Batch]) -> Iterator[tuple[Batch, tuple[int, ...], tuple[bool, ...]]]:
    """Each batch, its `images` and `originals`; where these are not given, each row shows another image as it is."""
    count = 0
    for batch in batches:
        size = len(batch.features)
        yield batch, batch.images or tuple(range(count, count + size)), batch.originals or (True,) * size
        count += size


def pooled_scores(patches: Tensor, features: Features, pooling: str) -> list[float]:
    """Image scores, B of them, from patch scores `(B, h, w)` of the images of `features`, without what is ignored."""
    ignored = features.ignored_on(patches.shape[1:])  # (B, h, w)
    return image_scores(patches.cpu().numpy(), pooling, None if ignored is None else ignored.cpu().numpy())


def _averaged(layer: Tensor, side: int) -> Tensor:
    """`layer` `(B, h, w, D)`, each patch the mean of the square of `side` patches around it that lie on the grid."""
    if side == 1:
        return layer
    return box_mean(layer.permute(0, 3, 1, 2), side).permute(0, 2, 3, 1)  # (B, h, w, D)
