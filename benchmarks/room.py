"""How far may a threshold from few images move up into the room that small defects leave above good scores?

    python benchmarks/room.py scores                  # measures; writes results/room.csv
    python benchmarks/room.py choose                  # the choice on all products, and with each left out

The default learns from 4 good *training* images (RandomState(draw) over the sorted names). Written are the mean of
its held-out scores and how far the threshold lies above it ("mean", "margin"), the gains of small defects on these
images ("gain"), all as logarithms, and log scores of up to 8 further good training images
("further") and of the same with small defects made up on them anew ("defect"). No test image is looked at.

`choose`: which quantile of the gains the room reaches up to, and which share of it the threshold moves up, over a
grid: the pair with the fewest false alarms among those that miss at most `MISSED` more of the further images' defects
than the threshold left where it is. So far the answer is none: small defects come in all sizes, and where the threshold
moves up it loses some (docs/methods/calibration.md).
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from pictures import WITH_FURTHER, drawn_good_files
from tables import add_missing, read_rows

from blemish import Inspector
from blemish.augmentation.small_defects import SMALL_DEFECTS
from blemish.data import load_image
from blemish.preprocessing.foreground import from_pixels

RESULTS = Path(__file__).parent / "results" / "room.csv"
HEAD = ("product", "draw", "kind", "value")
SHOTS, FURTHER = 4, 8
MISSED = 0.01  # share of small defects that fewer false alarms may cost
GRID = list(
    itertools.product((0.1, 0.25, 0.5), (0.0, 0.25, 0.5, 0.75, 1.0))
)  # quantile of the gains, share of the room
Values = dict[str, np.ndarray]  # by kind


def measured(product: str, draw: int) -> Iterator[tuple[str, float]]:
    """(kind, value) of one product and draw."""
    files = drawn_good_files(product, draw)
    inspector = Inspector().fit([load_image(file) for file in files[:SHOTS]])
    (calibration,) = inspector.calibrations.values()
    mean = float(np.log(calibration.scores).mean())
    yield "mean", mean
    yield "margin", math.log(calibration.threshold) - mean
    for gain in calibration.defect_gains:
        yield "gain", float(gain)
    random = np.random.default_rng((draw, 1))
    for file in files[SHOTS:][-FURTHER:]:
        image = load_image(file)
        yield "further", math.log(inspector.inspect(image).score)
        foreground = from_pixels(image)
        for make in SMALL_DEFECTS.values():
            yield "defect", math.log(inspector.inspect(make(image, foreground, random)).score)


def rows_of(product: str, draw: int) -> list[tuple[str, str]]:
    """What `measured` gives, as it is written."""
    return [(kind, f"{value:.5f}") for kind, value in measured(product, draw)]


def read() -> dict[tuple[str, str], Values]:
    """Values by kind, by product and draw."""
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in read_rows(RESULTS):
        found[row["product"], row["draw"]][row["kind"]].append(float(row["value"]))
    return {key: {kind: np.array(some) for kind, some in values.items()} for key, values in found.items()}


def rates(values: Values, least: float, share: float) -> tuple[float, float]:
    """False alarms and misses among further images at the threshold moved up by `share` of the room."""
    (mean,), (margin,) = values["mean"], values["margin"]
    room = max(0.0, float(np.quantile(values["gain"], least)) - margin)
    threshold = mean + margin + share * room
    return float(np.mean(values["further"] > threshold)), float(np.mean(values["defect"] <= threshold))


def mean_rates(some: Iterable[Values], choice: tuple[float, float]) -> tuple[float, float]:
    alarms, misses = np.mean([rates(values, *choice) for values in some], axis=0)
    return float(alarms), float(misses)


def best(some: list[Values]) -> tuple[float, float]:
    """Fewest false alarms, then fewest misses, among the choices that miss hardly more than none does."""
    found = {choice: mean_rates(some, choice) for choice in GRID}
    fewest = min(misses for _, misses in found.values())
    return min((c for c in GRID if found[c][1] <= fewest + MISSED), key=lambda choice: found[choice])


def choose() -> None:
    found = read()
    print("left out     least, share   false alarms, missed (share 0 -> chosen)")
    kept = []
    for product in dict.fromkeys(product for product, _ in found):
        own = [values for (name, _), values in found.items() if name == product]
        choice = best([values for (name, _), values in found.items() if name != product])
        before, after = mean_rates(own, (0.5, 0.0)), mean_rates(own, choice)
        kept.append((*before, *after))
        print(f"{product:12} {choice}   {before[0]:.3f} {before[1]:.3f} -> {after[0]:.3f} {after[1]:.3f}")
    print(
        "means: {:.3f} {:.3f} -> {:.3f} {:.3f}".format(*np.mean(kept, axis=0)),
        f"chosen on all: {best([*found.values()])}",
    )
    for choice in GRID:
        print(choice, "{:.3f} {:.3f}".format(*mean_rates(found.values(), choice)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=("scores", "choose"))
    parser.add_argument("--products", nargs="+", default=list(WITH_FURTHER))
    parser.add_argument("--draws", nargs="+", type=int, default=[0, 1])
    chosen = parser.parse_args()
    if chosen.task == "choose":
        choose()
        return
    keys = ((product, draw) for draw, product in itertools.product(chosen.draws, chosen.products))
    add_missing(RESULTS, HEAD, keys, rows_of)


if __name__ == "__main__":
    main()
