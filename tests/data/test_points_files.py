"""Which files of points are learned from."""

from __future__ import annotations

from pathlib import Path

import pytest

from blemish.data.points_files import good_points
from blemish.errors import DatasetError


def touch(root: Path, *names: str) -> list[Path]:
    files = [root / name for name in names]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return files


def test_a_category_gives_its_good_training_points(tmp_path: Path) -> None:
    good = touch(
        tmp_path, "cable/train/good/xyz/000.tiff", "cable/train/good/xyz/001.tiff", "nut/train/good/xyz/0.tiff"
    )
    touch(tmp_path, "cable/train/good/rgb/000.png", "cable/test/cut/xyz/000.tiff", "cable/validation/good/xyz/0.tiff")
    assert good_points([tmp_path]) == good
    assert good_points([tmp_path / "cable"]) == good[:2]
    assert good_points([tmp_path / "cable" / "train" / "good", tmp_path / "cable"]) == good[:2]
    assert good_points([good[1], good[1]]) == [good[1]]


def test_splits_are_splits_in_upper_case_too(tmp_path: Path) -> None:
    good = touch(tmp_path, "cable/Train/good/000.tiff")
    touch(tmp_path, "cable/TEST/cut/000.tiff")
    assert good_points([tmp_path]) == good
    with pytest.raises(DatasetError, match="test split"):
        good_points([tmp_path / "cable" / "TEST"])


def test_depth_images_and_plain_folders(tmp_path: Path) -> None:
    depth = touch(tmp_path / "eyecandies", "Lolly/train/data/000_depth.png")
    touch(tmp_path / "eyecandies", "Lolly/train/data/000_image_0.png", "Lolly/test_public/data/000_depth.png")
    assert good_points([tmp_path / "eyecandies"]) == depth
    plain = touch(tmp_path / "mine", "a.npy", "deeper/b.TIF")
    touch(tmp_path / "mine", "picture.png", ".hidden.npy")
    assert good_points([tmp_path / "mine"]) == plain


def test_what_cannot_be_learned_from_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "cable/test/cut/xyz/000.tiff", "pictures/a.png")
    with pytest.raises(DatasetError, match="test split"):
        good_points([tmp_path / "cable"])
    with pytest.raises(DatasetError, match="without any"):
        good_points([tmp_path / "pictures"])
    with pytest.raises(DatasetError, match="nothing there"):
        good_points([tmp_path / "absent"])
