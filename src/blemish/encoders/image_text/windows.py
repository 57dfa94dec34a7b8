"""Windows of an image as embeddings of their own, by dropping the tokens outside of them (WinCLIP).

Jeong et al., "WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation", CVPR 2023 (arXiv 2303.14814),
section 4.2: tokens with their positions are selected before the first norm, and those of a window, with CLS, go through
the whole transformer.
"""

from __future__ import annotations

import torch
from torch import nn

from blemish.encoders.image_text.image_towers import ImageTower
from blemish.errors import SettingsError

SIZES = (2, 3)  # patches a side of the paper's small and mid windows


class WindowFeatures(nn.Module):
    """Normalised images `(B, 3, H, W)` → layers of patches, windows of every size, and the whole image.

    `layers` are the blocks whose patches `(B, h, w, D)` are taken, through the final norm. Windows of k × k patches
    stand one beside another: `(B, h − k + 1, w − k + 1, E)`. The whole image is `(B, 1, 1, E)`.
    """

    def __init__(self, tower: ImageTower, layers: tuple[int, ...], sizes: tuple[int, ...] = SIZES) -> None:
        super().__init__()
        self.tower, self.layers, self.sizes = tower, layers, sizes
        self.aligned = len(sizes) + 1  # layers in the space of sentences

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        height, width = (side // self.tower.patch for side in images.shape[2:])
        if min(height, width) < max(self.sizes):
            raise SettingsError(
                f"a picture of at least {max(self.sizes)} × {max(self.sizes)} patches of {self.tower.patch} pixels",
                f"{height} × {width}",
                "raise the image size",
            )
        embedded = self.tower.embed(images)  # (B, prefix + h·w, D)
        patches, whole = patches_and_whole(self.tower, embedded, self.layers, (height, width))
        windows = [self.windows(embedded, (height, width), size) for size in self.sizes]
        return (*patches, *windows, whole)

    def windows(self, embedded: torch.Tensor, grid: tuple[int, int], size: int) -> torch.Tensor:
        """The embeddings `(B, h − size + 1, w − size + 1, E)` of all windows of one size, encoded in one batch."""
        tokens = window_tokens(embedded, grid, self.tower.prefix, size)  # (B, h', w', prefix + size², D)
        found = self.tower.encode(tokens.flatten(0, 2))  # (B·h'·w', E)
        return found.unflatten(0, tokens.shape[:3])


def window_tokens(embedded: torch.Tensor, grid: tuple[int, int], prefix: int, size: int) -> torch.Tensor:
    """The tokens of every window of `size` × `size` patches, those before the patches first.

    `embedded` `(B, prefix + h·w, D)` → `(B, h − size + 1, w − size + 1, prefix + size², D)`.
    """
    patches = embedded[:, prefix:].unflatten(1, grid)  # (B, h, w, D)
    windows = patches.unfold(1, size, 1).unfold(2, size, 1)  # (B, h', w', D, size, size)
    inside = windows.flatten(4).transpose(3, 4)  # (B, h', w', size², D)
    before = embedded[:, None, None, :prefix].expand(-1, *inside.shape[1:3], -1, -1)  # (B, h', w', prefix, D)
    return torch.cat([before, inside], dim=3)


def patches_and_whole(
    tower: ImageTower, embedded: torch.Tensor, layers: tuple[int, ...], grid: tuple[int, int]
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Patches `(B, h, w, D)` after each of `layers`, through the final norm, and the whole image `(B, 1, 1, E)`.

    `embedded` are all tokens of images, `(B, prefix + h·w, D)`.
    """
    tokens, found = tower.enter(embedded), []
    for number, block in enumerate(tower.blocks):
        tokens = block(tokens)
        if number in layers:
            found.append(tower.normed(tokens[:, tower.prefix :]).unflatten(1, grid))
    return found, tower.pool(tokens)[:, None, None]
