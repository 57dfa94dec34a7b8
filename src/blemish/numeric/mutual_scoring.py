"""Mutual scoring of unlabelled images: a patch that hardly any other image has is anomalous (MuSc).

Xurui Li, Ziming Huang, Feng Xue, Yu Zhou, "MuSc: Zero-Shot Industrial Anomaly Classification and Segmentation with
Mutual Scoring of the Unlabeled Images", ICLR 2024, https://arxiv.org/abs/2401.16753.

A patch of a normal image has similar ones in most other images, a patch of a defect in few. Its score is the mean
distance to the nearest patch in each of those 30 % of the other images that come closest (interval average), so that
neither a few images that look different nor a few with the same defect decide. Three steps: local neighbourhood
aggregation with multiple degrees (LNAMD: `layer_normalised`, `aggregated`), the mutual scoring mechanism (MSM:
`mutual_patch_scores`), re-scoring with constrained image-level neighbourhoods (RsCIN: `reranked`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, normalize

NEAREST_SHARE = 0.3  # of the other images that a patch is scored by (the paper's interval average)
NEIGHBOURHOODS = (1, 3, 5)  # patches a side, averaged before they are compared (the paper's aggregation degrees)
RANKS = (1, 2, 3)  # images, the image itself among them, whose scores are averaged (the paper's, on MVTec AD)
MIN_IMAGES = 5  # with fewer the interval average is not the mean over one other image at least (paper)
SPARE = 16  # distances beyond those that count that are gathered before the largest are dropped
BLOCK_BYTES = 64 << 20  # aggregated patches that are held at once

LayerOf = Callable[[int, int], Tensor]  # (image, layer) → its normalised patch features (h, w, D), float32


def layer_normalised(layer: Tensor) -> Tensor:
    """One image's layer `(h, w, D)`, mean 0 and variance 1 over all its values (layer normalisation, not affine)."""
    values = layer.float()
    return torch.nn.functional.layer_norm(values, values.shape)


def aggregated(layer: Tensor, side: int) -> Tensor:
    """The patches of a layer `(h, w, D)` as unit rows `(h·w, D)`, each the mean of the `side` × `side` around it.

    `side` is odd; what lies beyond the edge counts as zero. A patch of zeros stays one.
    """
    planes = layer.permute(2, 0, 1)[None]  # (1, D, h, w)
    means = planes if side == 1 else avg_pool2d(planes, side, stride=1, padding=side // 2)  # (1, D, h, w)
    return normalize(means[0].flatten(1).T, dim=1)  # (h·w, D)


def distances_to_nearest(rows: Tensor, others: Tensor, row_squares: Tensor, other_squares: Tensor) -> Tensor:
    """Distances `(P,)` of `rows` `(P, D)` to the nearest of `others` `(Q, D)`; their squared lengths `(P,)`, `(Q,)`."""
    squared = (other_squares - 2 * rows @ others.T).amin(1) + row_squares  # (P,)
    return squared.clamp_min(0).sqrt()


def nearest_between(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Distances of unit rows `(P, D)` and `(Q, D)` to the nearest one on the other side, `(P,)` and `(Q,)`."""
    cosines = left @ right.T  # (P, Q)
    nearest = cosines.amax(1), cosines.amax(0)
    forth, back = (((2 - 2 * cosine).clamp_min(0)).sqrt() for cosine in nearest)
    return forth, back


def near_count(others: int, share: float = NEAREST_SHARE) -> int:
    """By how many of the `others` a patch is scored: those that come closest, a `share` of them, at least one.

    Rounded down, as in the paper.
    """
    return max(1, int(share * others + 1e-9))


class LowestDistances:
    """The `count` lowest of the distances of P patches to other images, of which any number may be added.

    Memory is P · (`count` + SPARE) numbers, whatever is added; the result does not depend on the order.
    """

    def __init__(self, patches: int, count: int, device: torch.device | str = "cpu") -> None:
        self.count, self._filled = count, 0
        self._values = torch.empty(patches, count + SPARE, device=device)  # (P, count + SPARE)

    def add(self, distances: Tensor) -> None:
        """Add the distances `(P,)` to one more image."""
        if self._filled == self._values.shape[1]:
            self._values[:, : self.count] = self._lowest()
            self._filled = self.count
        self._values[:, self._filled] = distances
        self._filled += 1

    def mean(self) -> Tensor:
        """The mean `(P,)` of the lowest ones; of all where there are fewer."""
        return self._lowest().mean(1)

    def _lowest(self) -> Tensor:
        known = self._values[:, : self._filled]
        return known.topk(min(self.count, self._filled), dim=1, largest=False, sorted=True).values


def mutual_patch_scores(
    grids: Sequence[Sequence[tuple[int, int]]],
    layer_of: LayerOf,
    neighbourhoods: Sequence[int] = NEIGHBOURHOODS,
    share: float = NEAREST_SHARE,
    block_bytes: int = BLOCK_BYTES,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> list[np.ndarray]:
    """The mutual scores of the patches of each of n ≥ 2 images, n maps `(h, w)` float32 ≥ 0 on their finest grids.

    `grids[i]` are the (height, width) of image i's layers, in patches; `layer_of(i, layer)` gives one of them, any
    number of times. Scores are averaged over layers, then over `neighbourhoods`. Every pair of images is multiplied
    once for both; about `block_bytes` of patches are held at a time, and the scores do not depend on how many those
    are. `progress` is called with the share of all pairs that are done.
    """
    finest = [max(own, key=lambda grid: grid[0] * grid[1]) for own in grids]
    totals = [torch.zeros(grid, device=device) for grid in finest]  # (h, w) each
    layers = len(grids[0])
    passes = [(layer, side) for side in neighbourhoods for layer in range(layers)]
    for number, (layer, side) in enumerate(passes):

        def rows_of(image: int, layer: int = layer, side: int = side) -> Tensor:
            return aggregated(layer_of(image, layer).to(device), side)  # (P, D)

        sizes = [own[layer] for own in grids]
        lowest = [LowestDistances(h * w, near_count(len(grids) - 1, share), device) for h, w in sizes]
        for i, j, left, right, done in pairs_in_blocks(len(grids), rows_of, block_bytes):
            forth, back = nearest_between(left, right)
            lowest[i].add(forth)
            lowest[j].add(back)
            if progress:
                progress((number + done) / len(passes))
        for total, found, size in zip(totals, lowest, sizes, strict=True):
            total += on_grid(found.mean().view(size), total.shape)
    return [(total / len(passes)).cpu().numpy() for total in totals]


def pairs_in_blocks(
    count: int, rows_of: Callable[[int], Tensor], block_bytes: int
) -> Iterator[tuple[int, int, Tensor, Tensor, float]]:
    """All pairs i < j of `count` images with their rows, and the share of pairs done; a block of them stays in memory.

    Every image is asked for once in each block before it, so that larger blocks save work, not change results.
    """
    done, pairs = 0, max(1, count * (count - 1) // 2)
    start = 0
    while start < count:
        block: list[Tensor] = []
        held = 0
        for j in range(start, count):
            rows = rows_of(j)  # (P, D)
            for offset, left in enumerate(block):
                done += 1
                yield start + offset, j, left, rows, done / pairs
            if j == start + len(block) and (not block or held + rows.nbytes <= block_bytes):
                block.append(rows)
                held += rows.nbytes
        start += len(block)


def on_grid(scores: Tensor, grid: Sequence[int]) -> Tensor:
    """Patch scores `(h, w)` on another `grid` (bilinear), as they are where it is their own."""
    if tuple(scores.shape) == tuple(grid):
        return scores
    return interpolate(scores[None, None], tuple(grid), mode="bilinear", align_corners=False)[0, 0]


def reranked(scores: np.ndarray, features: np.ndarray, ranks: Sequence[int] = RANKS) -> np.ndarray:
    """Image scores `(n,)`, each averaged with those of the images that look most like it (RsCIN).

    `features` `(n, D)` describe whole images. For every k in `ranks` a score becomes the mean over the k images of the
    largest cosine, itself included, weighted by the cosine; the results are averaged. The paper brings scores to [0, 1]
    first, which changes nothing but their unit, as the weights sum to 1.
    """
    if not len(ranks):
        return scores
    rows = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)  # (n, D)
    cosines = rows @ rows.T  # (n, n)
    order = np.argsort(-cosines, axis=1, kind="stable")  # (n, n)
    found = []
    for k in ranks:
        near = order[:, : min(k, len(scores))]  # (n, k)
        weights = np.maximum(np.take_along_axis(cosines, near, axis=1), 1e-12)  # (n, k)
        found.append((weights * scores[near]).sum(1) / weights.sum(1))
    return np.asarray(np.mean(found, axis=0))


def random_groups(count: int, most: int, seed: int = 0) -> list[list[int]]:
    """`count` images in as few groups of at most `most` as it takes, drawn at random, of one size or one apart."""
    groups = -(-count // most)
    order = np.random.default_rng(seed).permutation(count)
    return [sorted(group.tolist()) for group in np.array_split(order, groups)] if groups > 1 else [list(range(count))]
