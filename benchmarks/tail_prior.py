"""How far do new good images score from those that made a threshold? The priors of scoring/calibration.py rest on this.

    python benchmarks/tail_prior.py scores            # measures; writes results/tail_prior.csv
    python benchmarks/tail_prior.py fit               # chooses the priors, each product left out in turn

`scores`: the default learns from 4 good *training* images (RandomState(draw) over the sorted names). Written are log
scores of each of them with one, two and three of the four left out ("left out 1" … "left out 3"), of up to 12 further
good training images ("further"), and by a model of the first image alone of its perturbed copies ("copy") and of the
further images ("further alone"). No test image is looked at.

`fit`: the prior standard deviation and its weight, the standard deviation of the bias and the shrinkage of the learning
curve that make the further images' log scores most likely (Student's t of tail_model.py), over a grid, chosen on all
products but one; reported is what that choice promises and keeps on the one left out. Of copies: the mean distance of
further images to them, and its standard deviation over products.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pictures import WITH_FURTHER, drawn_good_files
from scipy.stats import t as student
from tables import add_missing, read_rows

from blemish import Inspector
from blemish.augmentation.perturb import slight_copies
from blemish.data import load_image
from blemish.detectors.base import WithoutImages
from blemish.scoring.detector_scores import detector_scores
from blemish.scoring.tail_model import TailModel, TailPrior

RESULTS = Path(__file__).parent / "results" / "tail_prior.csv"
HEAD = ("product", "draw", "kind", "log_score")
SHOTS, FURTHER, COPIES = 4, 12, 6
GRID = list(itertools.product((0, 0.25, 0.5, 0.75, 1), (0.04, 0.05, 0.06, 0.07), (4, 8, 12, 20), (0.03, 0.05, 0.07)))
Scores = dict[str, list[float]]  # log scores by kind


def measured(product: str, draw: int) -> Iterator[tuple[str, float]]:
    """(kind, log score) of one product and draw."""
    files = drawn_good_files(product, draw)
    learned = [load_image(file) for file in files[:SHOTS]]
    further = [load_image(file) for file in files[SHOTS:][-FURTHER:]]
    inspector = Inspector().fit(learned)
    model = inspector.model_
    framing = model.framing_of(None)
    for number, image in enumerate(learned):
        features = model.encoder.encode(framing.frame(image).encoder_input[None]).with_categories([""])
        others = [i for i in range(SHOTS) if i != number]
        for out in (1, 2, 3):
            for more in itertools.combinations(others, out - 1):
                (score,), _ = detector_scores(WithoutImages(model.detector, (number, *more)), features)
                yield f"left out {out} of image {number}", math.log(float(score))
    for image in further:
        yield "further", math.log(inspector.inspect(image).score)
    alone = Inspector().fit(learned[:1])
    for copy in slight_copies(learned[0], COPIES, seed=0):
        yield "copy", math.log(alone.inspect(copy).score)
    for image in further:
        yield "further alone", math.log(alone.inspect(image).score)


def rows_of(product: str, draw: int) -> list[tuple[str, str]]:
    """What `measured` gives, as it is written."""
    return [(kind, f"{score:.5f}") for kind, score in measured(product, draw)]


def read() -> dict[tuple[str, str], Scores]:
    """Log scores by kind, by product and draw; those with some left out averaged over which."""
    found: dict[tuple[str, str], Scores] = defaultdict(lambda: defaultdict(list))
    for row in read_rows(RESULTS):
        found[row["product"], row["draw"]][row["kind"]].append(float(row["log_score"]))
    for scores in found.values():
        for out in (1, 2, 3):
            kinds = [f"left out {out} of image {number}" for number in range(SHOTS)]
            scores[f"left out {out}"] = [float(np.mean(scores[kind])) for kind in kinds]
    return found


def tail(scores: Scores, shrinkage: float, std: float, weight: float, bias: float) -> TailModel:
    """What the held-out scores of one draw say of further images."""
    one, two = np.array(scores["left out 1"]), np.array(scores["left out 2"])
    slope = max(0.0, float((two - one).mean())) / math.log((SHOTS - 1) / (SHOTS - 2))
    corrected = one - shrinkage * slope * math.log(SHOTS / (SHOTS - 1))
    return TailModel.of(np.exp(corrected), TailPrior(std, weight, bias))


def likelihood(scores: Scores, choice: tuple[float, ...]) -> float:
    model = tail(scores, *choice)
    standard = (np.array(scores["further"]) - model.mean) / model.scale
    return float(student.logpdf(standard, model.freedom).mean() - math.log(model.scale))


def fit() -> None:
    found = read()
    products = sorted({product for product, _ in found})
    table = {(choice, key): likelihood(scores, choice) for choice in GRID for key, scores in found.items()}

    def best(keys: list[tuple[str, str]]) -> tuple[float, ...]:
        return max(GRID, key=lambda choice: sum(table[choice, key] for key in keys))

    print("left out     shrinkage, std, weight, bias_std    further images over the limit (5 % accepted)")
    kept = []
    for product in products:
        choice = best([key for key in found if key[0] != product])
        own = [scores for key, scores in found.items() if key[0] == product]
        over = [float(np.mean(np.exp(s["further"]) > tail(s, *choice).bound(0.05))) for s in own]
        kept += over
        print(f"{product:12} {choice}    {np.mean(over):.3f}")
    print(f"mean over the limit: {np.mean(kept):.3f}; chosen on all: {best(list(found))}")
    offsets = [np.mean(s["further alone"]) - np.mean(s["copy"]) for s in found.values()]
    inner = [np.std(s["further alone"], ddof=1) for s in found.values()]
    print(
        f"copies: further images lie {np.mean(offsets):.3f} ± {np.std(offsets, ddof=1):.3f} above; "
        f"they scatter by {np.sqrt(np.mean(np.square(inner))):.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("scores", "fit"))
    parser.add_argument("--products", nargs="*", default=list(WITH_FURTHER))
    parser.add_argument("--draws", nargs="*", type=int, default=[0, 1])
    options = parser.parse_args()
    if options.what == "scores":
        keys = ((product, draw) for draw, product in itertools.product(options.draws, options.products))
        add_missing(RESULTS, HEAD, keys, rows_of)
    else:
        fit()


if __name__ == "__main__":
    main()
