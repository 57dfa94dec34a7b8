"""Which patches are background, fitted once on normal images and applied as one dot product a patch.

The usual way (AnomalyDINO) takes the first principal component of the inspected image itself: a large defect bends
it, and its sign may turn inside out. Here the components of the normal images are used, each judged by its border;
only if most of them split into part and background is a linear discriminant (Fisher 1936) kept, leaning towards "part".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from blemish.preprocessing.foreground import from_patches

# Chosen by hand; no benchmark set them.
AGREEING = 0.75  # of the normal images must split into part and background
MAX_FOREGROUND_MISS_RATE = 0.002  # of the normal images' foreground patches that may lie on the background's side
REMOVED = 0.5  # of their background patches that the discriminant must recognise to be worth having
SHRINKAGE = 0.1  # of the within-class covariance towards a multiple of the identity


def fit_background(images: Sequence[Tensor]) -> Tensor | None:
    """The discriminant `(D + 1,)` (axis, then the threshold under which a patch is background); None if not stable.

    `images`: patches `(h, w, D)` of normal images of one category.
    """
    masks = [torch.from_numpy(from_patches(p.cpu().numpy())).to(p.device) for p in images]  # (h, w) bool each
    split = [(p, m) for p, m in zip(images, masks, strict=True) if not m.all()]  # images that have a background
    if len(split) < max(1.0, AGREEING * len(images)):
        return None
    part = torch.cat([p[m] for p, m in split]).double()  # (N, D)
    back = torch.cat([p[~m] for p, m in split]).double()  # (M, D)
    within = (_scatter(part) + _scatter(back)) / (len(part) + len(back))  # (D, D)
    width = len(within)
    variance = within.diagonal().mean().clamp(min=1e-12)
    unit = torch.eye(width, dtype=within.dtype, device=within.device)  # (D, D)
    within = (1 - SHRINKAGE) * within + SHRINKAGE * variance * unit
    axis = torch.linalg.solve(within, part.mean(0) - back.mean(0))  # (D,)
    axis = axis / axis.norm().clamp(min=1e-12)
    threshold = (part @ axis).sort().values[int(MAX_FOREGROUND_MISS_RATE * len(part))]
    if float((back @ axis < threshold).double().mean()) < REMOVED:
        return None
    return torch.cat([axis, threshold[None]]).float()


def foreground(discriminant: Tensor, patches: Tensor) -> Tensor:
    """Which of the patches `(B, h, w, D)` are part, `(B, h, w)` bool, one patch wider than the discriminant says."""
    discriminant = discriminant.to(patches.device)
    part = (patches * discriminant[:-1]).sum(-1) >= discriminant[-1]  # (B, h, w)
    return max_pool2d(part.float()[:, None], 3, stride=1, padding=1)[:, 0] > 0


def _scatter(rows: Tensor) -> Tensor:
    """The sum `(D, D)` of outer products of rows `(N, D)` about their mean."""
    centred = rows - rows.mean(0)
    return centred.T @ centred
