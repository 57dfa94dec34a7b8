from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blemish.data import inspection_samples, load_dataset, load_mask, load_scan, normal_samples
from blemish.errors import DatasetError, DataWarning

tifffile = pytest.importorskip("tifffile", reason="TIFFs of points come with blemish[3d]")

Write = Callable[..., Path]
SIZE = (6, 5)


@pytest.fixture
def root(tmp_path: Path, write: Write) -> Path:
    """Two categories of 3 scans to learn from, 2 for validation, 1 good and 3 defective to test on."""
    root = tmp_path / "mvtec_3d"
    for category in ("bagel", "rope"):
        kinds = {"train/good": 3, "validation/good": 2, "test/good": 1, "test/crack": 2, "test/hole": 1}
        for kind, count in kinds.items():
            for i in range(count):
                folder = root / category / kind
                write(folder / "rgb" / f"{i:03}.png", 10 * i)
                (folder / "xyz").mkdir(exist_ok=True)
                tifffile.imwrite(
                    folder / "xyz" / f"{i:03}.tiff", np.full((*SIZE, 3), 0.1 + 0.01 * i, np.float32), photometric="rgb"
                )
                if kind.startswith("test"):
                    write(folder / "gt" / f"{i:03}.png", 0 if kind.endswith("good") else 255)
        (root / category / "calibration").mkdir()
    return root


def test_a_dataset(root: Path) -> None:
    dataset = load_dataset(root)
    assert (dataset.name, dataset.layout, list(dataset.categories)) == ("mvtec_3d", "mvtec3d", ["bagel", "rope"])
    rope = dataset.categories["rope"]
    assert [s.image for s in rope.train] == [root / f"rope/train/good/rgb/{i:03}.png" for i in range(3)]
    assert [s.points for s in rope.train] == [root / f"rope/train/good/xyz/{i:03}.tiff" for i in range(3)]
    assert {(s.label, s.category, s.split, s.defect) for s in rope.train} == {(0, "rope", "train", "")}
    assert {(s.label, s.category, s.split, s.defect) for s in rope.validation} == {(0, "rope", "validation", "")}
    assert (len(rope.validation), len(rope.good), len(rope.defective)) == (2, 1, 3)
    assert [(s.defect, s.split) for s in rope.defective] == [("crack", "test"), ("crack", "test"), ("hole", "test")]
    assert rope.has_masks
    assert all(load_mask(s.mask, SIZE).all() for s in rope.defective if isinstance(s.mask, Path))
    assert rope.good[0].mask is None
    scan = load_scan(rope.defective[1])
    assert scan.shape == SIZE
    assert scan.rgb[0, 0].tolist() == [10, 10, 10]
    assert np.allclose(scan.xyz[0, 0], 0.11)


def test_one_category_and_one_without_good_test_parts(root: Path) -> None:
    assert list(load_dataset(root / "bagel").categories) == ["bagel"]
    for path in sorted((root / "bagel" / "train").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    for path in sorted((root / "bagel" / "test" / "good").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (root / "bagel" / "test" / "good").rmdir()
    with pytest.raises(DatasetError, match=r"bagel.*good pictures alone"):
        load_dataset(root)
    assert len(inspection_samples(root / "bagel")) == 3


def test_paths_mean_scans_and_not_files(root: Path) -> None:
    assert len(normal_samples(root)) == 6
    assert len(inspection_samples(root)) == 8
    held_out = normal_samples(root / "bagel" / "validation")
    assert [(s.points is not None, s.label, s.split) for s in held_out] == [(True, 0, "train")] * 2
    assert len(normal_samples(root / "bagel" / "test" / "good")) == 1
    cracked = inspection_samples(root / "bagel" / "test" / "crack")
    assert [s.image for s in cracked] == [root / f"bagel/test/crack/rgb/{i:03}.png" for i in range(2)]
    assert all(s.points is not None and s.label == 1 for s in cracked)
    (one,) = inspection_samples(root / "bagel" / "test" / "crack" / "rgb" / "001.png")
    assert one.points == root / "bagel/test/crack/xyz/001.tiff"
    with pytest.raises(DatasetError, match="points, masks or unlabelled parts alone"):
        inspection_samples(root / "bagel" / "train" / "good" / "xyz")


def test_defective_scans_are_not_learned(root: Path) -> None:
    for place in ("test/crack", "test/crack/rgb/000.png", "test/hole/gt"):
        with pytest.raises(DatasetError, match="defective or masks"):
            normal_samples(root / "bagel" / place)


def test_half_a_scan_is_named_and_all_others_are_there(root: Path) -> None:
    (root / "rope/train/good/xyz/001.tiff").unlink()
    (root / "rope/test/hole/rgb/000.png").unlink()
    with pytest.warns(DataWarning) as caught:
        rope = load_dataset(root).categories["rope"]
    said = [str(warning.message) for warning in caught]
    assert len(said) == 2
    assert re.search(r"good/rgb/001\.png' is a scan without its points: nothing at '.*good/xyz/001'", said[0])
    assert re.search(r"hole/xyz/000\.tiff' is a scan without its picture: nothing at '.*hole/rgb/000'", said[1])
    assert [s.points is None for s in rope.train] == [False, True, False]
    assert [(s.defect, s.image is None) for s in rope.defective] == [("crack", False), ("crack", False), ("hole", True)]
    assert rope.has_masks
    with pytest.warns(DataWarning):
        assert len(inspection_samples(root / "rope")) == 4


def test_points_may_be_numpy_files(root: Path) -> None:
    for file in (root / "rope").rglob("*.tiff"):
        np.save(file.with_suffix(".npy"), tifffile.imread(file))
        file.unlink()
    train = load_dataset(root).categories["rope"].train
    assert [s.points for s in train] == [root / f"rope/train/good/xyz/{i:03}.npy" for i in range(3)]


def test_a_missing_mask_is_no_error(root: Path) -> None:
    (root / "rope/test/crack/gt/001.png").unlink()
    rope = load_dataset(root).categories["rope"]
    assert [s.mask is None for s in rope.defective] == [False, True, False]
    assert not rope.has_masks
