from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blemish.data import inspection_samples, normal_samples
from blemish.data.loading import complete_samples
from blemish.data.pairing import parallel_folders
from blemish.errors import DatasetError, DataWarning
from blemish.types import POINTS, RGB, Sample

Write = Callable[..., Path]


@pytest.fixture
def scans(tmp_path: Path, write: Write) -> Path:
    """Four scans in loose folders rgb and xyz, two of them a level deeper."""
    root = tmp_path / "scans"
    for stem in ("000", "001", "late/000", "late/001"):
        write(root / "rgb" / f"{stem}.png", 100)
        (root / "xyz" / stem).parent.mkdir(parents=True, exist_ok=True)
        np.save(root / "xyz" / f"{stem}.npy", np.full((6, 5, 3), 0.1, np.float32))
    return root


def files(root: Path, stem: str) -> tuple[Path, Path]:
    return root / "rgb" / f"{stem}.png", root / "xyz" / f"{stem}.npy"


def test_loose_folders_are_paired_by_name(scans: Path) -> None:
    """Of a path to all of them, to the images alone, to a folder in them, and to one file."""
    everything = [files(scans, stem) for stem in ("000", "001", "late/000", "late/001")]
    for path, expected in (
        (scans, everything),
        (scans.parent, everything),
        (scans / "rgb", everything),
        (scans / "rgb" / "late", everything[2:]),
        (scans / "rgb" / "001.png", everything[1:2]),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert [(s.image, s.points) for s in inspection_samples(path)] == expected
            good = normal_samples(path)
        assert [(s.image, s.points) for s in good] == expected
        assert {(s.label, s.split) for s in good} == {(0, "train")}


@pytest.mark.parametrize(("images", "points"), [("Images", "PointCloud"), ("color", "points"), ("image", "cloud")])
def test_other_names_of_folders(scans: Path, images: str, points: str) -> None:
    (scans / "rgb").rename(scans / images)
    (scans / "xyz").rename(scans / points)
    assert [s.points is not None for s in inspection_samples(scans)] == [True] * 4


def test_points_in_tiffs_are_no_images_of_their_own(scans: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason="TIFFs of points come with blemish[3d]")
    for file in (scans / "xyz").rglob("*.npy"):
        tifffile.imwrite(file.with_suffix(".tiff"), np.load(file), photometric="rgb")
        file.unlink()
    found = inspection_samples(scans)
    assert [s.image for s in found] == [files(scans, stem)[0] for stem in ("000", "001", "late/000", "late/001")]
    assert all(s.points is not None and s.points.suffix == ".tiff" for s in found)


def test_a_scan_without_its_points_or_image_is_named_and_the_rest_done(scans: Path) -> None:
    files(scans, "001")[1].unlink()
    files(scans, "late/000")[0].unlink()
    with pytest.warns(DataWarning) as caught:
        found = inspection_samples(scans)
    assert [(w.message.kind, w.message.file) for w in caught] == [
        ("incomplete", str(files(scans, "001")[0])),
        ("incomplete", str(files(scans, "late/000")[1])),
    ]
    halves = [(files(scans, "001")[0], None), (None, files(scans, "late/000")[1])]
    assert [(s.image, s.points) for s in found] == [files(scans, "000"), halves[0], files(scans, "late/001"), halves[1]]


def test_folders_of_one_kind_alone_are_no_scans(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "images" / "a.png", 9)
    (sample,) = inspection_samples(tmp_path)
    assert sample.points is None
    assert parallel_folders(tmp_path / "images") is None
    write(tmp_path / "other" / "b.png", 9)
    assert len(inspection_samples(tmp_path)) == 2


def test_images_beside_the_folders_are_images_alone(scans: Path, write: Write) -> None:
    write(scans / "overview.png", 5)
    found = inspection_samples(scans)
    assert [(s.image, s.points) for s in found if s.points is None] == [(scans / "overview.png", None)]
    assert len(found) == 5


def test_a_normal_sample_without_a_modality_is_left_out_and_named() -> None:
    image, points = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4, 3), np.float32)
    whole, other = Sample(image, points), Sample(image, points)
    half = Sample(Path("part.png"))
    with pytest.warns(DataWarning, match=r"'part\.png' has no points, and is left out"):
        assert complete_samples([whole, half, other], (RGB, POINTS)) == [whole, other]
    with pytest.warns(DataWarning, match="has no picture"):
        assert complete_samples([whole, Sample(None, points)], (RGB,)) == [whole]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert complete_samples([whole, half], (RGB,)) == [whole, half]
    with pytest.raises(DatasetError, match=r"measured points of every good part; got 2 of 3 without, first part\.png"):
        complete_samples([half, whole, half], (RGB, POINTS))
