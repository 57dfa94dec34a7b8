"""Draws overlay.jpg beside this file: a made-up flange with a made-up scratch, found by blemish: python overlay.py"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from blemish import Inspector
from blemish.report import draw_overlay

HEIGHT, WIDTH, FINER = 480, 560, 3  # drawn FINER times larger, then averaged down for smooth edges


def flange(seed: int, scratched: bool = False) -> np.ndarray:
    """A turned metal flange with six bolt holes, somewhere on a dark mat, in any pose: `(HEIGHT, WIDTH, 3)` uint8."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: HEIGHT * FINER, : WIDTH * FINER].astype(np.float32) / FINER
    light = 1 + 0.08 * (x / WIDTH - 0.5) - 0.12 * (y / HEIGHT - 0.5)
    x0, y0 = WIDTH / 2 + random.uniform(-40, 40), HEIGHT / 2 + random.uniform(-25, 25)
    turn = random.uniform(0, 2 * np.pi)
    x, y = x - x0, y - y0
    radius, angle = np.hypot(x, y), np.arctan2(y, x) - turn
    metal = 150 + 7 * np.sin(radius * 1.7) + 14 * np.cos(2 * (angle + turn))  # grooves of turning, sheen
    metal = np.where((radius > 148) & (radius < 160), metal + 25, metal)  # chamfer
    metal = np.where((radius > 58) & (radius < 68), metal - 30, metal)  # seat
    solid = (radius < 160) & (radius > 45)
    for bolt in range(6):
        at = turn + bolt * np.pi / 3
        hole = np.hypot(x - 108 * np.cos(at), y - 108 * np.sin(at))
        metal = np.where(hole < 21, metal + 22, metal)
        solid &= hole > 15
    if scratched:
        across, along = y + 0.55 * x + 92, x - 0.35 * y  # a curved line on the flange's upper half
        across = across + 0.003 * along**2
        depth = np.exp(-0.5 * (across / 1.4) ** 2) * ((along > -25) & (along < 62))
        metal = metal + 75 * depth
    colour = np.stack([metal, metal * 1.01, metal * 1.04], axis=-1)
    image = np.where(solid[..., None], colour, np.array([38, 46, 54], dtype=np.float32)) * light[..., None]
    image = image.reshape(HEIGHT, FINER, WIDTH, FINER, 3).mean(axis=(1, 3))
    return (image + random.normal(0, 2.5, image.shape)).clip(0, 255).astype(np.uint8)


if __name__ == "__main__":
    inspector = Inspector().fit([flange(seed) for seed in range(8)])
    image = flange(100, scratched=True)
    prediction = inspector.inspect(image)
    pair = np.hstack([image, np.full((HEIGHT, 8, 3), 255, np.uint8), draw_overlay(image, prediction)])
    Image.fromarray(pair).save(Path(__file__).with_name("overlay.jpg"), quality=88)
    good = [inspector.inspect(flange(seed)) for seed in range(200, 210)]
    print(f"{prediction.score / prediction.threshold:.2f} × the limit, {len(prediction.regions)} regions")
    print(f"{sum(answer.is_defective for answer in good)} of {len(good)} other good ones called defective")
