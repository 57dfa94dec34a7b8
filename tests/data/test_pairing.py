from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blemish.data import inspection_samples, load_dataset, normal_samples
from blemish.data.folder import find_inspection
from blemish.data.loading import complete_samples
from blemish.data.pairing import core_of, parallel_folders
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


def cloud(path: Path, colours: bool = False) -> Path:
    """A small organised PLY."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = "".join(f"property float {one}\n" for one in "xyz")
    fields += "".join(f"property uchar {one}\n" for one in ("red", "green", "blue")) * colours
    rows = "".join(f"{x / 100} {y / 100} 0.5{' 9 9 9' * colours}\n" for y in range(6) for x in range(5))
    header = f"ply\nformat ascii 1.0\ncomment width 5\ncomment height 6\nelement vertex 30\n{fields}end_header\n"
    path.write_text(header + rows)
    return path


@pytest.mark.parametrize(
    ("image", "points"),
    [
        ("part_001.png", "part_001.ply"),
        ("part_001_rgb.png", "part_001_depth.png"),
        ("rgb_001.png", "depth_001.png"),
        ("part_001-color.jpg", "part_001-xyz.npy"),
        ("part_001.png", "part_001.npy"),
        ("part_001.png", "part_001_points.pcd"),
    ],
)
def test_files_side_by_side_are_paired(image: str, points: str, tmp_path: Path, write: Write) -> None:
    for number in ("001", "002"):
        write(tmp_path / image.replace("001", number), 100)
        file = tmp_path / points.replace("001", number)
        if points.endswith(".npy"):
            np.save(file, np.full((6, 5, 3), 0.1, np.float32))
        else:
            cloud(file)  # nothing reads what a name says
    expected = [(tmp_path / image.replace("001", n), tmp_path / points.replace("001", n)) for n in ("001", "002")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for found in (
            inspection_samples(tmp_path),
            normal_samples(tmp_path),
            inspection_samples([expected[0][0], expected[1][1]]),
        ):
            assert [(s.image, s.points) for s in found] == expected
        assert [(s.image, s.points) for s in inspection_samples(list(expected[0]))] == expected[:1]


def test_a_folder_a_scan(tmp_path: Path, write: Write) -> None:
    for name in ("a", "b"):
        write(tmp_path / name / "rgb.png", 100)
        cloud(tmp_path / name / "cloud.ply")
    found = inspection_samples(tmp_path)
    assert [(s.image, s.points) for s in found] == [
        (tmp_path / n / "rgb.png", tmp_path / n / "cloud.ply") for n in ("a", "b")
    ]


def test_two_files_of_any_names_are_one_scan(tmp_path: Path, write: Write) -> None:
    image, points = write(tmp_path / "left" / "shot.png", 100), cloud(tmp_path / "right" / "scan7.ply")
    assert [(s.image, s.points) for s in inspection_samples([points, image])] == [(image, points)]
    assert [(s.image, s.points, s.label) for s in normal_samples([image, points])] == [(image, points, 0)]


def test_what_lacks_its_other_half_side_by_side_is_named(tmp_path: Path, write: Write) -> None:
    for name in ("a.png", "b.png"):
        write(tmp_path / name, 100)
    for name in ("a.ply", "c.ply"):
        cloud(tmp_path / name)
    coloured = cloud(tmp_path / "d.ply", colours=True)
    with pytest.warns(DataWarning) as caught:
        found = inspection_samples(tmp_path)
    assert sorted(w.message.file for w in caught) == [str(tmp_path / "b.png"), str(tmp_path / "c.ply")]
    halves = {(s.image, s.points) for s in found}
    assert halves == {
        (tmp_path / "a.png", tmp_path / "a.ply"),
        (tmp_path / "b.png", None),
        (None, tmp_path / "c.ply"),
        (None, coloured),
    }
    assert complete_samples([s for s in found if s.points in (coloured, tmp_path / "a.ply")], (RGB, POINTS))


def test_clouds_alone_are_scans_and_strangers_among_images_are_not(tmp_path: Path, write: Write) -> None:
    for name in ("a.ply", "b.ply"):
        cloud(tmp_path / "clouds" / name, colours=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [(s.image, s.points.name) for s in inspection_samples(tmp_path / "clouds")] == [
            (None, "a.ply"),
            (None, "b.ply"),
        ]
        for name in ("x.png", "y_depth.png"):  # no pairs: as ever, two pictures
            write(tmp_path / "images" / name, 100)
        cloud(tmp_path / "images" / "z.ply")
        found = find_inspection(tmp_path / "images")
    assert [s.points for s in found.samples] == [None, None]
    assert found.contents.ignored == {".ply": 1}


def test_a_tiff_of_eight_bits_is_no_points(tmp_path: Path, write: Write) -> None:
    """The same picture in two formats is two pictures; floats beside a picture are its points."""
    tifffile = pytest.importorskip("tifffile", reason="TIFFs of points come with blemish[3d]")
    write(tmp_path / "a.png", 100)
    tifffile.imwrite(tmp_path / "a.tiff", np.full((6, 5, 3), 100, np.uint8), photometric="rgb")
    assert [s.points for s in inspection_samples(tmp_path)] == [None, None]
    for channels, photometric in (((), "minisblack"), ((3,), "rgb")):
        tifffile.imwrite(tmp_path / "a.tiff", np.full((6, 5, *channels), 0.1, np.float32), photometric=photometric)
        assert [(s.image, s.points) for s in inspection_samples(tmp_path)] == [
            (tmp_path / "a.png", tmp_path / "a.tiff")
        ]


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("part7", ("part7", "")),
        ("part7_rgb", ("part7", "image")),
        ("Depth-part7", ("part7", "points")),
        ("a.b.xyz", ("a.b", "points")),
        ("color", ("", "image")),
        ("colorful_part", ("colorful_part", "")),
        ("depth", ("", "points")),
    ],
)
def test_the_core_of_a_name(stem: str, expected: tuple[str, str]) -> None:
    assert core_of(stem) == expected


def test_depth_beside_rgb_in_the_layout_of_mvtec_3d(tmp_path: Path, write: Write) -> None:
    """Depth images in place of xyz, and masks as in MVTec AD."""
    root = tmp_path / "gland"
    for kind in ("train/good", "test/good", "test/bent"):
        write(root / kind / "rgb" / "000.png", 100)
        write(root / kind / "depth" / "000.png", 100)
    mask = write(root / "ground_truth" / "bent" / "000_mask.png", 255)
    category = load_dataset(root).categories["gland"]
    assert [s.points for s in category.train] == [root / "train/good/depth/000.png"]
    assert {(s.defect, s.mask) for s in category.test} == {("", None), ("bent", mask)}
    assert [s.points for s in inspection_samples(root / "train" / "good")] == [root / "train/good/depth/000.png"]
