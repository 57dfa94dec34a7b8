from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from blemish.data.decoding import decode, pages_of
from blemish.data.full_scale import FullScale
from blemish.data.images import load_image
from blemish.errors import DataWarning, ImageError

SIZE = (37, 53)


def stored(dtype: str, channels: int, high: int) -> np.ndarray:
    random = np.random.default_rng(channels)
    if dtype.startswith("f"):
        return random.random((*SIZE, channels)).astype(dtype)
    return random.integers(0, high, (*SIZE, channels)).astype(dtype)


def write(path: Path, pixels: np.ndarray, planar: str, **options: Any) -> Path:
    channels = pixels.shape[2]
    laid = np.moveaxis(pixels, 2, 0) if planar == "separate" else pixels
    options["photometric"] = "rgb" if channels >= 3 else "minisblack"
    options["planarconfig"] = planar if channels > 1 else None
    options["extrasamples"] = ["unassalpha"] if channels in (2, 4) else None
    tifffile.imwrite(path, laid if channels > 1 else pixels[..., 0], **options)
    return path


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_every_way_to_store_pixels_gives_the_right_ones(
    tmp_path: Path, planar: str, compression: str | None, byteorder: str, tile: tuple[int, int] | None
) -> None:
    way = {"compression": compression, "byteorder": byteorder, "tile": tile}
    for dtype, bits in (("u1", 8), ("u2", 16), ("u2", 12), ("i1", 7), ("i2", 12), ("u4", 12), ("i4", 12), ("f4", 0)):
        for channels in (1, 3, 4):
            if (planar == "separate" and channels == 1) or (dtype == "i1" and channels == 4):  # opaque would be 127
                continue
            pixels = stored(dtype, channels, 1 << bits)
            if channels == 4:
                pixels[..., 3] = 1 if dtype == "f4" else (1 << bits) - 1
            path = write(tmp_path / "a.tif", pixels, planar, **way)
            scale = FullScale(bits=max(bits, 8), floats=1.0)
            expected = np.rint(pixels * 255.0) if dtype == "f4" else pixels.astype(np.int64) >> max(bits - 8, 0)
            np.testing.assert_array_equal(
                load_image(path, full_scale=scale),
                np.repeat(expected, 3, 2) if channels == 1 else expected[..., :3],
                err_msg=f"{dtype} {bits} bits {channels} channels {planar} {way}",
            )


def test_16_bit_colours_in_planes_are_an_error_without_tifffile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.tif", stored("u2", 3, 1 << 16), "separate")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ImageError, match=r"a\.tif.*16-bit.*separate planes.*blemish\[tiff\]"):
        load_image(path)


def test_16_bit_colours_side_by_side_need_no_tifffile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = stored("u2", 3, 1 << 16)
    path = write(tmp_path / "a.tif", pixels, "contig")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    np.testing.assert_array_equal(load_image(path), pixels >> 8)


def test_an_error_about_a_tiff_never_tells_it_to_become_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", stored("u2", 5, 1 << 16), "contig")
    with pytest.raises(ImageError, match="5 channels"):
        load_image(path)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"cut\.tif") as caught:
        load_image(tmp_path / "cut.tif")
    assert "convert it to one of" not in str(caught.value)


def stack(path: Path, count: int = 3) -> list[np.ndarray]:
    frames = [np.random.default_rng(i).integers(0, 256, (20, 30, 3), dtype=np.uint8) for i in range(count)]
    first, *rest = map(Image.fromarray, frames)
    first.save(path, save_all=True, append_images=rest)
    return frames


def test_pages_are_named_from_1(tmp_path: Path) -> None:
    frames = stack(tmp_path / "a.tif")
    pages = pages_of(tmp_path / "a.tif")
    assert [page.name for page in pages] == ["a.tif#1", "a.tif#2", "a.tif#3"]
    for i, (page, frame) in enumerate(zip(pages, frames, strict=True)):
        np.testing.assert_array_equal(load_image(page), frame)
        np.testing.assert_array_equal(load_image(tmp_path / "a.tif", page=i + 1), frame)
    assert decode(pages[1]).name.endswith("a.tif#2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nobody is told that the first page was taken
        np.testing.assert_array_equal(load_image((tmp_path / "a.tif").read_bytes(), page=3), frames[2])
    with pytest.warns(DataWarning, match="3 pages, of which the first"):
        np.testing.assert_array_equal(load_image(tmp_path / "a.tif"), frames[0])
    for absent, said in (("#4", r"a\.tif#4.* a file of 3"), ("#9", "a file of 3"), ("#0", r"a\.tif#0")):
        with pytest.raises(ImageError, match=said):
            load_image(f"{tmp_path / 'a.tif'}{absent}")


def test_pages_of_16_bit_colours_in_planes(tmp_path: Path) -> None:
    pixels = stored("u2", 3, 1 << 16)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for page in (pixels, pixels[::-1]):
            tiff.write(np.moveaxis(page, 2, 0), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(load_image(f"{tmp_path / 'a.tif'}#2"), pixels[::-1] >> 8)
    with pytest.raises(ImageError, match="a file of 2"):
        load_image(f"{tmp_path / 'a.tif'}#3")


def test_pages_of_a_kind_that_pillow_does_not_know(tmp_path: Path) -> None:
    frames = [np.full((6, 8, 3), level, np.float32) for level in (0.2, 0.6)]
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for frame in frames:
            tiff.write(frame, photometric="rgb")
    pages = pages_of(tmp_path / "a.tif")
    assert [load_image(page)[0, 0, 0] for page in pages] == [51, 153]


def test_many_channels_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((6, 8, 64), np.uint16), photometric="minisblack", planarconfig=1)
    monkeypatch.delattr(tifffile.TiffPage, "asarray")
    with pytest.raises(ImageError, match=r"a\.tif.*64 channels"):
        load_image(tmp_path / "a.tif")


def test_smaller_copies_are_no_pages_and_a_name_with_a_number_sign_is_a_file(tmp_path: Path) -> None:
    whole, small = np.zeros((20, 30), np.uint8), np.zeros((10, 15), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", whole)
    with tifffile.TiffWriter(tmp_path / "two.tif") as tiff:
        tiff.write(whole)
        tiff.write(small)
    for name in ("a.tif", "two.tif"):
        assert pages_of(tmp_path / name) == [tmp_path / name]
    with tifffile.TiffWriter(tmp_path / "each.tif") as tiff:
        for _ in range(2):
            tiff.write(whole)
            tiff.write(small, subfiletype=1)
    assert [page.name for page in pages_of(tmp_path / "each.tif")] == ["each.tif#1", "each.tif#3"]
    with tifffile.TiffWriter(tmp_path / "one.tif") as tiff:
        tiff.write(whole)
        tiff.write(small, subfiletype=1)
    assert pages_of(tmp_path / "one.tif") == [tmp_path / "one.tif"]
    Image.new("RGB", (2, 3), (1, 2, 3)).save(tmp_path / "a.tif#1", format="PNG")
    assert load_image(tmp_path / "a.tif#1").shape == (3, 2, 3)
