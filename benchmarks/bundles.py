"""Do exported bundles answer as their model does, and how much faster are they?

    python benchmarks/bundles.py --products mvtec_ad/bottle mvtec_ad/screw mpdd/metal_plate

Products are folders under BLEMISH_DATA ("data") in the MVTec AD layout. A detector (the default, or --detector) learns
from the first `--shots` good training images of RandomState(0), and is exported in each of `FORMATS`, with --force, so
that refused ones are measured as well. Each row of results/bundles.csv is one product and format: evenly drawn good and
defective test images in the model and in the bundle, with the number of `flipped` verdicts, the largest relative
difference of `score`s, the largest difference of `p_value`s, what the export found (`kept`, `factor`), megabytes,
and milliseconds of one framed image: `model_ms` (encode, score, map, verdict, no reasons) and `bundle_ms`, interleaved
with one thread each, the best of --runs. `speedup` is their ratio; a quiet machine is needed for the absolute figures.
A format that the model cannot be exported in has a row with the reason under `error`. Nothing is chosen here.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pictures import DATA
from tables import add_missing

from blemish import Inspector
from blemish.data import load_image
from blemish.errors import BlemishError
from blemish.export.bundle import ExportSettings, export_bundle
from blemish.model.fitted import FittedModel
from blemish.model.prediction import encode_frames
from blemish.preprocessing.framing import Frame
from blemish.runtime import Runtime
from blemish.scoring.detector_scores import detector_scores
from blemish.scoring.image_prediction import image_prediction
from blemish.types import Prediction

RESULTS = Path(__file__).parent / "results" / "bundles.csv"
KEY = ("product", "detector", "encoder", "shots", "images")
MEASURED = ("flipped", "score", "p_value", "kept", "factor", "megabytes", "model_ms", "bundle_ms", "speedup", "error")
HEAD = (*KEY, "format", *MEASURED)
FORMATS = {
    "onnx": ExportSettings(force=True),
    "onnx-int8": ExportSettings(force=True, int8=True),
    "openvino": ExportSettings(force=True, format="openvino"),
}


def test_files(folder: Path, count: int) -> list[Path]:
    """`count` test images, half of them good, evenly spaced over the sorted names of each kind."""
    files = sorted(path for path in (folder / "test").rglob("*") if path.is_file())
    kinds = [[path for path in files if (path.parent.name == "good") == good] for good in (True, False)]
    wanted = (count // 2, count - count // 2)
    return [
        kind[i]
        for kind, number in zip(kinds, wanted, strict=True)
        for i in np.linspace(0, len(kind) - 1, min(number, len(kind))).astype(int)
    ]


def judged(model: FittedModel, frame: Frame) -> Prediction:
    """What a bundle does for a framed image, by the model: no reasons."""
    features = encode_frames(model, [frame])[0]
    category = next(iter(model.calibrations))
    is_known = model.recogniser.recognise(features).is_known
    scores, patches = detector_scores(model.detector, features.with_categories([category or ""]))
    return image_prediction(frame, float(scores[0]), patches[0], model.calibrations[category], is_known=is_known)


def milliseconds(ways: list[Callable[[], Any]], runs: int) -> list[float]:
    """The least that each of the `ways` takes, taken in turn."""
    best = [float("inf")] * len(ways)
    for _ in range(runs):
        for i, way in enumerate(ways):
            start = time.perf_counter()
            way()
            best[i] = min(best[i], 1000 * (time.perf_counter() - start))
    return best


def rows_of(
    product: str, detector: str, encoder: str, shots: int, images: int, runs: int
) -> Iterator[tuple[object, ...]]:
    """One row a format."""
    folder = DATA / product
    good = sorted((folder / "train" / "good").iterdir())
    inspector = Inspector(detector=detector, encoder=encoder, device="cpu")
    inspector.fit([load_image(good[i]) for i in np.random.RandomState(0).permutation(len(good))[:shots]])
    model = inspector.model_
    framing = model.framing_of(next(iter(model.calibrations)))
    frames = [framing.frame(load_image(path)) for path in test_files(folder, images)]
    expected = [judged(model, frame) for frame in frames]
    with tempfile.TemporaryDirectory() as place:
        for name, settings in FORMATS.items():
            try:
                parity = export_bundle(model, Path(place) / name, settings)
            except BlemishError as error:
                yield name, *("" for _ in MEASURED[:-1]), error
                continue
            size = sum(path.stat().st_size for path in (Path(place) / name).rglob("*")) / 1e6
            runtime = Runtime(Path(place) / name, threads=1)
            found = [runtime.predict(frame) for frame in frames]
            pairs = list(zip(expected, found, strict=True))
            ours, its = milliseconds(
                [lambda: judged(model, frames[0]), lambda run=runtime: run.predict(frames[0])], runs
            )  # type: ignore[misc]
            yield (
                name,
                sum(one.verdict != other.verdict for one, other in pairs),
                f"{max(abs(other.score / parity.factor / one.score - 1) for one, other in pairs):.2e}",
                f"{max(abs(other.p_value - one.p_value) for one, other in pairs):.2e}",
                parity.is_kept,
                f"{parity.factor:.5f}",
                f"{size:.1f}",
                f"{ours:.1f}",
                f"{its:.1f}",
                f"{ours / its:.2f}",
                "",
            )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--products", nargs="+", metavar="SET/PRODUCT", default=["mvtec_ad/bottle", "mpdd/metal_plate"])
    parser.add_argument("--detector", default="auto")
    parser.add_argument("--encoder", default="auto")
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    keys = ((name, chosen.detector, chosen.encoder, chosen.shots, chosen.images) for name in chosen.products)
    add_missing(chosen.output, HEAD, keys, lambda *key: rows_of(*key, chosen.runs))


if __name__ == "__main__":
    main()
