"""Where the benchmarks' images lie: products in the MVTec AD layout under the folder in BLEMISH_DATA ("data")."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from blemish.augmentation.small_defects import SMALL_DEFECTS
from blemish.data import load_image
from blemish.preprocessing.foreground import from_pixels

DATA = Path(os.environ.get("BLEMISH_DATA", "data"))
CATEGORIES = {
    "bottle": "mvtec_ad",
    "screw": "mvtec_ad",
    "capsule": "mvtec_ad_fewshot",
    "metal_nut": "mvtec_ad_fewshot",
    "leather": "mvtec_ad_fewshot",
    "metal_plate": "mpdd",
    "cookie": "aws_cookie",
}
MORE = {
    "pill": "mvtec_ad",
    "transistor": "mvtec_ad",
    "macaroni1": "visa",
    "kos": "kolektorsdd",
    "wood": "wood_planks",
}
# Products with good training images beyond the few that are learned from.
WITH_FURTHER = ("bottle", "screw", "metal_plate", "cookie", "pill", "transistor", "macaroni1", "kos", "wood")


def folder_of(category: str) -> Path:
    """The folder of a category, with train, test and ground_truth in it."""
    return DATA / (CATEGORIES | MORE)[category] / category


def good_files(category: str) -> list[Path]:
    """The good images to learn from, sorted by name."""
    return sorted((folder_of(category) / "train" / "good").iterdir())


def drawn_good_files(category: str, draw: int) -> list[Path]:
    """The same in the order of a draw, RandomState(draw).permutation: the first k are the k shots of that seed."""
    files = good_files(category)
    return [files[i] for i in np.random.RandomState(draw).permutation(len(files))]


def learned_and_judged(category: str, shots: int, further: int) -> tuple[list[np.ndarray], ...]:
    """Images of draw 0: `shots` to learn from, up to `further` good ones, and those with each small defect made up."""
    files = drawn_good_files(category, 0)
    learned, normal = ([load_image(file) for file in some] for some in (files[:shots], files[shots:][:further]))
    random = np.random.default_rng(0)
    return learned, normal, [make(one, from_pixels(one), random) for one in normal for make in SMALL_DEFECTS.values()]
