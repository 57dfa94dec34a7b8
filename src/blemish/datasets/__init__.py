"""What is known about pictures and points: decoding, folders, dataset layouts, shots.

Needs numpy and pillow alone; scipy and tifffile, for points, are imported where they are used.
"""

from blemish.datasets.catalog import DATASETS, DatasetInfo
from blemish.datasets.category import Category, Dataset
from blemish.datasets.files import PICTURE_SUFFIXES, find_pictures
from blemish.datasets.folder import good_pictures, pictures
from blemish.datasets.images import MAX_PIXELS, fit_size, load_mask, load_picture, resize_picture
from blemish.datasets.layouts import load_dataset
from blemish.datasets.points import load_points
from blemish.datasets.samples import load_sample, picture_of
from blemish.datasets.scans import load_scan
from blemish.datasets.shots import draw_shots, folds
from blemish.datasets.solar_cells import draw_cells, solar_cells

__all__ = [
    "DATASETS",
    "MAX_PIXELS",
    "PICTURE_SUFFIXES",
    "Category",
    "Dataset",
    "DatasetInfo",
    "draw_cells",
    "draw_shots",
    "find_pictures",
    "fit_size",
    "folds",
    "good_pictures",
    "load_dataset",
    "load_mask",
    "load_picture",
    "load_points",
    "load_sample",
    "load_scan",
    "picture_of",
    "pictures",
    "resize_picture",
    "solar_cells",
]
