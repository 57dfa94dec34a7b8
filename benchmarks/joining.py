"""How to join the halves of `hybrid`, and how finely its transformer should look, without a test image?

    python benchmarks/joining.py scores               # measures; writes results/joining.csv
    python benchmarks/joining.py choose               # the choice on all products, and with each left out
    python benchmarks/joining.py single               # how to balance the halves from one image; prints

Learns from 4 good *training* images (RandomState(0) over the sorted names). Normal are up to 8 further good training
images, anomalous the same with the defects of augmentation/small_defects.py made up on them. Ways: "largest" joins the
pooled scores of both halves, standardised by what images that are left out score, by a soft maximum; "power P" joins
the distances patch by patch by their power mean and pools that map.
`single`: from the first image alone, how far the logarithm of the two halves' units' ratio, by turned copies and by the
median distance between neighbours in the banks, lies from that of the scores of three further images.
`image_auroc` by product, share of the transformer's patches a side (`context_scale`) and way.
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from pictures import WITH_FURTHER, drawn_good_files, learned_and_judged
from tables import add_missing, read_rows
from torch import Tensor
from torch.nn.functional import interpolate

from blemish import Inspector
from blemish.data import load_image
from blemish.detectors.hybrid import HALVES, Hybrid, as_rgb_features
from blemish.encoders.composite.two_image import JointEncoder
from blemish.metrics import auroc
from blemish.model.fitted import FittedModel
from blemish.numeric.pooling import image_score
from blemish.numeric.shrinkage import shrunk_variance

RESULTS = Path(__file__).parent / "results" / "joining.csv"
HEAD = ("product", "context_scale", "way", "image_auroc")
SHOTS, FURTHER = 4, 8
SCALES = (0.75, 1.0)
POWERS = (1, 2, 4)
PRIOR_STD, PRIOR_WEIGHT = 0.07, 6  # of a half's log scores of normal images
Distances = tuple[np.ndarray, np.ndarray]  # of both halves, (h, w) on one grid each


def measured(product: str, scale: float) -> Iterator[tuple[str, float]]:
    """(way, AUROC) of one product and scale."""
    learned, normal, anomalous = learned_and_judged(product, SHOTS, FURTHER)
    encoder = Inspector(detector="hybrid").built_encoder()
    assert isinstance(encoder, JointEncoder)
    model = Inspector(encoder=JointEncoder(encoder.parts, scale), detector="hybrid").fit(learned).model_
    assert model is not None
    left_out = [distances(model, image, (number,)) for number, image in enumerate(learned)]
    logs = np.array([[log_score(one) for one in pair] for pair in left_out])  # (SHOTS, 2)
    units = logs.mean(axis=0)  # (2,)
    stds = np.sqrt([shrunk_variance(half, PRIOR_STD, PRIOR_WEIGHT) for half in logs.T])  # (2,)

    def largest(pair: Distances) -> float:
        return float(np.logaddexp(*((np.array([log_score(one) for one in pair]) - units) / stds)))

    def power(p: float) -> Callable[[Distances], float]:
        return lambda pair: log_score(np.mean([(one / np.exp(u)) ** p for one, u in zip(pair, units, strict=True)], 0))

    ways = {"largest": largest} | {f"power {p}": power(p) for p in POWERS}
    ways |= {half: lambda pair, i=i: log_score(pair[i]) for i, half in enumerate(HALVES)}  # type: ignore[misc]
    good, bad = ([distances(model, image) for image in images] for images in (normal, anomalous))
    for way, score in ways.items():
        yield way, auroc([score(pair) for pair in good + bad], [0] * len(good) + [1] * len(bad))


def rows_of(product: str, scale: float) -> list[tuple[str, str]]:
    """What `measured` gives, as it is written."""
    return [(way, f"{value:.4f}") for way, value in measured(product, scale)]


def distances(model: FittedModel, image: np.ndarray, left_out: tuple[int, ...] = ()) -> Distances:
    """The distances of an image's patches in both halves, on the finer one's grid."""
    detector = model.detector
    assert isinstance(detector, Hybrid)
    features = model.encoder.encode(model.framing_of(None).frame(image).encoder_input[None]).with_categories([""])
    found: list[Tensor] = []
    for half, bank in detector._banks.items():
        own = as_rgb_features(features, half)
        found.append((bank.score_without(own, left_out) if left_out else bank.score(own)).patches)  # (1, h, w)
    grid = max((one.shape[1:] for one in found), key=lambda shape: shape[0] * shape[1])
    local, context = (interpolate(one[None], grid, mode="bilinear")[0, 0].numpy() for one in found)
    return local, context


def log_score(patches: np.ndarray) -> float:
    return float(np.log(max(image_score(patches, Hybrid().pooling), 1e-12)))


def choose() -> None:
    """Print the mean of each scale and way, and what is chosen with each product left out."""
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for row in read_rows(RESULTS):
        found[row["context_scale"], row["way"]][row["product"]] = float(row["image_auroc"])
    means = {key: float(np.mean(list(values.values()))) for key, values in found.items()}
    for (scale, way), mean in sorted(means.items(), key=lambda item: -item[1]):
        print(f"{scale:>6} {way:10} {mean:.4f}")
    for scale in sorted({scale for scale, _ in found}):
        candidates = {key: values for key, values in found.items() if key[0] == scale and key[1] not in HALVES}
        for out in sorted(next(iter(candidates.values()))):
            best = max(candidates, key=lambda key: np.mean([v for p, v in candidates[key].items() if p != out]).item())
            print(f"{scale:>6} without {out:12} {best[1]:10} {candidates[best][out]:.4f}")


def single(products: list[str]) -> None:
    """Print the error of the log ratio of the halves' units, from one image, for each product."""
    for product in products:
        images = [load_image(file) for file in drawn_good_files(product, 0)[:SHOTS]]
        model = Inspector(detector="hybrid").fit(images[:1]).model_
        assert model is not None
        assert isinstance(model.detector, Hybrid)
        further = np.mean([[log_score(one) for one in distances(model, image)] for image in images[1:]], axis=0)  # (2,)
        turned = np.log([model.detector.units_[half][""] for half in HALVES])  # (2,)
        neighbours = np.log([bank.banks_[""].median_nn_distance() for bank in model.detector._banks.values()])  # (2,)
        errors = [float(np.diff(units - further)[0]) for units in (turned, neighbours)]
        print(f"{product:12} turned copies {errors[0]:+.3f}  neighbours {errors[1]:+.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("scores", "choose", "single"))
    parser.add_argument("--products", nargs="+", default=list(WITH_FURTHER))
    options = parser.parse_args()
    if options.what == "scores":
        add_missing(RESULTS, HEAD, itertools.product(options.products, SCALES), rows_of)
    elif options.what == "single":
        single(options.products)
    else:
        choose()


if __name__ == "__main__":
    main()
