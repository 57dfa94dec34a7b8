"""Where the benchmarks' images lie: products in the MVTec AD layout under the folder in BLEMISH_DATA ("data")."""

from __future__ import annotations

import os
from pathlib import Path

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


def folder_of(category: str) -> Path:
    """The folder of a category, with train, test and ground_truth in it."""
    return DATA / CATEGORIES[category] / category


def good_files(category: str) -> list[Path]:
    """The good images to learn from, sorted by name."""
    return sorted((folder_of(category) / "train" / "good").iterdir())
