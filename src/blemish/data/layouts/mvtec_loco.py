"""The folder layout of MVTec LOCO AD: logical and structural anomalies, each defect with a mask of its own.

Bergmann, Batzner, Fauser, Sattlegger, Steger: Beyond dents and scratches, logical constraints in unsupervised anomaly
detection and localization, IJCV 130, 2022.

<category>/train/good/*.png               normal images to fit on
<category>/validation/good/*.png          normal images that are neither fitted on nor tested on
<category>/test/good/*.png                normal images to test on
<category>/test/logical_anomalies/*.png, <category>/test/structural_anomalies/*.png
<category>/ground_truth/<kind>/<stem>/000.png, 001.png, …    one mask for each defect of an image
<category>/defects_config.json            how much of each kind of defect is enough, by its value in the masks
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from blemish.data.category import Category
from blemish.data.files import find_images, shown
from blemish.data.layouts import mvtec
from blemish.errors import DatasetError, SettingsError
from blemish.types import Sample, Saturation

LOGICAL, STRUCTURAL = "logical_anomalies", "structural_anomalies"
CONFIG = "defects_config.json"
VALIDATION = "validation"
is_mask = mvtec.is_mask


def is_category(folder: Path) -> bool:
    """True for a folder with logical or structural anomalies to test on, or with `CONFIG` beside normal images."""
    if any(os.path.isdir(folder / "test" / kind) for kind in (LOGICAL, STRUCTURAL)):
        return True
    return os.path.isfile(folder / CONFIG) and mvtec.is_category(folder)


def load_category(folder: Path) -> Category:
    """The samples of one category folder, sorted by path; the normal ones of `validation` apart, as `validation`.

    An anomalous sample's `mask` is the folder of its masks, its `saturations` are all of the category's; without the
    file that states them there are none. Raises DatasetError for a file that does not state them.
    """
    found = mvtec.load_category(folder)
    saturations = read_saturations(folder / CONFIG)
    further = folder / VALIDATION / mvtec.GOOD
    name = folder.resolve().name
    return Category(
        train=found.train,
        test=[one if not one.label else _with_masks(one, folder, saturations) for one in found.test],
        validation=[
            Sample(image, label=0, category=name, split=VALIDATION)
            for image in (find_images(further) if further.is_dir() else [])
        ],
    )


def read_saturations(path: Path) -> dict[int, Saturation]:
    """Saturations by the value of a defect in its mask, from `CONFIG`; none where the file is missing."""
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {int(entry["pixel_value"]): _saturation(entry) for entry in entries}
    except (OSError, ValueError, TypeError, KeyError, SettingsError) as error:
        raise DatasetError(
            f"a list of pixel_value, saturation_threshold and relative_saturation in '{shown(path)}'",
            str(error) or type(error).__name__,
            "restore the file of the dataset",
        ) from error


def _saturation(entry: Mapping[str, Any]) -> Saturation:
    return Saturation(float(entry["saturation_threshold"]), bool(entry["relative_saturation"]))


def _with_masks(sample: Sample, folder: Path, saturations: Mapping[int, Saturation]) -> Sample:
    """An anomalous sample with the folder of its masks, or the one mask of its name."""
    assert isinstance(sample.image, Path)  # mvtec.py reads files
    masks = folder / "ground_truth" / sample.defect / sample.image.stem
    mask = masks if masks.is_dir() and find_images(masks) else sample.mask
    return replace(sample, mask=mask, saturations=saturations if mask is not None else {})
