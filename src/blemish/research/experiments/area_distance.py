"""How far a synthetic anomaly moves features, against its area, encoder by encoder and block by block.

Zhai et al., "Foundation Visual Encoders Are Secretly Few-Shot Anomaly Detectors", ICLR 2026, figure 2: the distance
grows monotonically with the area, which is why a residual can be an anomaly score. No detector is fitted here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from statistics import fmean
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from blemish.augmentation.cutpaste import rectangle
from blemish.data import draw_shots, image_of
from blemish.data.full_scale import learn_full_scale
from blemish.encoders.base import Encoder
from blemish.errors import SettingsError
from blemish.evaluation import CategoryData
from blemish.preprocessing.foreground import from_pixels
from blemish.preprocessing.framing import build_framing
from blemish.research.experiments.base import (
    Cell,
    Chart,
    CurveChart,
    Experiment,
    Matrix,
    Row,
    Tools,
    Verdict,
    at_least,
    curves,
    gathered,
    matrix,
    places,
)
from blemish.research.experiments.data import encoders_named, fingerprint_of
from blemish.research.experiments.sources import FOUNDAD
from blemish.research.experiments.verdicts import MONOTONIC, mean_and_std, spearman
from blemish.types import RGB
from blemish.utils.threads import quiet_numpy

WHOLE, INSIDE, OUTSIDE = "distance", "inside", "outside"


@dataclass(frozen=True, kw_only=True)
class AreaDistance(Experiment):
    """Rectangles of growing `areas` (shares of the image) are pasted into normal images, and features compared.

    `encoders`: "all" takes every one that loads without a download. `blocks`: of each encoder, negative ones from the
    end; empty: up to four, evenly spaced. `images` normal ones of each category, `defects` synthetic ones on each.
    """

    QUESTION: ClassVar[str] = "Do features move further from those of the good picture the larger a defect is?"
    SOURCE: ClassVar[str] = f"Figure 2 of {FOUNDAD}: they do, monotonically."
    KEY: ClassVar[tuple[str, ...]] = (
        *("dataset", "category", "encoder", "block", "image_size", "seed", "area", "data"),
    )
    MEASURES: ClassVar[tuple[str, ...]] = (WHOLE, INSIDE, OUTSIDE, "pasted_share", "spearman", "n_defects")
    AXES: ClassVar[frozenset[str]] = Experiment.AXES | {"encoders"}
    FULL: ClassVar[Mapping[str, Any]] = {"images": 50, "defects": 4, "image_size": 512}

    encoders: tuple[str, ...] = ("all",)
    blocks: tuple[int, ...] = ()
    areas: tuple[float, ...] = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
    images: int = 6
    defects: int = 2
    image_size: int = 224

    @property
    def may_be_empty(self) -> frozenset[str]:
        return frozenset({"blocks"})

    def check(self) -> None:
        super().check()
        at_least("images", (self.images,), 1)
        at_least("defects", (self.defects,), 1)
        at_least("image_size", (self.image_size,), 16)
        at_least("number of areas", (len(self.areas),), 2)
        if any(not 0 < area <= 1 for area in self.areas):
            raise SettingsError(
                "areas as shares of the picture, over 0 and at most 1", f"{list(self.areas)}", "mend it"
            )

    def cells(self, categories: Sequence[CategoryData]) -> list[Cell]:
        names = encoders_named(self.encoders, joined=False)
        return [
            Cell(
                {
                    "dataset": category.dataset,
                    "category": category.name,
                    "encoder": name,
                    "image_size": self.image_size,
                    "seed": seed,
                    "data": fingerprint_of([category]),
                },
                partial(self.measured, category, name, seed),
            )
            for name in names
            for category in categories
            for seed in self.seeds
        ]

    @quiet_numpy()
    def measured(self, category: CategoryData, name: str, seed: int, tools: Tools) -> list[Row]:
        """A row for each block and area, the rank correlation over all images and areas in each of them."""
        encoder = with_blocks(name, self.blocks, self.device)
        framing = build_framing("plain", image_size=self.image_size, multiple=encoder.size_multiple, square=True)
        full_scale = learn_full_scale(category.train)
        drawn = draw_shots(category.train, min(self.images, len(category.train)), seed)
        moved: list[tuple[float, float, list[dict[str, float]]]] = []  # target area, pasted area, by block
        scales: list[list[float]] = []
        for index, sample in enumerate(drawn):
            image = framing.frame(image_of(sample, full_scale)).encoder_input
            good = layers_of(encoder, image)
            scales.append([deviation_of(one) for one in good])
            for area, (altered, mask) in self._altered(image, seed, index):
                after = layers_of(encoder, altered)
                moved.append((area, float(mask.mean()), [move(g, a, mask) for g, a in zip(good, after, strict=True)]))
            tools.progress(index + 1, len(drawn), {"step": f"{category.name}, {name}"})
        units = np.mean(scales, axis=0)  # (blocks,)
        return [
            row
            for position, block in enumerate(encoder.layers)
            for row in rows_of(int(block), [(w, s, by[position]) for w, s, by in moved], float(units[position]))
        ]

    def _altered(
        self, image: np.ndarray, seed: int, index: int
    ) -> Iterator[tuple[float, tuple[np.ndarray, np.ndarray]]]:
        """Each area with the image it was pasted into, and its mask; one draw of place and colour for all areas."""
        foreground = from_pixels(image)
        for number in range(self.defects):
            for area in self.areas:
                yield area, rectangle(image, foreground, np.random.default_rng((seed, index, number)), area)

    def verdict(self, rows: Sequence[Row]) -> Verdict:
        found = gathered(one_a_cell(rows), "spearman", "encoder", "block")
        sentences = []
        grows = {key: fmean(values) >= MONOTONIC for key, values in found.items()}
        if found and all(grows.values()):
            sentences.append("Yes: the distance grows with the area for every encoder and block.")
        elif found:
            failing = ", ".join(f"{encoder} block {block}" for (encoder, block), good in grows.items() if not good)
            sentences.append(f"Not everywhere: the rank correlation stays under {MONOTONIC:g} for {failing}.")
        for encoder in dict.fromkeys(key[0] for key in found):
            here = {block: mean_and_std(values) for (name, block), values in found.items() if name == encoder}
            sentences.append(f"{encoder}: rank correlation {', '.join(f'{v} (block {b})' for b, v in here.items())}.")
        rule = (
            f"The distance counts as growing with the area when Spearman's rank correlation between the two, over all "
            f"pictures and areas, is at least {MONOTONIC:g} in the mean over categories and seeds."
        )
        return Verdict(tuple(sentences), rule)

    def charts(self, rows: Sequence[Row]) -> list[Chart]:
        shown = ((WHOLE, "all patches"), (INSIDE, "patches under the defect"), (OUTSIDE, "patches beside it"))
        named = [{**row, "line": f"block {row['block']}"} for row in rows]
        return [
            CurveChart(
                f"{encoder}, {words}",
                "area of the defect, share of the picture",
                "distance, in standard deviations of good patches",
                places(here, "area"),
                curves(here, measure, "line", "area"),
            )
            for encoder in dict.fromkeys(str(row["encoder"]) for row in rows)
            for here in [[row for row in named if row["encoder"] == encoder]]
            for measure, words in shown
        ]

    def tables(self, rows: Sequence[Row]) -> list[Matrix]:
        named = [{**row, "layer": f"{row['encoder']}, block {row['block']}"} for row in rows]
        return [
            matrix(one_a_cell(named), "spearman", "layer", "category", "Rank correlation of distance and area"),
            matrix(named, WHOLE, "layer", "area", "Distance by area, all patches", higher_is_better=None),
            matrix(
                named, OUTSIDE, "layer", "area", "Distance by area, patches beside the defect", higher_is_better=None
            ),
        ]

    def notes(self, rows: Sequence[Row]) -> list[str]:
        return [
            "Distances are Euclidean, between the same patch before and after, divided by how far good patches of that "
            "block lie from their mean (root mean square), so that blocks compare.",
            f"{self.images} good pictures of each category and seed, {self.defects} made-up defects on each.",
            "What moves beside the defect is context: a transformer's patches see all others, a convolution's their "
            "neighbours.",
        ]


def one_a_cell(rows: Sequence[Row]) -> list[Row]:
    """The first row of each block of each cell: the rank correlation is the same in all of them."""
    first: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        first.setdefault(tuple(row[name] for name in AreaDistance.KEY if name != "area"), row)
    return list(first.values())


@lru_cache(maxsize=1)  # cells with the same encoder follow each other
def with_blocks(name: str, blocks: tuple[int, ...], device: str) -> Encoder:
    """The encoder with these blocks, or with up to four of all that it has, evenly spaced, the last among them."""
    from blemish import encoders

    if blocks:
        return encoders.build(name, layers=list(blocks), device=device)
    last = encoders.build(name, layers=[-1], device=device)
    depth = int(last.layers[0]) + 1
    chosen = sorted({round(depth * part / 4) - 1 for part in range(1, 5)} - {-1})
    return encoders.build(name, layers=chosen, device=device)


def layers_of(encoder: Encoder, image: np.ndarray) -> tuple[Tensor, ...]:
    """The features of one image `(H, W, 3)`, one `(h, w, D)` a layer."""
    return tuple(layer[0] for layer in encoder.encode(image[None]).layers[RGB])


def deviation_of(patches: Tensor) -> float:
    """Root mean square distance of patches `(h, w, D)` from their mean."""
    flat = patches.flatten(0, 1)
    return float((flat - flat.mean(0)).square().sum(-1).mean().sqrt())


def move(good: Tensor, altered: Tensor, mask: np.ndarray) -> dict[str, float]:
    """Mean distance between two `(h, w, D)`: over all patches, those that `mask` `(H, W)` touches, and the others."""
    distance = (altered - good).norm(dim=-1).cpu()  # (h, w)
    touched = adaptive_max_pool2d(torch.from_numpy(mask)[None].float(), tuple(distance.shape))[0] > 0
    places = {WHOLE: distance.flatten(), INSIDE: distance[touched], OUTSIDE: distance[~touched]}
    return {name: float(values.mean()) if len(values) else float("nan") for name, values in places.items()}


def rows_of(block: int, moved: Sequence[tuple[float, float, Mapping[str, float]]], unit: float) -> list[Row]:
    """A row for each area, from (target area, pasted area, distances) of every synthetic anomaly."""
    correlation = spearman([share for _, share, _ in moved], [distances[WHOLE] for _, _, distances in moved])
    found: list[Row] = []
    for area in dict.fromkeys(target for target, _, _ in moved):
        here = [(share, distances) for target, share, distances in moved if target == area]
        means = {
            name: fmean(known) / unit if (known := [d[name] for _, d in here if d[name] == d[name]]) else float("nan")
            for name in (WHOLE, INSIDE, OUTSIDE)
        }
        found.append(
            {
                "block": block,
                "area": area,
                **means,
                "pasted_share": fmean(share for share, _ in here),
                "spearman": correlation,
                "n_defects": len(here),
            }
        )
    return found
