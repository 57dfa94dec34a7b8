"""Patches in the space of sentences, without training: attention of the last blocks is replaced on their way there.

Ordinary attention moves what a patch shows to other patches; only the image as a whole was ever compared with text.

    value  x + W_o V, then the MLP                      Zhou et al., "Extract Free Dense Labels from CLIP" (MaskCLIP),
                                                        ECCV 2022 (arXiv 2112.01071)
    v-v    p ← p + W_o softmax(VVᵀ/√d) V beside the     Li et al., "A Closer Look at the Explainability of Contrastive
           last 6 blocks, no MLP on that path           Language-Image Pre-training" (CLIP Surgery), 2023 (2304.05653)
    q-q    W_o softmax(QQᵀ/√d) V alone                  Lan et al., "ClearCLIP", ECCV 2024 (arXiv 2407.12442)
    k-k    W_o softmax(KKᵀ/√d + nearness) V alone       Hajimiri et al., "Pay Attention to Your Neighbours" (NACLIP),
                                                        WACV 2025 (arXiv 2404.08181)
    v-v-all     the path of v-v beside all blocks   Li et al., "PromptAD", CVPR 2024 (arXiv 2404.05231)
    v-v-layers  the path of v-v from a quarter of the   Zhou et al., "AnomalyCLIP", ICLR 2024 (arXiv 2310.18961)
           depth on, taken after each quarter
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn

from blemish.encoders.base import Alignment
from blemish.encoders.image_text.blocks import Block
from blemish.encoders.image_text.image_towers import ImageTower
from blemish.encoders.layers import quarter_ends

PATH_BLOCKS = 6  # blocks beside which the path of v-v runs (CLIP Surgery: from the seventh of twelve on)
NEARNESS = 5.0  # standard deviation of the Gaussian of k-k, in patches (NACLIP)


class PatchFeatures(nn.Module):
    """Normalised images `(B, 3, H, W)` → layers of patches, patches in the space of sentences, the whole image.

    `layers` are the blocks whose patches `(B, h, w, D)` are taken, through the final norm. Aligned ones are
    `(B, h, w, E)`: four layers of v-v-layers, one of all others. The whole image is `(B, 1, 1, E)`. An `alignment` of
    None leaves out all but the patches. `aligned` layers are in the space of sentences.
    """

    def __init__(self, tower: ImageTower, layers: tuple[int, ...], alignment: Alignment | None) -> None:
        super().__init__()
        self.tower, self.layers, self.alignment = tower, layers, alignment
        depth = len(tower.blocks)
        quarters = quarter_ends(depth)
        starts = {"v-v": max(0, depth - PATH_BLOCKS), "v-v-all": 0, "v-v-layers": quarters[0], None: depth}
        self.start = starts.get(alignment, depth - 1)
        self.ends = {"v-v-layers": quarters, None: ()}.get(alignment, (depth - 1,))
        self.aligned = len(self.ends) + (alignment is not None)
        self.depth = depth if self.aligned else max(layers) + 1

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        grid = (images.shape[2] // self.tower.patch, images.shape[3] // self.tower.patch)
        tokens, patches, aligned = self.tower.enter(self.tower.embed(images)), [], []
        path = tokens
        for number, block in enumerate(self.tower.blocks[: self.depth]):
            if number >= self.start:
                before = tokens if number == self.start else path
                path = step_aside(self.alignment, block, before, tokens, grid, self.tower.prefix)
            tokens = block(tokens)  # (B, prefix + h·w, D)
            if number in self.layers:
                patches.append(self.tower.normed(tokens[:, self.tower.prefix :]).unflatten(1, grid))
            if number in self.ends:
                aligned.append(self.tower.project(path[:, self.tower.prefix :]).unflatten(1, grid))
        whole = (self.tower.pool(tokens)[:, None, None],) if self.aligned else ()
        return (*patches, *aligned, *whole)


def step_aside(
    alignment: Alignment | None,
    block: Block,
    path: torch.Tensor,
    tokens: torch.Tensor,
    grid: tuple[int, int],
    prefix: int,
) -> torch.Tensor:
    """One block on the way to the space of sentences; `tokens` `(B, T, D)` are those before the block."""
    match alignment:
        case "value":
            return block.feed(tokens + block.attend(tokens, "value"))
        case "q-q":
            return block.attend(tokens, "q-q")
        case "k-k":
            return block.attend(tokens, "k-k", nearness(grid, prefix).to(tokens.device))
        case _:
            return path + block.attend(tokens, "v-v")


@lru_cache(maxsize=8)
def nearness(grid: tuple[int, int], prefix: int = 0, sigma: float = NEARNESS) -> torch.Tensor:
    """What is added to the logits `(T, T)` of tokens on a `grid` (h, w): 1 for a patch itself, falling with distance.

    0 from and to the `prefix` tokens before the patches.
    """
    places = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).float()  # (h·w, 2)
    near = torch.exp(-torch.cdist(places, places).square() / (2 * sigma**2))  # (h·w, h·w)
    return torch.nn.functional.pad(near, (prefix, 0, prefix, 0))
