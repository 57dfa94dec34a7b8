"""After how many parts does the line's alarm notice darker, blurred or moved pictures, and how often is it false?

    python benchmarks/drift.py --products mvtec_ad/bottle mvtec_ad_fewshot/metal_nut --encoder efficientnet-lite0

Products are folders under BLEMISH_DATA ("data") in the MVTec AD layout. A detector learns from the first `--shots` good
training images of RandomState(0). `--pictures` further good images, training ones after those and good test ones, are
changed in each of `CHANGES`, scored and measured. Nothing is made up of them: a stream is drawn from these with
replacement, which makes it exchangeable, as the alarm assumes; its reference of `--shots` images is drawn from the same
unchanged ones. So false alarms are those of the test itself; how far new parts are from the learned ones is not in it.

Each row of results/drift.csv is a product and a change that begins after `BEFORE` good parts: in how many of the
`--streams` it was `found` within `AFTER` parts, the median and the largest number of parts until then, the cause named
first, and in how many of the found ones it was that cause. Rows "none" are streams of `--good` unchanged parts: `found`
counts streams with any false alarm. Rows "in order" are the further images themselves, once each, in the order of their
names, against the learned ones: what a real line would have met, autocorrelation included.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from pictures import DATA
from PIL import Image, ImageFilter
from tables import add_missing

from blemish import Inspector
from blemish.data import load_image
from blemish.monitoring.image_statistics import ImageStatistics, statistics_of
from blemish.monitoring.line_monitor import LineMonitor

RESULTS = Path(__file__).parent / "results" / "drift.csv"
HEAD = ("product", "change", "amount", "streams", "found", "parts_median", "parts_most", "cause", "named")
BEFORE, AFTER = 200, 300  # good parts before a change, and changed ones after which a stream ends
Measured = tuple[float, ImageStatistics]


def darker(image: np.ndarray, share: float) -> np.ndarray:
    return (image * (1 - share) + 0.5).astype(np.uint8)


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


def moved(image: np.ndarray, pixels: float) -> np.ndarray:
    """To the left; the right edge is repeated."""
    return np.pad(image, ((0, 0), (0, int(pixels)), (0, 0)), mode="edge")[:, int(pixels) :]


CHANGES: dict[str, tuple[Callable[[np.ndarray, float], np.ndarray], tuple[float, ...]]] = {
    "darker": (darker, (0.05, 0.1, 0.2)),
    "blurred": (blurred, (0.5, 1.0, 2.0)),
    "moved": (moved, (2.0, 5.0, 10.0)),
}


class Product:
    """A fitted model, and the further good images of a product."""

    def __init__(self, product: str, encoder: str, detector: str, shots: int, pictures: int) -> None:
        folder = DATA / product
        files = sorted((folder / "train" / "good").iterdir())
        files = [files[i] for i in np.random.RandomState(0).permutation(len(files))]
        further = sorted([*files[shots:], *sorted((folder / "test" / "good").iterdir())])
        chosen = np.linspace(0, len(further) - 1, min(pictures, len(further))).astype(int)
        self.images = [load_image(further[i]) for i in chosen]
        self.inspector = Inspector(encoder=encoder, detector=detector, device="cpu").fit(files[:shots])
        self.learned = [statistics_of(load_image(file)) for file in files[:shots]]
        self.good = self.measured(lambda image: image)

    def measured(self, change: Callable[[np.ndarray], np.ndarray]) -> list[Measured]:
        """Score and statistics of each further image after a `change`."""
        changed = [change(image) for image in self.images]
        scores = [self.inspector.inspect(image).score for image in changed]
        return [(score, statistics_of(image)) for score, image in zip(scores, changed, strict=True)]


def started(pool: list[Measured], shots: int, rng: np.random.Generator, seed: int) -> LineMonitor:
    """A monitor whose reference is drawn from `pool`."""
    drawn = [pool[i] for i in rng.integers(len(pool), size=shots)]
    return LineMonitor.started([one for _, one in drawn], [score for score, _ in drawn], seed)


def parts_until(monitor: LineMonitor, pool: list[Measured], most: int, rng: np.random.Generator) -> int | None:
    """How many parts drawn from `pool` it takes to the first alarm; None if there is none within `most`."""
    for count, place in enumerate(rng.integers(len(pool), size=most), start=1):
        if monitor.add(*pool[place]):
            return count
    return None


def row(found: list[int], causes: Counter[str], streams: int) -> tuple[object, ...]:
    (cause, named), *_ = causes.most_common(1) or [("", 0)]
    return streams, len(found), f"{np.median(found):g}" if found else "", max(found, default=""), cause, named


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", nargs="+", default=["mvtec_ad/bottle", "mvtec_ad_fewshot/metal_nut"])
    parser.add_argument("--encoder", default="efficientnet-lite0")
    parser.add_argument("--detector", default="patchcore")
    parser.add_argument("--shots", type=int, default=20)
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--good", type=int, default=10_000)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    amounts = [("in order", 0.0), *((kind, amount) for kind, (_, some) in CHANGES.items() for amount in some)]
    for name in arguments.products:
        product: list[Product] = []  # fitted when the first row needs it

        def measured(_: str, change: str, amount: float, name: str = name, product: list = product) -> Iterator[tuple]:
            if not product:
                product.append(
                    Product(name, arguments.encoder, arguments.detector, arguments.shots, arguments.pictures)
                )
            good, rng = product[0].good, np.random.default_rng(0)
            if change == "in order":
                monitor = LineMonitor.started(product[0].learned)
                found = [place for place, one in enumerate(good, start=1) if monitor.add(*one)]
                causes = Counter(alarm.cause for alarm in monitor.alarms)
                yield row(found[:1], causes, 1)
                return
            pool = good
            if change != "none":
                way = CHANGES[change][0]
                pool = product[0].measured(lambda image: way(image, amount))
            found, causes = [], Counter[str]()
            for seed in range(arguments.streams):
                monitor = started(good, arguments.shots, rng, seed)
                while change != "none" and parts_until(monitor, good, BEFORE, rng) is not None:
                    monitor = started(good, arguments.shots, rng, seed)  # a false alarm would hide the change
                after = parts_until(monitor, pool, arguments.good if change == "none" else AFTER, rng)
                if after is not None:
                    found.append(after)
                    causes[monitor.alarms[0].cause] += 1  # a statistic of the picture comes before the score
            yield row(found, causes, arguments.streams)

        keys = [(name, kind, amount) for kind, amount in [*amounts, ("none", 0.0)]]
        add_missing(arguments.results, HEAD, keys, measured)


if __name__ == "__main__":
    main()
