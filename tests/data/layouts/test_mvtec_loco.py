"""Logical and structural anomalies with several masks an image, and what must be found of each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blemish.data import load_dataset, load_mask
from blemish.data.masks import defect_masks
from blemish.errors import DatasetError, ImageError, SettingsError
from blemish.types import Sample, Saturation

CONFIG = [
    {"defect_name": "two", "pixel_value": 255, "saturation_threshold": 3, "relative_saturation": False},
    {"defect_name": "scratch", "pixel_value": 254, "saturation_threshold": 0.5, "relative_saturation": True},
]


def draw(path: Path, *squares: tuple[int, slice, slice]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((8, 10), np.uint8)
    for value, rows, columns in squares:
        pixels[rows, columns] = value
    Image.fromarray(pixels).save(path)


@pytest.fixture
def loco(tmp_path: Path) -> Path:
    """One category with a logical anomaly of two masks and a structural one of one mask."""
    folder = tmp_path / "loco" / "box"
    for name in ("train/good/000", "train/good/001", "validation/good/000", "test/good/000"):
        draw(folder / f"{name}.png")
    draw(folder / "test/logical_anomalies/000.png")
    draw(folder / "test/structural_anomalies/000.png")
    draw(folder / "ground_truth/logical_anomalies/000/000.png", (255, slice(0, 2), slice(0, 4)))
    draw(folder / "ground_truth/logical_anomalies/000/001.png", (254, slice(1, 3), slice(2, 4)))
    draw(folder / "ground_truth/structural_anomalies/000/000.png", (254, slice(5, 6), slice(0, 2)))
    (folder / "defects_config.json").write_text(json.dumps(CONFIG))
    return folder


def test_samples_masks_and_saturations(loco: Path) -> None:
    dataset = load_dataset(loco.parent)
    assert (dataset.layout, list(dataset.categories)) == ("mvtec_loco", ["box"])
    box = dataset.categories["box"]
    assert (len(box.train), len(box.validation), len(box.good), len(box.defective)) == (2, 1, 1, 2)
    assert box.has_masks
    logical, structural = box.defective
    assert (logical.defect, structural.defect) == ("logical_anomalies", "structural_anomalies")
    assert logical.saturations == {255: Saturation(3), 254: Saturation(0.5, True)}
    assert load_mask(logical.mask).sum() == 8 + 4 - 2  # all of them together
    assert [(int(mask.sum()), pixels) for mask, pixels in defect_masks(logical)] == [(8, 3), (4, 2)]
    assert [(int(mask.sum()), pixels) for mask, pixels in defect_masks(structural)] == [(2, 1)]
    assert all(not sample.saturations for sample in [*box.train, *box.good])


def test_without_a_config_all_of_a_defect_counts(loco: Path) -> None:
    (loco / "defects_config.json").unlink()
    logical = load_dataset(loco).categories["box"].defective[0]
    assert logical.saturations == {}
    assert [pixels for _, pixels in defect_masks(logical)] == [8, 4]


@pytest.mark.parametrize(
    "text", ["no json", '{"a": 1}', '[{"pixel_value": 255}]', json.dumps([CONFIG[0] | {"saturation_threshold": 0}])]
)
def test_a_config_that_states_nothing_is_refused(loco: Path, text: str) -> None:
    (loco / "defects_config.json").write_text(text)
    with pytest.raises(DatasetError, match=r"saturation_threshold.*restore"):
        load_dataset(loco)


def test_a_mask_of_an_unknown_value_is_refused(loco: Path) -> None:
    draw(loco / "ground_truth/logical_anomalies/000/001.png", (7, slice(1, 3), slice(2, 4)))
    sample = load_dataset(loco).categories["box"].defective[0]
    with pytest.raises(DatasetError, match=r"254, 255.*got 7"):
        defect_masks(sample)


def test_masks_of_several_sizes_are_refused(loco: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(loco / "ground_truth/logical_anomalies/000/002.png")
    with pytest.raises(ImageError, match="one size"):
        load_mask(loco / "ground_truth/logical_anomalies/000")
    (tmp_path / "none").mkdir()
    with pytest.raises(ImageError, match="got none"):
        load_mask(tmp_path / "none")


def test_masks_in_memory() -> None:
    mask = np.zeros((4, 4), bool)
    mask[:2] = True
    sample = Sample(np.zeros((4, 4, 3), np.uint8), label=1, mask=mask, saturations={1: Saturation(0.25, True)})
    assert [pixels for _, pixels in defect_masks(sample)] == [2]
    assert defect_masks(Sample(sample.image, label=0)) == []


@pytest.mark.parametrize("amount", [(0, False), (-1, False), (0, True), (1.5, True), (float("nan"), True)])
def test_saturations_that_cannot_be(amount: tuple[float, bool]) -> None:
    with pytest.raises(SettingsError, match="saturation"):
        Saturation(*amount)


def test_a_saturation_is_at_most_the_area() -> None:
    assert Saturation(100).pixels(7) == 7
    assert Saturation(5).pixels(7) == 5
    assert Saturation(1, True).pixels(7) == 7
