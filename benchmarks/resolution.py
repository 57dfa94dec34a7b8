"""Does the same picture at another resolution get the same verdict? `python benchmarks/resolution.py`

The default learns from 4 good training images (RandomState(0)) of a product; test images, good and defective, are
inspected as they are and scaled by each factor (Lanczos). Written to results/resolution.csv: the share of images whose
verdict is the same, and the mean change of log scores. Nothing is chosen here.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from pictures import folder_of, good_files
from PIL import Image

from blemish import Inspector
from blemish.data import load_image

RESULTS = Path(__file__).parent / "results" / "resolution.csv"


def scaled(image: np.ndarray, factor: float) -> np.ndarray:
    size = round(factor * image.shape[1]), round(factor * image.shape[0])
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def test_files(product: str, count: int) -> list[Path]:
    """Evenly drawn good and defective test images, `count` of each."""
    folders = sorted((folder_of(product) / "test").iterdir())
    good = sorted(path for folder in folders if folder.name == "good" for path in folder.iterdir())
    bad = sorted(path for folder in folders if folder.name != "good" for path in folder.iterdir())
    return [some[i] for some in (good, bad) for i in np.linspace(0, len(some) - 1, min(count, len(some))).astype(int)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", nargs="*", default=["screw", "bottle", "pill"])
    parser.add_argument("--factors", nargs="*", type=float, default=[0.5, 0.75, 1.5, 2, 3])
    parser.add_argument("--images", type=int, default=10, help="good ones, and as many defective ones")
    options = parser.parse_args()
    with RESULTS.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("product", "factor", "images", "same_verdict", "log_score_change"))
        for product in options.products:
            files = good_files(product)
            order = np.random.RandomState(0).permutation(len(files))
            inspector = Inspector().fit([files[i] for i in order[:4]])
            images = [load_image(path) for path in test_files(product, options.images)]
            plain = [inspector.inspect(image) for image in images]
            for factor in options.factors:
                found = [inspector.inspect(scaled(image, factor)) for image in images]
                same = np.mean([one.verdict == other.verdict for one, other in zip(plain, found, strict=True)])
                change = np.mean([np.log(other.score / one.score) for one, other in zip(plain, found, strict=True)])
                table.writerow((product, factor, len(images), f"{same:.3f}", f"{change:+.3f}"))
                file.flush()


if __name__ == "__main__":
    main()
