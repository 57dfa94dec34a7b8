"""What does a threshold gain from pictures of unknown state? False alarms and misses against how many there are.

    python benchmarks/unlabelled.py scores            # measures; writes results/unlabelled_scores.csv
    python benchmarks/unlabelled.py choose            # prints what is chosen with each product left out
    python benchmarks/unlabelled.py table             # writes results/unlabelled.csv

`scores`: the default learns from 4 good training images (RandomState(draw) over the sorted names). Written are its
held-out scores, and score and largest map value of further good training images, of all good test images and of
defective ones, evenly drawn. `cells_mono` and `cells_poly` are the solar cells of the PyPI package elpv-dataset.

A trial draws a number of images with a share of defective ones, all different: good ones from the further training
images and a random half of the good test images, defective ones from the test images. The rest of the test images judge
the threshold. What cannot be drawn from a product is left out.

`choose`: shapes, sizes of defects and weight of the expected share (`Mixture` in scoring/unlabelled.py) by which the
threshold comes nearest to the 95 % quantile of all good scores, in their standard deviations (root mean square over 20
to 100 images with 0 to 20 % defects), chosen on all products but one; reported is what that choice does to the one left
out. The defaults are what is chosen on all.

`table`: a row for each product, draw, number of images and share of defects, mean over the trials: rates as `blemish
evaluate` gives them (an unsure part counts half), `called_defective` without unsure ones, and in `uniform` the share of
trials in which the p-values of the good images that judge pass for uniform (Kolmogorov-Smirnov, p > .05).
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pictures import WITH_FURTHER, drawn_good_files, folder_of
from scipy.stats import kstest
from tables import add_missing, read_rows

from blemish import Inspector
from blemish.data import load_image
from blemish.data.elpv import solar_cells
from blemish.errors import DatasetError
from blemish.metrics.calibration import false_alarm_rate, miss_rate, oracle_miss_rate, verdict_rate
from blemish.scoring.calibration import LEFT_OUT, Calibration, CalibrationSource
from blemish.scoring.unlabelled import Mixture, fit_unlabelled

RESULTS = Path(__file__).parent / "results"
SCORES, TABLE = RESULTS / "unlabelled_scores.csv", RESULTS / "unlabelled.csv"
SCORED = ("product", "draw", "kind", "score", "peak")
CELLS = {"cells_mono": "mono", "cells_poly": "poly"}
PRODUCTS = (*WITH_FURTHER, *CELLS)
SHOTS, FURTHER, TEST, DEFECTIVE = 4, 200, 60, 45
RATE = 0.05
NUMBERS, SHARES, EXPECTED = (10, 20, 50, 100, 200), (0.0, 0.05, 0.1, 0.2), 0.1
WRONGLY_EXPECTED = (0.05, 0.2)  # of a tenth of defects among fifty
KEYS = ("product", "draw", "images", "defects", "expected", "trials")
RATES = ("false_alarm_rate", "called_defective", "miss_rate", "oracle_miss_rate", "unsure_rate")
HEAD = (*KEYS, *RATES, "uniform", "estimated_defects", "refused")
CHOICES = {
    (shapes, sizes, weight): Mixture(
        shapes={"normal": (math.inf,), "skew": (2.0,), "several": Mixture().shapes}[shapes],
        defects={"3 to 14": Mixture().defects, "5 to 14": Mixture().defects[1:], "5": ((5.0, 2.0),)}[sizes],
        expected_weight=weight,
    )
    for shapes, sizes, weight in itertools.product(
        ("normal", "skew", "several"), ("3 to 14", "5 to 14", "5"), (5.0, 10.0, 20.0, 40.0)
    )
}


@dataclass(frozen=True, eq=False)
class Measured:
    """Scores and largest map values `(n, 2)` of one product and draw, by kind."""

    held_out: np.ndarray
    further: np.ndarray
    good: np.ndarray
    defective: np.ndarray

    def calibration(self) -> Calibration:
        """That of the model that learned from `SHOTS` images."""
        source = CalibrationSource(SHOTS, SHOTS, folds=SHOTS)
        return Calibration.of(*self.held_out.T, RATE, source).at(RATE)

    def trials(self, number: int, defects: float, count: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Images of unknown state, and good and defective ones that judge; none where there are too few images."""
        for trial in range(count):
            random = np.random.default_rng([trial, number, round(1000 * defects)])
            good, defective = random.permutation(self.good), random.permutation(self.defective)
            half, bad = (len(good) + 1) // 2, round(number * defects)
            pool = random.permutation(np.concatenate([self.further, good[half:]]))
            if number - bad > len(pool) or 2 * bad > len(defective):
                return
            yield np.concatenate([pool[: number - bad], defective[:bad]]), good[:half], defective[bad:]


def images_of(product: str, draw: int) -> tuple[list[Path], list[Path], list[Path], list[Path]]:
    """Good images to learn from, further good ones, good ones to test, and defective ones."""
    if product in CELLS:
        cells = [cell for cell in solar_cells() if cell.category == CELLS[product]]
        good, bad = (
            [Path(str(cell.image)) for cell in cells if cell.defect == defect] for defect in ("", "probability 1.00")
        )
        good, bad = ([some[i] for i in np.random.RandomState(draw).permutation(len(some))] for some in (good, bad))
        return good[:SHOTS], good[SHOTS:][:FURTHER], good[SHOTS + FURTHER :][:TEST], bad[:DEFECTIVE]
    files = drawn_good_files(product, draw)
    kinds = sorted(folder for folder in (folder_of(product) / "test").iterdir() if folder.is_dir())
    tests = {kind.name: sorted(kind.iterdir()) for kind in kinds}
    good = tests.pop("good")
    bad = [file for some in tests.values() for file in some]
    evenly = np.unique(np.linspace(0, len(bad) - 1, DEFECTIVE).astype(int))
    return (
        files[:SHOTS],
        files[SHOTS:][:FURTHER],
        good,
        [bad[i] for i in evenly],
    )


def measured(product: str, draw: int) -> Iterator[tuple[str, float, float]]:
    """(kind, score, largest map value) of one product and draw."""
    learned, *others = images_of(product, draw)
    inspector = Inspector().fit([load_image(file) for file in learned])
    (calibration,) = inspector.calibrations.values()
    for score, peak in zip(calibration.scores, calibration.peaks, strict=True):
        yield "held out", score, peak
    for kind, files in zip(("further", "good", "defective"), others, strict=True):
        for file in files:
            found = inspector.inspect(load_image(file))
            yield kind, found.score, float(found.map.max())


def rows_of(product: str, draw: int) -> list[tuple[str, str, str]]:
    """What `measured` gives, as it is written."""
    return [(kind, f"{score:.7g}", f"{peak:.7g}") for kind, score, peak in measured(product, draw)]


def read() -> dict[tuple[str, int], Measured]:
    """What was measured, by product and draw."""
    found: dict[tuple[str, int], dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in read_rows(SCORES):
        found[row["product"], int(row["draw"])][row["kind"]].append((float(row["score"]), float(row["peak"])))
    return {
        key: Measured(*(np.array(by_kind[kind]) for kind in ("held out", "further", "good", "defective")))
        for key, by_kind in found.items()
    }


def choose(count: int) -> None:
    """Print what is chosen with each product left out, and what that does to it."""
    errors: dict[tuple[tuple[str, str, float], str], list[float]] = defaultdict(list)
    for (product, _), scores in read().items():
        good = np.log(np.concatenate([scores.further, scores.good])[:, 0])
        aim, std = np.quantile(good, 1 - RATE), good.std()
        for number, defects in itertools.product((20, 50, 100), SHARES):
            for unlabelled, _, _ in scores.trials(number, defects, count):
                for choice, mixture in CHOICES.items():
                    fitted = fit_unlabelled(
                        unlabelled[:, 0], scores.held_out[:, 0], LEFT_OUT, EXPECTED, is_checked=False, mixture=mixture
                    )
                    errors[choice, product].append((math.log(fitted.tail.bound(RATE)) - aim) / std)
    products = sorted({product for _, product in errors})

    def rms(choice: tuple[str, str, float], some: Sequence[str]) -> float:
        return float(np.sqrt(np.mean([np.mean(np.square(errors[choice, product])) for product in some])))

    def best(some: Sequence[str]) -> tuple[str, str, float]:
        return min(CHOICES, key=lambda choice: rms(choice, some))

    print("left out      shapes, sizes, weight        error of the threshold: root mean square, mean")
    kept = []
    for product in products:
        choice = best([other for other in products if other != product])
        kept.append(rms(choice, [product]))
        print(f"{product:12}  {choice}    {kept[-1]:.2f}, {np.mean(errors[choice, product]):+.2f}")
    print(f"root mean square of those left out: {np.sqrt(np.mean(np.square(kept))):.3f}")
    for choice in sorted(CHOICES, key=lambda choice: rms(choice, products)):
        print(f"all products  {choice}    {rms(choice, products):.3f}")


def row_of(scores: Measured, number: int, defects: float, expected: float, count: int) -> dict[str, float] | None:
    """The mean over the trials, None where there are too few images."""
    before = scores.calibration()
    found: dict[str, list[float]] = defaultdict(list)
    for unlabelled, good, defective in scores.trials(number, defects, count):
        calibration = before
        if number:
            try:
                calibration = before.with_unlabelled(*unlabelled.T, expected)
                found["refused"].append(0)
            except DatasetError:
                found["refused"].append(1)
        judging = np.concatenate([good, defective])[:, 0]
        labels = np.repeat([0, 1], [len(good), len(defective)])
        verdicts = [calibration.verdict(score) for score in judging]
        found["false_alarm_rate"].append(false_alarm_rate(verdicts, labels))
        found["called_defective"].append(verdict_rate(verdicts[: len(good)], "defective"))
        found["miss_rate"].append(miss_rate(verdicts, labels))
        found["oracle_miss_rate"].append(oracle_miss_rate(judging, labels, RATE))
        found["unsure_rate"].append(verdict_rate(verdicts, "unsure"))
        p_values = [calibration.p_value(score) for score in good[:, 0]]
        found["uniform"].append(float(kstest(p_values, "uniform").pvalue > 0.05))
        found["estimated_defects"].append(calibration.estimated_defects or 0.0)
    if not found["uniform"]:
        return None
    return {"trials": len(found["uniform"])} | {
        name: float(np.mean(values)) for name, values in found.items() if values
    }


def conditions() -> Iterator[tuple[int, float, float]]:
    """(number of images, share of defects, expected share)."""
    yield 0, 0.0, EXPECTED
    for number, defects in itertools.product(NUMBERS, SHARES):
        yield number, defects, EXPECTED
    for expected in WRONGLY_EXPECTED:
        yield 50, 0.1, expected


def write_table(count: int) -> None:
    """Write the rows of all products and draws, and print their means."""
    rows: list[Mapping[str, object]] = []
    for (product, draw), scores in read().items():
        for number, defects, expected in conditions():
            found = row_of(scores, number, defects, expected, count)
            if found is not None:
                key = {"product": product, "draw": draw, "images": number, "defects": defects, "expected": expected}
                rows.append(key | found)
        print(product, draw, flush=True)
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, HEAD, lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({name: short(value) for name, value in row.items()})


def short(value: object) -> object:
    """A measure with four digits behind the point."""
    return f"{value:.4g}" if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("scores", "choose", "table"))
    parser.add_argument("--products", nargs="+", choices=PRODUCTS, default=list(PRODUCTS))
    parser.add_argument("--draws", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--trials", type=int, default=8, help="of each product, draw, number and share of defects")
    arguments = parser.parse_args()
    if arguments.command == "scores":
        keys = ((product, draw) for draw, product in itertools.product(arguments.draws, arguments.products))
        add_missing(SCORES, SCORED, keys, rows_of)
    elif arguments.command == "choose":
        choose(arguments.trials)
    else:
        write_table(arguments.trials)


if __name__ == "__main__":
    main()
