"""Masked auto-encoding of points: a transformer learns surfaces by filling in the groups of points it was not shown.

Pang et al., Masked Autoencoders for Point Cloud Self-supervised Learning, ECCV 2022 (arXiv 2203.06604), on a user's own
good scans.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from blemish.encoders.points.point_mae import evenly_spaced, group_points, to_unit_sphere
from blemish.encoders.points.point_mae_weights import published_names, write_folder
from blemish.encoders.points.point_transformer import (
    DEPTH,
    EPS,
    HEAD_WIDTH,
    WIDTH,
    PointTransformer,
    PositionalEmbedding,
    point_block,
)
from blemish.encoders.precision import resolve_device
from blemish.errors import DatasetError, SettingsError
from blemish.numeric.pointsets import chamfer
from blemish.numeric.training import Training, seeded
from blemish.utils.progress import Progress
from blemish.utils.validation import check, is_number, whole

LOSS = "loss.csv"  # the loss of every step, beside the weights
KEPT = 8192  # points kept of each scan; every step draws some of them anew
SCALES, SHIFT = (2 / 3, 3 / 2), 0.2  # augmentation: each axis scaled and moved by chance, as published


class MaskedAutoencoder(nn.Module):
    """An encoder that sees some groups and a small decoder that draws the others from their places.

    `encoder` is what stays after learning; the head draws `group_size` points around each hidden centre.
    """

    def __init__(self, width: int = WIDTH, depth: int = DEPTH, decoder_depth: int = 4, group_size: int = 32) -> None:
        super().__init__()
        self.encoder = PointTransformer(width, depth)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.decoder_positions = PositionalEmbedding(width)
        self.decoder = nn.ModuleList(point_block(width) for _ in range(decoder_depth))
        self.decoder_norm = nn.LayerNorm(width, EPS)
        self.head = nn.Linear(width, 3 * group_size)
        for module in [*self.encoder.blocks.modules(), *self.decoder.modules()]:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, groups: Tensor, centres: Tensor, hidden: Tensor) -> Tensor:
        """Points `(B, M, K, 3)` of the M groups that `hidden` `(B, G)` bool marks, from the others.

        `groups` `(B, G, K, 3)` and `centres` `(B, G, 3)` as in `PointTransformer`; M is the same in every row.
        """
        batch, last = len(groups), len(self.encoder.blocks) - 1
        shown, far = centres[~hidden].view(batch, -1, 3), centres[hidden].view(batch, -1, 3)
        (seen,) = self.encoder(groups[~hidden].view(batch, -1, *groups.shape[2:]), shown, [last])  # (B, G − M, D)
        tokens = torch.cat([seen, self.mask_token.expand(batch, far.shape[1], -1)], dim=1)
        positions = self.decoder_positions(torch.cat([shown, far], dim=1))
        for block in self.decoder:
            tokens = block(tokens + positions)
        drawn = self.head(self.decoder_norm(tokens[:, shown.shape[1] :]))
        return drawn.unflatten(2, (-1, 3))  # (B, M, K, 3)


@dataclass(frozen=True)
class Pretraining:
    """How Point-MAE is learned from good scans; the sizes of network and masks are the published ones by default.

    Each of `steps` draws `batch` scans, `points` points of each, in `groups` of `group_size`, and hides the share
    `masking` of the groups. Scans are turned around the viewing axis, scaled and moved by chance.
    """

    steps: int = 600
    batch: int = 8
    points: int = 2048
    groups: int = 64
    group_size: int = 32
    masking: float = 0.6
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    width: int = WIDTH
    depth: int = DEPTH
    decoder_depth: int = 4
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        self._check()

    def _check(self) -> None:
        """Raise SettingsError for a setting that cannot be."""
        counts = ("steps", "batch", "points", "groups", "group_size", "width", "depth", "decoder_depth")
        check(self, *whole(self, 1, *counts), *whole(self, 0, "seed"))
        is_share = is_number(self.masking) and 0 < self.masking < 1
        if not is_share or not 1 <= self.hidden_groups < self.groups:
            raise SettingsError("a share masking of groups to hide that leaves some", repr(self.masking), "try 0.6")
        rate, decay = self.learning_rate, self.weight_decay
        check(
            self,
            ("learning_rate", "a number above 0", is_number(rate) and 0 < rate < math.inf),
            ("weight_decay", "a number ≥ 0", is_number(decay) and 0 <= decay < math.inf),
            ("points", f"up to {KEPT}, as many as are kept of a scan", self.points <= KEPT),
        )
        if max(self.groups, self.group_size) > self.points:
            raise SettingsError("no more groups, and no larger ones, than points", f"points={self.points}", "raise it")
        if self.width > HEAD_WIDTH and self.width % HEAD_WIDTH:
            raise SettingsError(f"a width that {HEAD_WIDTH} divides", str(self.width), "try 384")

    @property
    def hidden_groups(self) -> int:
        """How many groups of each scan are hidden."""
        return int(self.masking * self.groups)


@dataclass
class Pretrained:
    """What was learned: the network, the loss of every step `(steps,)`, and from how many scans."""

    network: MaskedAutoencoder
    losses: Tensor
    scans: int
    how: Pretraining

    @property
    def loss(self) -> tuple[float, float]:
        """The mean loss over the first and the last tenth of the steps."""
        tenth = max(1, len(self.losses) // 10)
        return float(self.losses[:tenth].mean()), float(self.losses[-tenth:].mean())

    def save(self, folder: Path) -> None:
        """Write what `encoders.build` reads, with the published names, and the losses into the existing `folder`."""
        facts: dict[str, Any] = {"format_version": 1, "encoder": "point-mae", "scans": self.scans, "loss": self.loss}
        write_folder(folder, published_names(self.network.cpu().state_dict()), facts | {"learned": asdict(self.how)})
        rows = (f"{step},{loss:.6g}\n" for step, loss in enumerate(self.losses.tolist(), start=1))
        (folder / LOSS).write_text("step,loss\n" + "".join(rows), encoding="utf-8")


def pretraining_of(settings: Mapping[str, Any]) -> Pretraining:
    """The settings as a `Pretraining`; SettingsError for one it does not have."""
    known = [f.name for f in fields(Pretraining)]
    for name in settings:
        if name not in known:
            raise SettingsError("a setting of the pretraining of point-mae", name, f"choose from: {', '.join(known)}")
    return Pretraining(**settings)


def pretrain(
    scans: Iterable[np.ndarray],
    how: Pretraining | None = None,
    progress: Progress | None = None,
) -> Pretrained:
    """Learn from `scans`, each `(H, W, 3)` float32 in metres with NaN for holes; they are walked once.

    Scans with fewer measured points than a step draws are left out. Raises DatasetError where that leaves none.
    """
    how = how or Pretraining()
    clouds = [cloud for cloud in map(framed, scans) if len(cloud) >= how.points]
    if not clouds:
        raise DatasetError(
            f"at least one good scan with {how.points} measured points", "none", "give good scans, or lower points"
        )
    device = resolve_device(how.device)
    with seeded(how.seed):
        model = MaskedAutoencoder(how.width, how.depth, how.decoder_depth, how.group_size).to(device)

        def loss_of(step: int) -> Tensor:
            centres, groups = group_points(drawn(clouds, how).to(device), how.groups, how.group_size)
            hidden = torch.rand(centres.shape[:2], device=device).argsort(1) < how.hidden_groups  # (B, G)
            guessed = model(groups, centres, hidden)  # (B, M, K, 3)
            return chamfer(guessed.flatten(0, 1), groups[hidden])

        learning = Training(
            how.steps, how.learning_rate, how.weight_decay, warmup_steps=max(1, how.steps // 20), max_grad_norm=10.0
        )
        losses = learning.run(model, loss_of, progress)
    return Pretrained(model, losses, len(clouds), how)


def framed(scan: np.ndarray) -> Tensor:
    """Up to KEPT measured points of a scan `(H, W, 3)`, evenly over it, in the unit sphere: `(N, 3)` float32."""
    points = scan[np.isfinite(scan).all(axis=-1)]
    return torch.from_numpy(to_unit_sphere(points[evenly_spaced(len(points), KEPT)])[0])


def drawn(clouds: list[Tensor], how: Pretraining) -> Tensor:
    """A batch of scans by chance, some points of each, turned, scaled and moved: `(B, N, 3)`."""
    some = [clouds[int(i)] for i in torch.randint(len(clouds), (how.batch,))]
    cloud = torch.stack([points[torch.randperm(len(points))[: how.points]] for points in some])  # (B, N, 3)
    angle = 2 * torch.pi * torch.rand(how.batch, 1)
    x, y, z = cloud.unbind(2)
    turned = torch.stack([x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos(), z], dim=2)
    scale = torch.empty(how.batch, 1, 3).uniform_(*SCALES)
    return turned * scale + torch.empty(how.batch, 1, 3).uniform_(-SHIFT, SHIFT)
