"""What is known about images and points: decoding, folders, dataset layouts, shots.

Needs numpy and pillow alone; scipy, tifffile and PyYAML, for points, are imported where they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blemish.utils.lazy_names import resolve_in

if TYPE_CHECKING:
    from blemish.data.catalog import DATASETS, DatasetInfo
    from blemish.data.category import Category, Dataset
    from blemish.data.elpv import draw_cells, solar_cells
    from blemish.data.files import IMAGE_SUFFIXES, find_images
    from blemish.data.folder import inspection_samples, normal_samples
    from blemish.data.images import fit_size, load_image, load_mask, resize_image
    from blemish.data.layouts import load_dataset
    from blemish.data.points import load_points
    from blemish.data.readers.base import MAX_PIXELS
    from blemish.data.samples import image_of, load_sample
    from blemish.data.scans import load_scan
    from blemish.data.shots import draw_shots, folds

# Loaded when first asked for: who needs one module of this folder does not wait for, or depend on, the others.
_HOME = {
    "DATASETS": "catalog",
    "IMAGE_SUFFIXES": "files",
    "MAX_PIXELS": "readers.base",
    "Category": "category",
    "Dataset": "category",
    "DatasetInfo": "catalog",
    "draw_cells": "elpv",
    "draw_shots": "shots",
    "find_images": "files",
    "fit_size": "images",
    "folds": "shots",
    "image_of": "samples",
    "inspection_samples": "folder",
    "load_dataset": "layouts",
    "load_image": "images",
    "load_mask": "images",
    "load_points": "points",
    "load_sample": "samples",
    "load_scan": "scans",
    "normal_samples": "folder",
    "resize_image": "images",
    "solar_cells": "elpv",
}

__all__ = [
    "DATASETS",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "Category",
    "Dataset",
    "DatasetInfo",
    "draw_cells",
    "draw_shots",
    "find_images",
    "fit_size",
    "folds",
    "image_of",
    "inspection_samples",
    "load_dataset",
    "load_image",
    "load_mask",
    "load_points",
    "load_sample",
    "load_scan",
    "normal_samples",
    "resize_image",
    "solar_cells",
]


def __getattr__(name: str) -> Any:
    return resolve_in(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
