"""What an image is composed of: how much of each visual word it shows, in all and in its parts, compared by neighbours.

Bags of visual words (Csurka et al., ECCV workshops 2004) over a spatial pyramid (Lazebnik, Schmid & Ponce, CVPR 2006).
Part histograms find logical anomalies: ComAD (Liu et al., AEI 58, 2023, arXiv 2305.08509), PSAD (Kim et al., AAAI 2024,
arXiv 2312.13783), CSAD (Hsieh & Lai, BMVC 2024, arXiv 2408.15628). Here an image's composition is compared with the
nearest normal one, not with their mean: where normal images show two parts of one kind or two of another, their mean is
one of each, which is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from blemish.numeric.k_means import squared_distances
from blemish.numeric.shrinkage import shrunk_variance

# Cells (rows, columns) over which words are counted; the halves find what lies on the wrong side, wherever on it.
LEVELS: Mapping[str, tuple[int, int]] = {"whole": (1, 1), "halves": (1, 2), "ends": (2, 1), "quarters": (2, 2)}
# Added to the noise of each word, as a share of the mean noise: a word that normal images show equally often by chance
# must not count without bound. Chosen by hand.
NOISE_FLOOR = 0.25
# Standard deviation of the logarithm of left-out normal images' distances, and how many images that is worth. Chosen by
# hand near what generated kits give (.2 to .4).
PRIOR_STD, PRIOR_IMAGES = 0.25, 4.0
TINY = 1e-9


@dataclass(frozen=True, eq=False)
class VisualWords:
    """`centres` `(k, D)` of patches, and the distance `width` over which a patch passes from one word to the next."""

    centres: Tensor
    width: float

    @classmethod
    def of(cls, rows: Tensor, centres: Tensor, softness: float) -> Self:
        """Words of these centres; `softness` is their width in root mean squared distances of `rows` `(N, D)`."""
        nearest = squared_distances(rows, centres).amin(1)  # (N,)
        return cls(centres, max(softness * float(nearest.mean()) ** 0.5, TINY))

    def memberships(self, patches: Tensor) -> Tensor:
        """How much of each word each of the patches `(h, w, D)` is: `(h, w, k)`, adding up to 1."""
        distances = squared_distances(patches.flatten(0, 1), self.centres.to(patches.device))  # (h·w, k)
        return (-distances / (2 * self.width**2)).softmax(1).unflatten(0, patches.shape[:2])


def composition(memberships: Tensor, cells: tuple[int, int]) -> Tensor:
    """Square roots of the share of all patches that is of each word in each cell: `(h, w, k)` → `(rows, columns, k)`.

    Counts scatter the more the larger they are; their roots scatter alike (Bartlett, 1936). Shares are those of the
    patches that are judged, so that images of another size compare.
    """
    rows, columns = cells
    (height, width), count = memberships.shape[:2], memberships.shape[2]
    found = memberships.new_zeros(rows, columns, count)
    for row in range(rows):
        for column in range(columns):
            inside = memberships[
                row * height // rows : (row + 1) * height // rows,
                column * width // columns : (column + 1) * width // columns,
            ]
            found[row, column] = inside.sum((0, 1))
    return (found / memberships.sum().clamp_min(TINY)).sqrt()


def cells_along(length: int, cells: int) -> Tensor:
    """In which of `cells` each of `length` patches in a row lies `(length,)`, as `composition` cuts them."""
    return ((torch.arange(length) + 1) * cells - 1) // length


@dataclass(frozen=True, eq=False)
class CompositionBank:
    """Compositions of n normal images at one level: `rows` `(n, F)`, each in units of its `noise` `(F,)`.

    `log_mean` and `log_std` are of the logarithms of each one's distance to the nearest of the others.
    """

    rows: Tensor
    noise: Tensor
    log_mean: float
    log_std: float

    @classmethod
    def of(cls, compositions: Tensor) -> Self:
        """From compositions `(n, F)`, n ≥ 2.

        The noise of a word in a cell is what it differs by between an image and the one most like it: between images
        of two kinds it differs for a reason.
        """
        to_others = distances_to_others(compositions)  # (n, n)
        differences = compositions - compositions[to_others.argmin(1)]  # (n, F)
        noise = (differences.square().mean(0) / 2).sqrt()  # (F,)
        noise = noise + NOISE_FLOOR * noise.square().mean().sqrt() + TINY
        rows = compositions / noise
        logs = distances_to_others(rows).amin(1).clamp_min(TINY).log()  # (n,)
        std = shrunk_variance(logs.double().cpu().numpy(), PRIOR_STD, PRIOR_IMAGES) ** 0.5
        return cls(rows, noise, float(logs.mean()), std)

    def compared(self, found: Tensor, stays: Tensor | None = None) -> tuple[float, Tensor]:
        """How anomalous a composition `(F,)` is, and its difference `(F,)`, in units of noise, to the nearest one.

        The first is in standard deviations of the logarithm of normal distances; 0 is what normal images have. `stays`
        `(n,)` bool: the rows that it is compared with.
        """
        row = found / self.noise.to(found.device)  # (F,)
        rows = self.rows.to(found.device)
        distances = (rows - row).norm(dim=1)  # (n,)
        if stays is not None:
            distances = distances.masked_fill(~stays.to(distances.device), torch.inf)
        nearest = int(distances.argmin())
        return self.standardised(float(distances[nearest])), row - rows[nearest]

    def standardised(self, distance: float) -> float:
        """A distance as its logarithm, in standard deviations above the mean of normal images'."""
        return (float(torch.tensor(max(distance, TINY)).log()) - self.log_mean) / self.log_std


def distances_to_others(rows: Tensor) -> Tensor:
    """Distances `(n, n)` between rows `(n, F)`, that of each to itself infinite."""
    found = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    return found.fill_diagonal_(torch.inf)
