"""Strips encoded in tiles: the same grid, and the same patches as far as a network's view reaches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from blemish.encoders.image.frozen import FrozenEncoder
from blemish.encoders.image.tiling import LONG, is_long, tiles


class TwoLayers(nn.Module):
    """Strides 8 and 16; a patch sees no further than 16 pixels beyond itself."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 8, stride=8), nn.Conv2d(4, 6, 3, stride=2, padding=1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        fine = self.first(images)
        return tuple(layer.permute(0, 2, 3, 1) for layer in (fine, self.second(fine)))


def encoder() -> FrozenEncoder:
    facts = {"stride": 8, "size_multiple": 16, "dims": (4, 6), "licence": "", "weights_sha256": ""}
    return FrozenEncoder(TwoLayers(), name="two", layers=(0, 1), device="cpu", precision="fp32", **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(64, 1600), (1600, 64), (48, 3200), (16, 80)])
def test_tiles_give_what_the_whole_image_gives(shape: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), dtype=np.uint8)
    assert is_long(images)
    own = encoder()
    for layer, whole in zip(own.encode(images).layers["rgb"], own._encode_chunk(images), strict=True):
        torch.testing.assert_close(layer, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("width", "expected"), [(16 * LONG, False), (16 * LONG + 16, True)])
def test_only_strips_are_cut(width: int, expected: bool) -> None:
    assert is_long(np.zeros((1, 16, width, 3))) == expected
    assert is_long(np.zeros((1, width, 16, 3))) == expected


@pytest.mark.parametrize("length", [80, 1600, 1616, 3184])
@pytest.mark.parametrize("short", [16, 48, 256])
def test_tiles_follow_one_another_and_have_margins_where_there_are_pixels(length: int, short: int) -> None:
    found = list(tiles(length, short, 16))
    assert [start for start, *_ in found] == [0, *(end for _, end, *_ in found[:-1])]
    assert found[-1][1] == length
    for start, end, outer, outer_end in found:
        assert all(value % 16 == 0 for value in (start, end, outer, outer_end))
        assert outer < start or start == 0
        assert outer_end > end or end == length
        assert 0 <= outer <= start < end <= outer_end <= length
        assert outer_end - outer <= LONG * max(short, 16)
