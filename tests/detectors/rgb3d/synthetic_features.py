"""Synthetic features of scans: a latent surface drives both modalities, and each has noise of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from blemish.types import POINTS, RGB, Batch, Features, Prompts

IMAGE, SURFACE, SIDE = 10, 6, 12  # D1, D2, patches a side


def scans(count: int, seed: int, names: Sequence[str] = ("nut",)) -> Features:
    """`count` scans of each category in turn: a round part on a background without points; the categories differ."""
    random = torch.Generator().manual_seed(seed)
    fixed = torch.Generator().manual_seed(99)
    both, to_image, to_points = (torch.randn(3, d, generator=fixed) for d in (4, IMAGE, SURFACE))
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    part = (y - 5.5) ** 2 + (x - 5.5) ** 2 < 25
    images, points, categories = [], [], []
    for index in range(count * len(names)):
        category = index % len(names)
        shared = torch.randn(SIDE, SIDE, 3, generator=random)  # latent of both modalities
        kind = torch.randn(4, generator=torch.Generator().manual_seed(category)) @ both.T  # offset of the category
        image = (shared + kind) @ to_image + 0.05 * torch.randn(SIDE, SIDE, IMAGE, generator=random)
        images.append(torch.where(part[..., None], image, torch.full_like(image, -3)))
        surface = (torch.tanh(shared) + kind / 2) @ to_points + 0.05 * torch.randn(
            SIDE, SIDE, SURFACE, generator=random
        )
        points.append(surface * part[..., None])
        categories.append(names[category])
    valid = part.expand(len(points), SIDE, SIDE)
    return Features({RGB: (torch.stack(images),), POINTS: (torch.stack(points),)}, {POINTS: valid}, tuple(categories))


def prompts(names: Sequence[str] = ("nut",)) -> dict[str, Prompts]:
    """Random sentences of unit length about each category, five normal and three abnormal ones."""
    random = torch.Generator().manual_seed(7)
    rows = torch.nn.functional.normalize(torch.randn(len(names), 8, 16, generator=random), dim=-1)
    return {name: Prompts(own[:5], own[5:]) for name, own in zip(names, rows, strict=True)}


def normal_batches(count: int = 12, names: Sequence[str] = ("nut",), seed: int = 1) -> list[Batch]:
    """Normal scans to fit on, in one batch."""
    return [Batch(scans(count, seed, names), prompts=prompts(names))]


def changed(features: Features, modality: str, seed: int = 5) -> tuple[Features, Tensor]:
    """The same with the features of other scans in a square of one modality; and where, `(h, w)` bool."""
    other = scans(len(features), seed, features.categories[:1] if features.categories else ("nut",))
    where = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    where[4:7, 4:7] = True
    layer = torch.where(where[..., None], other.layers[modality][0], features.layers[modality][0])
    return Features({**features.layers, modality: (layer,)}, features.valid, features.categories), where


def with_stray_points(features: Features) -> Features:
    """The same with points in a single patch of each scan, which are unlike anything."""
    valid = torch.zeros_like(features.valid[POINTS])
    valid[:, 5, 6] = True
    points = torch.where(valid[..., None], 100.0, torch.zeros_like(features.layers[POINTS][0]))
    return Features({**features.layers, POINTS: (points,)}, {**features.valid, POINTS: valid}, features.categories)


def without(features: Features, modality: str) -> Features:
    """The same without one modality."""
    layers = {**features.layers, modality: (torch.zeros_like(features.layers[modality][0]),)}
    nothing = torch.zeros(features.layers[modality][0].shape[:3], dtype=torch.bool)
    return Features(layers, {**features.valid, modality: nothing}, features.categories)
