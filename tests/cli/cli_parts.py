"""Made-up parts, and two ways to run the program: inside this process, and as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from typer.testing import CliRunner, Result

# The encoder without weights, small images, a detector without rotations: fractions of a second.
METHOD = ("--encoder", "pixels", "--detector", "patchcore", "--image-size", "64", "--device", "cpu")
# A process that was started in the background of a shell would not.
HEARS_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"

Blemish = Callable[..., Result]
Process = Callable[..., "subprocess.CompletedProcess[str]"]


def part(kind: str, seed: int, defective: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """An image (64, 80, 3) uint8 of a disc or a ring, and the mask of the red square that a defective one carries."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :80]
    radius = np.hypot(y - 32, x - 40)
    image = np.full((64, 80, 3), 90.0)
    if kind == "disc":
        image[radius < 20] = (180, 170, 60)
    else:
        image[(radius > 12) & (radius < 24)] = (60, 90, 200)
    image += random.normal(0, 3, image.shape)
    mask = np.zeros((64, 80), dtype=bool)
    if defective:
        top, left = int(random.integers(20, 36)), int(random.integers(26, 46))
        mask[top : top + 8, left : left + 8] = True
        image[mask] = (250, 10, 10)
    return image.clip(0, 255).astype(np.uint8), mask


def write_category(folder: Path, kind: str, train: int = 6, test: int = 3) -> Path:
    """A category folder in MVTec layout: good ones, and as many with a scratch, with masks."""
    for split, state, count in (("train", "good", train), ("test", "good", test), ("test", "scratch", test)):
        (folder / split / state).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            seed = 1000 * ["train", "test"].index(split) + 100 * (state == "good") + i
            image, mask = part(kind, seed, defective=state != "good")
            Image.fromarray(image).save(folder / split / state / f"{i:03}.png")
            if state != "good":
                (folder / "ground_truth" / state).mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(folder / "ground_truth" / state / f"{i:03}_mask.png")
    return folder


def run_inside(*arguments: Any) -> Result:
    from blemish.cli.main import app

    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def command(*arguments: Any, before: str = "") -> list[str]:
    """The command line that runs the program after the Python code `before`."""
    code = f"{HEARS_CTRL_C}\n{before}\nfrom blemish.cli.main import main\nmain()"
    return [sys.executable, "-c", code, *(str(argument) for argument in arguments)]
