"""What do fewer pixels cost `hybrid`, and what do they save? Which size should its fast setting have?

    python benchmarks/operating_points.py measure     # writes results/operating_points.csv
    python benchmarks/operating_points.py choose      # the mean of each size, and the choice with each product left out

Learns from 4 good *training* images (RandomState(0) over the sorted names). Normal are up to 8 further good training
images, anomalous the same with the defects of augmentation/small_defects.py made up on them; no test image is seen.
`image_size` is the short side that the convolutional half sees, `context_scale` the transformer's patches a side over
the convolutional half's. `image_auroc` is of these images; `cpu_ms` the processor time of an image from its pixels to
its score, on one thread, median: compare within one product.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from pictures import WITH_FURTHER, learned_and_judged
from tables import add_missing, read_rows

from blemish import Inspector
from blemish.encoders.composite.two_image import JointEncoder
from blemish.metrics import auroc
from blemish.model.fitted import FittedModel
from blemish.scoring.detector_scores import detector_scores

RESULTS = Path(__file__).parent / "results" / "operating_points.csv"
HEAD = ("product", "image_size", "context_scale", "image_auroc", "cpu_ms")
SHOTS, FURTHER = 4, 8
SIZES = ((512, 1.0), (512, 0.75), (512, 0.5), (384, 1.0), (320, 1.0), (256, 1.0))


def measured(product: str, size: int, scale: float) -> Iterator[tuple[str, str]]:
    """(AUROC, milliseconds) of one product at one size."""
    learned, normal, anomalous = learned_and_judged(product, SHOTS, FURTHER)
    encoder = Inspector(detector="hybrid").built_encoder()
    assert isinstance(encoder, JointEncoder)
    model = Inspector(JointEncoder(encoder.parts, scale), detector="hybrid", image_size=size).fit(learned).model_
    scored = [score_of(model, image) for image in normal + anomalous]
    scores, seconds = zip(*scored, strict=True)
    labels = [0] * len(normal) + [1] * len(anomalous)
    yield f"{auroc(list(scores), labels):.4f}", f"{1000 * float(np.median(seconds)):.0f}"


def score_of(model: FittedModel, image: np.ndarray) -> tuple[float, float]:
    """The score of an image, and the seconds of processor time that it takes."""
    started = time.process_time()
    frame = model.framing_of(None).frame(image)
    features = model.encoder.encode(frame.encoder_input[None]).with_categories([""])
    score = float(detector_scores(model.detector, features)[0][0])
    return score, time.process_time() - started


def choose() -> None:
    """Print the mean AUROC and the mean share of the full size's time, all products and with each left out."""
    found: dict[tuple[str, str], dict[str, tuple[float, float]]] = defaultdict(dict)
    for row in read_rows(RESULTS):
        found[row["image_size"], row["context_scale"]][row["product"]] = float(row["image_auroc"]), float(row["cpu_ms"])
    full = found["512", "1.0"]
    for key, products in sorted(found.items(), key=lambda item: -float(item[0][0]) * float(item[0][1])):
        common = sorted(products.keys() & full.keys())
        change = [products[name][0] - full[name][0] for name in common]
        cost = [products[name][1] / full[name][1] for name in common]
        worst = min(zip(change, common, strict=True))
        print(
            f"{key[0]:>4} {key[1]:>6}  AUROC {np.mean([products[n][0] for n in common]):.4f} "
            f"({np.mean(change):+.4f} against the full size, worst {worst[0]:+.3f} {worst[1]})  "
            f"time x {np.mean(cost):.2f}  of {len(common)} products"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "choose"))
    parser.add_argument("--products", nargs="+", default=list(WITH_FURTHER))
    options = parser.parse_args()
    if options.what == "choose":
        choose()
        return
    torch.set_num_threads(1)
    keys = [(product, size, scale) for product, (size, scale) in itertools.product(options.products, SIZES)]
    add_missing(RESULTS, HEAD, keys, lambda *key: list(measured(*key)))


if __name__ == "__main__":
    main()
