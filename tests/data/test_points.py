from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scan_parts import heights, points_of

from blemish.data import load_points
from blemish.data.camera import camera_for, projected, unprojected
from blemish.data.depth import FOCAL, number_in, unproject
from blemish.data.points import measured, spacing_and_noise
from blemish.errors import ImageError, SettingsError
from blemish.types import UNITS, Camera

tifffile = pytest.importorskip("tifffile", reason="TIFFs of points come with blemish[3d]")


@pytest.fixture
def points() -> np.ndarray:
    """A small scan with holes: points 2.5 mm apart, 10 cm away."""
    return (points_of(heights(20, top=0.02)[:16], holes=0.1) / 4).astype(np.float32)


def write_tiff(path: Path, array: np.ndarray, **options: object) -> Path:
    tifffile.imwrite(path, array, **{"photometric": "rgb" if array.ndim == 3 else "minisblack"} | options)
    return path


def test_every_kind_of_source_gives_the_same_points(points: np.ndarray, tmp_path: Path) -> None:
    zeros = np.nan_to_num(points, nan=0)
    infinite = np.where(np.isnan(points), np.inf, points)
    np.save(tmp_path / "a.npy", zeros.astype(np.float64))
    sources = [
        points,
        zeros,
        infinite,
        write_tiff(tmp_path / "a.tiff", zeros),
        str(write_tiff(tmp_path / "b.TIF", points)),
        write_tiff(tmp_path / "c.tiff", zeros, compression="zlib"),
        write_tiff(tmp_path / "d.tiff", zeros, tile=(16, 16)),
        write_tiff(tmp_path / "e.tiff", zeros, photometric="minisblack", metadata={"axes": "YXS"}),
        tmp_path / "a.npy",
    ]
    for source in sources:
        loaded = load_points(source)
        assert loaded.dtype == np.float32
        assert loaded.flags.writeable
        assert np.array_equal(loaded, points, equal_nan=True)
    assert not np.isnan(zeros).any()  # the caller's array is left alone


def test_a_hole_in_one_coordinate_is_a_hole(points: np.ndarray) -> None:
    points[3, 4] = (0.1, np.nan, 0.2)
    points[5, 6] = (0.0, 0.0, 0.3)  # on the camera's axis, and measured
    loaded = load_points(points)
    assert np.isnan(loaded[3, 4]).all()
    assert np.array_equal(loaded[5, 6], points[5, 6])


def test_wrong_shapes_are_refused(points: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"shape \(3, 16, 20\).*moveaxis"):
        load_points(np.moveaxis(points, -1, 0))
    with pytest.raises(ImageError, match=r"shape \(320, 3\).*lost its grid: state --grid"):
        load_points(points.reshape(-1, 3))
    with pytest.raises(ImageError, match=r"deep\.tiff.*shape \(16, 20\)"):
        load_points(write_tiff(tmp_path / "deep.tiff", points[..., 2]))
    with pytest.raises(ImageError, match="float type"):
        load_points(points > 0)


@pytest.mark.parametrize("value", [0, np.nan, np.inf])
def test_nothing_measured_is_refused(value: float, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"empty\.tiff.*all 24.*picture alone"):
        load_points(write_tiff(tmp_path / "empty.tiff", np.full((4, 6, 3), value, np.float32)))


def test_millimetres_are_refused_where_no_unit_is_stated(points: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"mm\.tiff.*looks like millimetres.*units='mm' \(--units mm\)"):
        load_points(write_tiff(tmp_path / "mm.tiff", points * 1000))
    with pytest.raises(ImageError, match=r"no unit was stated.*units='m'"):
        load_points(points * 1000)
    points[0, 0] = (0.1, 0.1, 90.0)  # a single flying point says nothing about the unit
    assert measured(load_points(points)).any()


def surface(extent: float, count: int, noise: float, away: float) -> np.ndarray:
    """A gently domed square `(count, count, 3)` seen from above, all figures in one unit."""
    x, y = np.meshgrid(*2 * (np.linspace(-extent / 2, extent / 2, count),))
    z = away - 0.1 * extent * np.cos(x / extent) * np.cos(y / extent)
    return np.stack([x, y, z + np.random.default_rng(0).normal(0, noise, z.shape)], axis=-1)


@pytest.mark.parametrize(
    ("extent", "count", "noise", "found"),
    [
        (6, 300, 0.01, r"extends 5\.779 m"),  # a 6 mm part around the origin: its distance says nothing
        (1.5, 200, 0.0, r"7\.54 mm apart"),
        (0.6, 600, 0.003, "noise of 3"),
    ],
)
def test_a_small_part_in_millimetres_is_not_taken_for_a_large_one_in_metres(
    extent: float, count: int, noise: float, found: str
) -> None:
    part = surface(extent, count, noise, away=0.0)
    with pytest.raises(ImageError, match=f"{found}.*looks like millimetres"):
        load_points(part)
    loaded = load_points(part, units="mm")
    assert np.allclose(loaded, part / 1000, rtol=1e-6)
    assert np.allclose(load_points(part, units="m"), part)  # whoever says so is believed, within what is possible


def test_usual_scans_in_metres_need_no_unit() -> None:
    """From a part of 5 mm under a microscope to one of 1.5 m before a coarse depth camera."""
    for extent, count, noise in ((0.005, 200, 1e-6), (0.2, 100, 2e-4), (1.5, 400, 5e-4)):
        part = surface(extent, count, noise, away=2 * extent)
        assert np.allclose(load_points(part), part)


def test_a_stated_unit_is_checked_both_ways() -> None:
    part = surface(0.2, 100, 1e-4, away=0.5)
    for unit, metres in UNITS.items():
        assert np.allclose(load_points(part / metres, units=unit), part, rtol=1e-5)
    with pytest.raises(ImageError, match=r"in mm, as stated; got a scan of 192 micrometres"):
        load_points(part, units="mm")
    with pytest.raises(ImageError, match=r"\(stated: m\).*looks like millimetres"):
        load_points(1000 * part, units="m")
    with pytest.raises(SettingsError, match=r"m, cm, mm, um, in.*'miles'"):
        load_points(part, units="miles")


def test_spacing_and_noise_of_known_surfaces() -> None:
    for spacing, noise in ((1e-3, 0.0), (1e-3, 1e-4), (5e-4, 5e-4)):
        x, y = np.meshgrid(np.arange(300) * spacing, np.arange(200) * spacing)
        z = 0.5 + 0.2 * x + np.random.default_rng(1).normal(0, noise, x.shape)
        points = np.stack([x, y, z], axis=-1)
        points[::7, ::5] = np.nan
        found = spacing_and_noise(points)
        if noise < spacing / 5:
            assert found[0] == pytest.approx(np.hypot(1, 0.2) * spacing, rel=0.02)
        assert found[1] == pytest.approx(noise, rel=0.05, abs=1e-12)
        assert spacing_and_noise(np.repeat(points, 2, axis=1))[1] < 0.01 * spacing
    assert spacing_and_noise(np.full((4, 4, 3), np.nan)) == (0.0, 0.0)


def test_damaged_and_absent_files_are_named(points: np.ndarray, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "cut.tiff", points)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=r"cut\.tiff.*damaged"):
        load_points(path)
    np.save(tmp_path / "cut.npy", points)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-8])
    with pytest.raises(ImageError, match=r"cut\.npy.*damaged"):
        load_points(tmp_path / "cut.npy")
    (tmp_path / "text.npy").write_text("1 2 3")
    with pytest.raises(ImageError, match=r"text\.npy'; got bytes of no \.npy file; save it again"):
        load_points(tmp_path / "text.npy")
    (tmp_path / "none.tiff").touch()
    with pytest.raises(ImageError, match=r"none\.tiff.*0 bytes"):
        load_points(tmp_path / "none.tiff")
    with pytest.raises(ImageError, match=r"away\.tiff.*nothing there"):
        load_points(tmp_path / "away.tiff")
    with pytest.raises(ImageError, match="folder"):
        load_points(tmp_path)
    (tmp_path / "cloud.obj").write_text("obj")
    with pytest.raises(ImageError, match=r"cloud\.obj.*numpy\.save"):
        load_points(tmp_path / "cloud.obj")


class Harm:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_no_code_in_a_file_is_run(tmp_path: Path) -> None:
    np.save(tmp_path / "code.npy", np.array([[Harm(tmp_path / "done")]], dtype=object), allow_pickle=True)
    with pytest.raises(ImageError, match=r"code\.npy"):
        load_points(tmp_path / "code.npy")
    assert not (tmp_path / "done").exists()


def test_large_clouds_are_refused_before_they_are_read(points: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", points)
    for path in (tmp_path / "a.npy", write_tiff(tmp_path / "a.tiff", points)):
        with pytest.raises(ImageError, match="at most 100 pixels"):
            load_points(path, max_pixels=100)


def write_depth(folder: Path, levels: np.ndarray, info: str | None) -> Path:
    path = folder / "007_depth.png"
    Image.fromarray(levels).save(path)
    if info is not None:
        (folder / "007_info_depth.yaml").write_text(info)
    return path


@pytest.mark.parametrize(
    "info",
    [
        "normalization:\n  max: 5.5\n  min: 3.5e+0\n",
        "{normalization: {min: 3.5, max: 5.5}}",
        '"normalization":\n  "max": 55e-1 # as text, by YAML 1.1\n  "min": 3.5\n',
        "camera: {minimum: 9}\n# min: 1, max: 2\nnormalization:\n  {max: 5.5,\n   min: 3.5}\n",
    ],
)
def test_depth_becomes_points_that_project_onto_their_pixels(tmp_path: Path, info: str) -> None:
    levels = np.random.default_rng(0).integers(0, 65536, (32, 48)).astype(np.uint16)
    points = load_points(write_depth(tmp_path, levels, info))
    assert np.allclose(points[..., 2], 3.5 + levels / 65535 * 2.0, atol=1e-6)
    row, column = np.mgrid[:32, :48]
    focal = FOCAL * 48
    assert np.allclose(points[..., 0] / points[..., 2] * focal + 23.5, column, atol=1e-4)
    assert np.allclose(points[..., 1] / points[..., 2] * focal + 15.5, row, atol=1e-4)


def test_the_camera_of_eyecandies() -> None:
    assert pytest.approx(711.11, abs=0.01) == FOCAL * 512
    points = unproject(np.array([[1.0, 0.0, -1.0, np.nan]]))
    assert measured(points).tolist() == [[True, False, False, False]]


def test_the_axis_of_eyecandies_meets_the_middle_of_the_image() -> None:
    """Of four columns at the depth of the focal length the centres are half a pixel and one and a half away."""
    points = unproject(np.full((2, 4), FOCAL * 4))
    assert points[0, :, 0] == pytest.approx([-1.5, -0.5, 0.5, 1.5])
    assert points[:, 0, 1] == pytest.approx([-0.5, 0.5])
    assert unproject(np.ones((3, 5)))[1, 2].tolist() == [0, 0, 1]


@pytest.mark.parametrize("shape", [(6, 8), (5, 7)])
def test_the_points_of_eyecandies_are_seen_where_they_were_measured(shape: tuple[int, int]) -> None:
    """By a camera as any file states it, at the size of the image and at twice of it."""
    height, width = shape
    depth = np.random.default_rng(0).uniform(3.5, 5.5, shape)
    points = unproject(depth)
    camera = Camera(
        fx=FOCAL * width, fy=FOCAL * width, cx=(width - 1) / 2, cy=(height - 1) / 2, width=width, height=height
    )
    np.testing.assert_allclose(points, unprojected(depth, camera, "a"), rtol=1e-6)
    assert np.array_equal(projected(points.reshape(-1, 3), camera, *shape, "a"), np.arange(depth.size).reshape(shape))
    twice = camera_for(camera, 2 * height, 2 * width, "a")
    assert (twice.cx, twice.cy, twice.fx) == ((2 * width - 1) / 2, (2 * height - 1) / 2, FOCAL * 2 * width)


def test_depth_without_its_range_is_refused(tmp_path: Path) -> None:
    levels = np.zeros((4, 4), np.uint16)
    with pytest.raises(ImageError, match=r"007_depth\.png.*007_info_depth\.yaml"):
        load_points(write_depth(tmp_path, levels, None))
    for info in ("normalization: {}", "min: 2\nmax: 1", "min: near\nmax: far", "min: 1\nmax: .inf"):
        with pytest.raises(ImageError, match=r"007_info_depth\.yaml.*got min"):
            load_points(write_depth(tmp_path, levels, info))
    with pytest.raises(ImageError, match=r"YAML in '.*007_info_depth\.yaml'"):
        load_points(write_depth(tmp_path, levels, "min: [1, 2"))
    with pytest.raises(ImageError, match=r"16-bit grey.*mode L"):
        load_points(write_depth(tmp_path, levels.astype(np.uint8), "min: 1\nmax: 2"))
    path = write_depth(
        tmp_path, np.random.default_rng(0).integers(0, 9999, (40, 40)).astype(np.uint16), "min: 1\nmax: 2"
    )
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ImageError, match=r"007_depth\.png.*damaged"):
        load_points(path)


def test_numbers_are_found_at_any_depth_and_nothing_else_is() -> None:
    facts = {"a": {"b": {"min": "1e-1"}}, "anomalous": True, "max": None, "list": [{"far": 3}]}
    assert (number_in(facts, "min"), number_in(facts, "anomalous")) == (0.1, 1.0)
    assert number_in(facts, "max") is number_in(facts, "far") is number_in(None, "min") is None
