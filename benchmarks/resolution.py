"""Does the same picture at another resolution get the same verdict, and what do strips cost?

`python benchmarks/resolution.py`: the default learns from 4 good training images (RandomState(0)) of a product; test
images, good and defective, are inspected as they are and scaled by each factor (Lanczos). Rows of
results/resolution.csv: the share of images with the same verdict (of good, unsure, defective), with the same alarm
(defective or not), with a note on their resolution, and mean and standard deviation of the change of log scores.

`--strip`: strips 512 pixels wide and 16,000 long of mirrored pictures of carpet, no picture in two strips; the default
learns from 4 and inspects others with and without a dark spot 40 pixels across. Rows of results/strips.csv: scores,
whether the spot is outlined, processor seconds a strip (one thread), and the largest memory of the process.

`--aspects`: seconds an image of one area in shapes 1:1, 1:2, 1:4 and 4:1. Rows of results/aspects.csv.

Nothing is chosen here.
"""

from __future__ import annotations

import argparse
import csv
import resource
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pictures import DATA, drawn_good_files, folder_of, good_files
from PIL import Image
from tables import read_rows

from blemish import Inspector, Prediction
from blemish.data import load_image
from blemish.errors import DataWarning

RESULTS = Path(__file__).parent / "results"
CARPET, SPLITS = DATA / "mvtec_ad_testonly" / "carpet", ("train", "test")
STRIP = 512, 16_000  # pixels
SPOT, DARKENED = 40, 0.6  # pixels across; of its brightness
ASPECTS = {"1:1": (512, 512), "1:2": (362, 724), "1:4": (256, 1024), "4:1": (1024, 256)}  # (height, width)


def write_rows(name: str, rows: Iterator[Mapping[str, Any]], fixed: str) -> None:
    """Rows into results/NAME.csv as they come; rows there of other values of the column `fixed` stay."""
    path = RESULTS / name
    old = read_rows(path)
    new: list[dict[str, str]] = []
    for row in rows:
        new.append({key: str(value) for key, value in row.items()})
        print(*new[-1].values(), sep="  ", flush=True)
        values = {each[fixed] for each in new}
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(row), extrasaction="ignore", lineterminator="\n")
            table.writeheader()
            table.writerows([each for each in old if each.get(fixed) not in values] + new)


def scaled(image: np.ndarray, factor: float) -> np.ndarray:
    size = round(factor * image.shape[1]), round(factor * image.shape[0])
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def test_files(product: str, count: int) -> list[Path]:
    """Evenly drawn good and defective test images, `count` of each."""
    folders = sorted((folder_of(product) / "test").iterdir())
    good = sorted(path for folder in folders if folder.name == "good" for path in folder.iterdir())
    bad = sorted(path for folder in folders if folder.name != "good" for path in folder.iterdir())
    return [some[i] for some in (good, bad) for i in np.linspace(0, len(some) - 1, min(count, len(some))).astype(int)]


def inspected(inspector: Inspector, image: np.ndarray) -> tuple[Prediction, bool]:
    """The prediction, and whether a note was given on the image's resolution."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        found = inspector.inspect(image)
    kinds = [each.message.kind for each in given if isinstance(each.message, DataWarning)]
    return found, "resolution" in kinds


def compared(product: str, factors: list[float], count: int) -> Iterator[dict[str, Any]]:
    """One row a factor, for good and for defective images together."""
    inspector = Inspector().fit(drawn_good_files(product, 0)[:4])
    images = [load_image(path) for path in test_files(product, count)]
    plain = [inspector.inspect(image) for image in images]
    for factor in factors:
        found = [inspected(inspector, scaled(image, factor)) for image in images]
        pairs = [(one, other) for one, (other, _) in zip(plain, found, strict=True)]
        changes = np.log([other.score / one.score for one, other in pairs])
        yield {
            "product": product,
            "factor": factor,
            "images": len(images),
            "same_verdict": f"{np.mean([one.verdict == other.verdict for one, other in pairs]):.3f}",
            "same_alarm": f"{np.mean([one.is_defective == other.is_defective for one, other in pairs]):.3f}",
            "noted": f"{np.mean([noted for _, noted in found]):.3f}",
            "log_score_change": f"{changes.mean():+.4f}",
            "log_score_std": f"{changes.std():.4f}",
        }


def strip(pieces: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """A strip `(512, 16000, 3)` uint8 of square textures, each followed by its mirror image, in random order."""
    random = np.random.default_rng(seed)
    height, length = STRIP
    found: list[np.ndarray] = []
    while sum(each.shape[1] for each in found) < length:
        piece = Image.fromarray(pieces[random.integers(len(pieces))]).resize((height, height), Image.Resampling.LANCZOS)
        image = np.asarray(piece)[:: random.choice([-1, 1])]
        found += [image, image[:, ::-1]]
    return np.concatenate(found, axis=1)[:, :length].copy()


def with_spot(image: np.ndarray, seed: int) -> tuple[np.ndarray, tuple[int, int]]:
    """The image with a disc `SPOT` pixels across, darkened to `DARKENED`, and the disc's centre (x, y)."""
    random = np.random.default_rng(seed)
    height, length = image.shape[:2]
    x, y = int(random.integers(SPOT, length - SPOT)), int(random.integers(SPOT, height - SPOT))
    down, across = np.mgrid[:height, :length]
    inside = np.hypot(down - y, across - x) < SPOT / 2
    image = image.copy()
    image[inside] = (DARKENED * image[inside]).astype(np.uint8)
    return image, (x, y)


def strips(count: int) -> Iterator[dict[str, Any]]:
    """One row a strip, without and with a spot."""
    train, test = ([load_image(path) for path in sorted((CARPET / split / "good").iterdir())] for split in SPLITS)
    started = time.process_time()
    inspector = Inspector().fit([strip(train[seed::4], seed) for seed in range(4)])  # no picture in two strips
    fit_seconds = time.process_time() - started
    for seed in range(count):
        good = strip(test[seed::count], 100 + seed)
        spotted, (x, y) = with_spot(good, seed)
        for image in (good, spotted):
            started = time.process_time()
            found = inspector.inspect(image)
            seconds = time.process_time() - started
            boxes = [region.box for region in found.regions]
            outlined = any(left <= x < right and top <= y < bottom for left, top, right, bottom in boxes)
            yield {
                "pixels": f"{image.shape[1]}x{image.shape[0]}",
                "strip": seed,
                "spot": SPOT if image is spotted else 0,
                "verdict": found.verdict,
                "score": f"{found.score:.3f}",
                "threshold": f"{found.threshold:.3f}",
                "regions": len(boxes),
                "spot_outlined": outlined if image is spotted else "",
                "cpu_seconds": f"{seconds:.1f}",
                "fit_cpu_seconds": f"{fit_seconds:.0f}",
                "peak_memory_gib": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f}",
            }


def aspects(rounds: int) -> Iterator[dict[str, Any]]:
    """One row a shape: pieces of leather of the same area, inspected in turn so that all meet the same load."""
    pieces = [load_image(path) for path in good_files("leather")]
    wide = np.concatenate([piece[:, :: (-1) ** i] for i, piece in enumerate(pieces)], axis=1)  # (512, 2048, 3)
    sheet = np.concatenate([wide, wide[::-1]])  # (1024, 2048, 3)
    images = {
        name: [sheet[:height, 20 * i : 20 * i + width].copy() for i in range(4)]
        for name, (height, width) in ASPECTS.items()
    }
    inspectors = {name: Inspector().fit(some) for name, some in images.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ASPECTS}
    for _ in range(rounds):
        for name, inspector in inspectors.items():
            started = time.process_time()
            inspector.inspect(images[name][0])
            seconds[name].append(time.process_time() - started)
    first = float(np.median(seconds["1:1"]))
    for name, (height, width) in ASPECTS.items():
        middle = float(np.median(seconds[name]))
        yield {
            "aspect": name,
            "pixels": f"{width}x{height}",
            "cpu_seconds": f"{middle:.3f}",
            "of_square": f"{middle / first:.2f}",
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", nargs="*", default=["screw", "bottle", "pill"])
    parser.add_argument("--factors", nargs="*", type=float, default=[0.5, 0.75, 1.5, 2, 3])
    parser.add_argument("--images", type=int, default=10, help="good ones, and as many defective ones")
    parser.add_argument("--strip", type=int, metavar="N", nargs="?", const=3, help="N strips instead")
    parser.add_argument("--aspects", type=int, metavar="N", nargs="?", const=7, help="N rounds over shapes instead")
    options = parser.parse_args()
    if options.strip:
        write_rows("strips.csv", strips(options.strip), "pixels")
    elif options.aspects:
        write_rows("aspects.csv", aspects(options.aspects), "aspect")
    else:
        for product in options.products:
            write_rows("resolution.csv", compared(product, options.factors, options.images), "product")


if __name__ == "__main__":
    main()
