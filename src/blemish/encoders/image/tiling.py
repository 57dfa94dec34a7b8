"""Long images in overlapping tiles along their long side, joined to one grid of patches.

Attention over a strip costs the square of its length, and networks have seen no such shapes. Each tile is encoded with
a margin on either side, whose patches are then dropped, so that no patch lies at a cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

Layers = tuple[torch.Tensor, ...]  # each (B, h, w, D)

LONG = 4  # times the short side: longer images are encoded in tiles
CORE, MARGIN = 2, 0.5  # a tile's length without its margins, and one margin, in short sides


def is_long(images: np.ndarray) -> bool:
    """Whether images `(B, H, W, 3)` are so long that they are encoded in tiles."""
    return max(images.shape[1:3]) > LONG * min(images.shape[1:3])


def tiles(length: int, short: int, multiple: int) -> Iterator[tuple[int, int, int, int]]:
    """(start, end, outer start, outer end) of the tiles along a side of `length` pixels, all multiples of `multiple`.

    `start` to `end` follow one another without gap; the outer span adds the margins, as far as there are pixels.
    """
    core, margin = (max(1, round(share * short / multiple)) * multiple for share in (CORE, MARGIN))
    for start in range(0, length, core):
        end = min(start + core, length)
        yield start, end, max(0, start - margin), min(length, end + margin)


def encode_in_tiles(images: np.ndarray, multiple: int, encode: Callable[[np.ndarray], Layers]) -> Layers:
    """The layers of long images `(B, H, W, 3)`, `encode`d tile by tile; the same grids as of the whole images.

    Height and width are multiples of `multiple`, which is one of every layer's stride.
    """
    side = 1 if images.shape[1] > images.shape[2] else 2  # the long one, of images and of layers alike
    parts = []
    for start, end, outer, outer_end in tiles(images.shape[side], min(images.shape[1:3]), multiple):
        found = encode(np.take(images, np.arange(outer, outer_end), axis=side))
        parts.append([kept(layer, side, start - outer, end - start, outer_end - outer) for layer in found])
    return tuple(torch.cat(same, dim=side) for same in zip(*parts, strict=True))


def kept(layer: torch.Tensor, side: int, skipped: int, length: int, pixels: int) -> torch.Tensor:
    """The `length` pixels of a tile's layer, of `pixels` along `side`, that follow the first `skipped`."""
    cells = layer.shape[side]
    return layer.narrow(side, round(skipped * cells / pixels), round(length * cells / pixels))
