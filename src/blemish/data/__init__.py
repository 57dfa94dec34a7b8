"""What is known about images and points: decoding, folders, dataset layouts, shots.

Needs numpy and pillow alone; scipy and tifffile, for points, are imported where they are used.
"""

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
