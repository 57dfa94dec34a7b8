from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blemish.data import load_points, load_scan
from blemish.data.camera import read_camera
from blemish.data.clouds import has_colours
from blemish.data.points import load_surface
from blemish.errors import ImageError
from blemish.types import Sample, ScanGeometry

FIXTURES = Path(__file__).parent / "fixtures"
GRID = ScanGeometry(grid=(12, 9))
ORGANISED = [f"{name}.ply" for name in ("plyfile_little", "plyfile_big", "plyfile_text")]
ORGANISED += [f"pypcd4_{kind}.pcd" for kind in ("binary", "compressed", "ascii")]
GRIDLESS = ["open3d_ascii.ply", "open3d_binary.ply"]
GRIDLESS += [f"open3d_{kind}.pcd" for kind in ("ascii", "binary", "compressed")]
ALL = [*ORGANISED, *GRIDLESS]


@pytest.fixture(scope="module")
def expected() -> tuple[np.ndarray, np.ndarray]:
    """Points and colours of the scan as Open3D holds them in memory."""
    with np.load(FIXTURES / "expected.npz") as stored:
        return stored["xyz"], stored["rgb"]


@pytest.mark.parametrize("name", ALL)
def test_files_of_other_programs_give_the_points_that_were_written(
    name: str, expected: tuple[np.ndarray, np.ndarray]
) -> None:
    xyz, rgb = expected
    surface = load_surface(FIXTURES / name, units="m", geometry=GRID if name in GRIDLESS else None)
    assert surface.points.dtype == np.float32
    assert np.allclose(surface.points, xyz, rtol=0, atol=1e-7, equal_nan=True)
    assert np.isnan(surface.points[2, 3]).all()
    assert np.isfinite(surface.points).all(axis=-1).sum() == 105
    assert surface.rgb is not None
    if name != "pypcd4_ascii.pcd":
        assert np.array_equal(surface.rgb, rgb)


def test_an_archive_gives_points_and_colours(expected: tuple[np.ndarray, np.ndarray]) -> None:
    surface = load_surface(FIXTURES / "expected.npz", units="m")
    assert np.allclose(surface.points, expected[0], rtol=0, atol=1e-7, equal_nan=True)
    assert np.array_equal(surface.rgb, expected[1])


def test_colours_are_the_image_of_a_scan_without_one(expected: tuple[np.ndarray, np.ndarray]) -> None:
    scan = load_scan(Sample(None, FIXTURES / "plyfile_big.ply", units="m"))
    assert np.array_equal(scan.rgb, expected[1])
    other = np.full((9, 12, 3), 7, np.uint8)
    assert np.array_equal(load_scan(Sample(other, FIXTURES / "plyfile_big.ply", units="m")).rgb, other)
    assert all(has_colours(FIXTURES / name) for name in [*ALL, "expected.npz"])
    assert not has_colours(FIXTURES / "open3d_depth.png")


def test_depth_and_intrinsics_of_open3d_give_its_points(expected: tuple[np.ndarray, np.ndarray]) -> None:
    camera = read_camera(FIXTURES / "open3d_intrinsic.json")
    for scale, units in ((0.001, None), (None, "mm"), (1.0, "mm")):
        geometry = ScanGeometry(camera=camera, depth_scale=scale)
        points = load_points(FIXTURES / "open3d_depth.png", units=units, geometry=geometry)
        assert np.allclose(points, expected[0], rtol=0, atol=2e-7, equal_nan=True)


def test_a_cloud_without_a_grid_is_refused_or_seen_by_its_camera(expected: tuple[np.ndarray, np.ndarray]) -> None:
    file = FIXTURES / "open3d_unorganised.ply"
    with pytest.raises(ImageError, match=r"organised.*105 points that are no grid.*--grid.*--intrinsics"):
        load_points(file)
    with pytest.raises(ImageError, match=r"no grid of 12x9"):
        load_points(file, geometry=GRID)
    with pytest.raises(ImageError, match=r"a camera without width and height; state it: --grid"):
        load_points(file, geometry=ScanGeometry(camera=read_camera("50,51,5,4")))
    camera = read_camera(FIXTURES / "open3d_intrinsic.json")
    seen = load_surface(file, units="m", geometry=ScanGeometry(camera=camera))
    assert np.allclose(seen.points, expected[0], rtol=0, atol=1e-7, equal_nan=True)
    holes = np.isnan(expected[0]).any(axis=-1, keepdims=True)
    assert np.array_equal(seen.rgb, np.where(holes, 0, expected[1]))
    behind = ScanGeometry(camera=read_camera("50,51,5000,4"), grid=(12, 9))
    with pytest.raises(ImageError, match="points that the camera stated can see"):
        load_points(file, geometry=behind)


def test_a_stated_grid_that_is_another_is_refused() -> None:
    with pytest.raises(ImageError, match=r"9x12 points, as stated.*got 12x9.*--grid"):
        load_points(FIXTURES / "plyfile_big.ply", geometry=ScanGeometry(grid=(9, 12)))


def test_the_nearest_point_of_a_pixel_is_seen() -> None:
    cloud = np.array([[0, 0, 2.0], [0, 0, 1.0], [0, 0, 3.0], [0, 0, -1.0], [9, 9, 1.0]])
    geometry = ScanGeometry(camera=read_camera("1,1,0,0"), grid=(2, 2))
    assert load_points(cloud, units="m", geometry=geometry)[0, 0, 2] == 1


@pytest.mark.parametrize("name", ALL)
def test_cut_files_are_refused(name: str, tmp_path: Path) -> None:
    content = (FIXTURES / name).read_bytes()
    for share in (0.05, 0.3, 0.7, 0.95):
        cut = tmp_path / name
        cut.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ImageError, match=name):
            load_points(cut, geometry=GRID)


@pytest.mark.parametrize("name", [*ALL, "expected.npz", "open3d_depth.png"])
def test_altered_files_are_read_or_refused_and_nothing_else(name: str, tmp_path: Path) -> None:
    """Bytes changed, taken out and doubled at random: points of a sound shape, or an ImageError that names the file."""
    random = np.random.default_rng(0)
    content = (FIXTURES / name).read_bytes()
    geometry = ScanGeometry(camera=read_camera("50,51,5.5,4.25"), depth_scale=0.001) if name.endswith("png") else GRID
    file = tmp_path / name
    refused = 0
    for round_ in range(120):
        altered = bytearray(content)
        start = 0 if round_ % 2 else len(content) - 1  # every other round in the first bytes, which hold the header
        for _ in range(random.integers(1, 5)):
            place = int(random.integers(min(len(content), 300) if start == 0 else len(content)))
            altered[place] = int(random.integers(256))
        if round_ % 5 == 0:
            del altered[int(random.integers(len(altered))) :][: int(random.integers(1, 40))]
        file.write_bytes(altered)
        found = read_or_refused(file, geometry)
        refused += isinstance(found, str)
        assert name in found if isinstance(found, str) else (found.ndim, found.shape[2]) == (3, 3)
    assert refused > 0


def read_or_refused(file: Path, geometry: ScanGeometry) -> np.ndarray | str:
    """The points of a file, or the message of the error."""
    try:
        return load_points(file, units="m", geometry=geometry, max_pixels=100_000)
    except ImageError as error:
        return str(error)


PLY = "ply\nformat {format} 1.0\nelement vertex {count}\n{fields}end_header\n"
XYZ = "property float x\nproperty float y\nproperty float z\n"
PCD = "FIELDS x y z\nSIZE {size}\nTYPE {type}\nCOUNT 1 1 1\nWIDTH {width}\nHEIGHT {height}\n"
PCD += "POINTS {points}\nDATA {data}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLY.format(format="ascii", count=10**11, fields=XYZ), "at most"),
        (PLY.format(format="binary_little_endian", count=90_000_000, fields=XYZ), "90,000,000 points.* 0 bytes"),
        (PLY.format(format="ascii", count=4, fields=XYZ) + "1.000 2 3\n" * 3 + "1 2\n", "and 11 numbers"),
        (PLY.format(format="ascii", count=1, fields=XYZ) + "1 two 3\n", "no number"),
        (PLY.format(format="ascii", count=-1, fields=XYZ), "whole numbers"),
        (PLY.format(format="binary_middle_endian", count=1, fields=XYZ), "of the format"),
        (PLY.format(format="ascii", count=1, fields=XYZ.replace("float", "real")), "property 'real x'"),
        (PLY.format(format="ascii", count=1, fields="property float x\n" * 2), "two properties"),
        (PLY.format(format="ascii", count=1, fields="property float x\n"), "x, y, z"),
        (PLY.format(format="ascii", count=1, fields="property list uchar int x\n" + XYZ), "list"),
        ("ply\nformat ascii 1.0\n" + "comment a\n" * 9000, "without its end"),
    ],
)
def test_headers_of_ply_that_cannot_be(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.ply"
    file.write_text(text)
    with pytest.raises(ImageError, match=rf"wrong\.ply.*{message}|{message}.*wrong\.ply"):
        load_points(file, geometry=GRID)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"width": 10**9, "height": 10**2, "points": 10**11}, "at most"),
        ({"points": 5}, "5 points on a grid of 2x2"),
        ({"size": "4 4"}, "3 fields, 2 sizes"),
        ({"size": "4 4 3"}, "size 3"),
        ({"type": "F F Q"}, "type Q"),
        ({"data": "binary_zipped"}, "PCD of the data"),
        ({"data": "binary"}, "4 points of 12 bytes, and 0 bytes"),
        ({"data": "binary_compressed"}, "compressed"),
        ({"width": "many"}, "whole numbers"),
    ],
)
def test_headers_of_pcd_that_cannot_be(facts: dict[str, object], message: str, tmp_path: Path) -> None:
    sound = {"size": "4 4 4", "type": "F F F", "width": 2, "height": 2, "points": 4, "data": "ascii"}
    file = tmp_path / "wrong.pcd"
    file.write_text(PCD.format(**sound | facts))
    with pytest.raises(ImageError, match=rf"wrong\.pcd.*{message}|{message}.*wrong\.pcd"):
        load_points(file)


def test_an_archive_is_judged_by_its_headers(tmp_path: Path) -> None:
    file = tmp_path / "scan.npz"
    np.savez_compressed(file, xyz=np.zeros((3000, 3000, 3), np.uint8))  # 27 MB of a few kB
    with pytest.raises(ImageError, match=r"at most 1,000 pixels.*scan\.npz"):
        load_points(file, max_pixels=1000)
    np.savez(file, other=np.zeros(3))
    with pytest.raises(ImageError, match=r"xyz, points or depth.*scan\.npz.*other"):
        load_points(file)
    np.savez(file, xyz=np.array([{}], dtype=object))
    with pytest.raises(ImageError, match=r"as numbers.*scan\.npz.*one scan"):
        load_points(file)
    np.savez(file, xyz=np.ones((4, 5, 3)), rgb=np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(ImageError, match="grid of the points"):
        load_points(file)
    np.savez(file, xyz=np.zeros((3, 9, 12), np.float32))
    with pytest.raises(ImageError, match=r"float32 \(3, 9, 12\); put.*moveaxis"):
        load_points(file)


def test_a_cloud_without_a_point_is_said_to_be_one(tmp_path: Path) -> None:
    head = "ply\nformat ascii 1.0\nelement vertex 0\n"
    (tmp_path / "a.ply").write_text(head + "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n")
    with pytest.raises(ImageError, match=r"points in '.*a\.ply'; got a cloud without any"):
        load_points(tmp_path / "a.ply")


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("uchar", (200, 100, 0)),
        ("float", (200 / 255, 100 / 255, 0)),
        ("float", (200.0, 100.0, 0.0)),
        ("ushort", (200 * 257, 100 * 257, 0)),
        ("ushort", (200, 100, 0)),
        ("int", (200, 100, 0)),
    ],
)
def test_colours_of_every_type_that_programs_write(kind: str, values: tuple[float, ...], tmp_path: Path) -> None:
    fields = "".join(f"property float {axis}\n" for axis in "xyz")
    fields += "".join(f"property {kind} {colour}\n" for colour in ("red", "green", "blue"))
    path = tmp_path / "part.ply"
    lines = [f"{x} {y} 0.5 {' '.join(map(str, values))}" for y in range(4) for x in range(4)]
    path.write_text(f"ply\nformat ascii 1.0\nelement vertex 16\n{fields}end_header\n" + "\n".join(lines) + "\n")
    assert has_colours(path)
    scan = load_scan(Sample(None, points=path, units="m", geometry=ScanGeometry(grid=(4, 4))))
    assert scan.rgb is not None
    assert (scan.rgb == (200, 100, 0)).all()
