"""What do WinCLIP's 365 windows cost beside plain passes of the same encoder?

    python benchmarks/window_speed.py

Random weights of ViT-B/16+ at 240 pixels: what they hold costs no time. Windows of 2 × 2 and 3 × 3 patches are 2,670
tokens against 226 of a plain pass, so about 12 passes of work, but for attention. The bar is three times 12 passes.
Both run in turn, `--runs` times; the fastest run counts. Writes benchmarks/results/window_speed.csv.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tables import keep_row
from transformers import CLIPConfig, CLIPModel

from blemish.encoders.image_text.image_towers import ClipTower
from blemish.encoders.image_text.windows import SIZES, WindowFeatures

RESULTS = Path(__file__).parent / "results" / "window_speed.csv"
PASSES = 12  # plain passes with as many tokens as the windows have


def vit_b16_plus() -> ClipTower:
    """The image tower of WinCLIP's encoder, with random weights; its text tower is as small as can be."""
    torch.manual_seed(0)
    shared = {"hidden_act": "gelu", "num_hidden_layers": 12}
    vision = {"hidden_size": 896, "num_attention_heads": 14, "intermediate_size": 3584, "image_size": 240}
    text = {"hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 64, "vocab_size": 8}
    config = CLIPConfig(
        vision_config=vision | shared | {"patch_size": 16}, text_config=text | shared, projection_dim=640
    )
    return ClipTower(CLIPModel(config).eval())


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tower = vit_b16_plus()
    network, image = WindowFeatures(tower, (11,)), torch.randn(1, 3, 240, 240)
    embedded = tower.embed(image)

    def windows() -> None:
        for size in SIZES:
            network.windows(embedded, (15, 15), size)

    plain, taken = float("inf"), float("inf")
    for _ in range(1 + arguments.runs):  # the first to warm up
        plain = min(plain, seconds(lambda: tower.encode(embedded)))
        taken = min(taken, seconds(windows))
    row = {
        "threads": str(arguments.threads),
        "plain_pass_ms": f"{1000 * plain:.0f}",
        "windows_ms": f"{1000 * taken:.0f}",
        "times_12_passes": f"{taken / (PASSES * plain):.2f}",
    }
    print(row)
    keep_row(RESULTS, tuple(row), 1, row)


if __name__ == "__main__":
    main()
