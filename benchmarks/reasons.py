"""How often are the reasons for an alarm right, and what do people call what we call a "dark spot"?

    python benchmarks/reasons.py                                          # measures; writes results/reasons.csv
    python benchmarks/reasons.py --products mvtec_ad/bottle --sets named --images 2

Learns from 4 good training images (RandomState(0) over the sorted names) by the default of `blemish fit`.
`named`: the noun of the strongest region of each defective test image, by the name of its folder. No noun was chosen
on these images. `made-up`: known defects (src/blemish/research/known_defects.py) on up to 8 further good training
images, where the detector's strongest region touches the defect: whether noun, words of difference, place (to one cell
of 1/28 of the frame) and direction (to 10°) are right; empty where there is nothing to be right about.
`milliseconds` is the processor time of inspecting the image, `reasons_ms` how much of it goes into reasons.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pictures import DATA
from tables import add_missing

from blemish import Inspector, Prediction, Sample
from blemish.data import load_dataset, load_image
from blemish.research.known_defects import KNOWN_DEFECTS, KnownDefect, Stage
from blemish.scoring.naming import differences_of

RESULTS = Path(__file__).parent / "results" / "reasons.csv"
SETS = ("named", "made-up")
RIGHT = ("right_noun", "right_words", "right_place", "right_direction")
HEAD = ("set", "product", "defect", "image", "verdict", "noun", *RIGHT, "milliseconds", "reasons_ms")
NAMED = (
    *("mvtec_ad/bottle", "mvtec_ad/screw", "mvtec_ad/pill", "mvtec_ad/transistor"),
    *("mvtec_ad_fewshot/metal_nut", "mvtec_ad_fewshot/leather", "mvtec_ad_testonly/capsule"),
    "mvtec_ad_testonly/carpet",
)
WITH_FURTHER = ("mvtec_ad/bottle", "mvtec_ad/pill", "mvtec_ad/transistor", "mpdd/metal_plate", "aws_cookie/cookie")
SHOTS, FURTHER, DRAWS, CELLS = 4, 8, 2, 28


def samples_of(product: str) -> tuple[list[Sample], list[Sample], list[Sample]]:
    """Good images to learn from, further good ones, and defective ones."""
    (category,) = load_dataset(DATA / product).categories.values()
    train = sorted(category.train, key=lambda sample: sample.name)
    train = [train[i] for i in np.random.RandomState(0).permutation(len(train))]
    return train[:SHOTS], train[SHOTS:][:FURTHER], list(category.defective)


def measured(kind: str, product: str, images: int | None) -> Iterator[tuple[object, ...]]:
    """The rows of one set of a product, without its first two columns."""
    learned, further, defective = samples_of(product)
    inspector = Inspector().fit(learned)
    silent = inspector.with_reasons(compare=False)
    if kind == "named":
        for sample in thinned(defective, images):
            prediction, *cost = timed(inspector, silent, Sample(sample.image))
            yield (sample.defect, Path(sample.name).name, *described(prediction), "", "", "", "", *cost)
        return
    for number, sample in enumerate(further[:images]):
        stage = Stage.of(load_image(sample.source))
        for draw in range(DRAWS):
            random = np.random.default_rng((number, draw))
            for name, make in KNOWN_DEFECTS.items():
                defect = make(stage, random)
                if defect is None:
                    continue
                prediction, *cost = timed(inspector, silent, Sample(defect.image))
                right = judged(prediction, defect)
                yield (name, f"{Path(sample.name).name} {draw}", *described(prediction), *right, *cost)


def thinned(samples: list[Sample], most: int | None) -> list[Sample]:
    """At most so many of each kind of defect."""
    counts: dict[str, int] = {}
    kept = []
    for sample in samples:
        counts[sample.defect] = counts.get(sample.defect, 0) + 1
        kept += [sample] * (most is None or counts[sample.defect] <= most)
    return kept


def timed(inspector: Inspector, silent: Inspector, sample: Sample) -> tuple[Prediction, str, str]:
    """The prediction, the processor time it takes, and how much more than without reasons."""
    seconds = []
    for one in (silent, inspector):
        began = time.process_time()
        prediction = one.inspect(sample)
        seconds.append(time.process_time() - began)
    return prediction, f"{1000 * seconds[1]:.0f}", f"{1000 * (seconds[1] - seconds[0]):.0f}"


def described(prediction: Prediction) -> tuple[str, str]:
    """The verdict, and the noun of the strongest region; "" where there is none."""
    regions = prediction.regions
    return prediction.verdict, regions[0].attributes.noun if regions and regions[0].attributes else ""


def judged(prediction: Prediction, defect: KnownDefect) -> tuple[str, str, str, str]:
    """Whether the strongest region says what was made up; empty where no region shows it."""
    regions = prediction.regions
    found = regions[0].attributes if regions else None
    if found is None:
        return "", "", "", ""
    left, top, right, bottom = regions[0].box
    if not defect.mask[top:bottom, left:right].any():
        return "", "", "", ""
    said = {word.removeprefix("slightly_") for word in differences_of(found)}
    far = np.hypot(found.centre[0] - defect.centre[0], found.centre[1] - defect.centre[1])
    cell = max(defect.image.shape[:2]) / CELLS
    turn = None if defect.degrees is None else abs(found.degrees - defect.degrees) % 180
    return (
        str(int(found.noun in defect.nouns)),
        str(int(defect.words <= said)) if defect.words else "",
        str(int(far <= cell)),
        "" if turn is None else str(int(min(turn, 180 - turn) <= 10)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", nargs="+", help="folders under BLEMISH_DATA; all with named defects if unset")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--images", type=int, help="at most so many of each kind; all if unset")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    usual = {"named": NAMED, "made-up": WITH_FURTHER}
    keys = [(kind, product) for kind in arguments.sets for product in arguments.products or usual[kind]]
    add_missing(arguments.output, HEAD, keys, lambda kind, product: measured(kind, product, arguments.images))


if __name__ == "__main__":
    main()
