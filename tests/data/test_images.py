from __future__ import annotations

import errno
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from blemish.data.images import fit_size, load_image, load_mask, resize_image
from blemish.data.readers.base import MAX_PIXELS, check_file, pixel_limit
from blemish.errors import ImageError, SettingsError


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (23, 31, 3), dtype=np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(path: Path, width: int, height: int) -> Path:
    """A grey PNG that claims its size but holds almost no data: decoding it would fail, refusing it must not try."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    )
    return path


# Files as they should be


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "ppm", "jp2"])
def test_lossless_files_give_back_their_pixels(tmp_path: Path, noise: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(path, **({"lossless": True} if suffix == "webp" else {}))
    image = load_image(path)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable
    np.testing.assert_array_equal(image, noise)
    np.testing.assert_array_equal(load_image(str(path)), noise)


def test_jpeg_is_decoded_in_full_and_alike_each_time(tmp_path: Path, noise: np.ndarray) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(noise).save(path)
    with Image.open(path) as image:
        np.testing.assert_array_equal(load_image(path), np.asarray(image.convert("RGB")))
    np.testing.assert_array_equal(load_image(path), load_image(path))


@pytest.mark.parametrize(
    "name", ["with space.png", 'quote\'d "twice".png', "größe_部品_🔩.png", "~tmp.png", "no_suffix", "wrong.jpg"]
)
def test_names_of_every_kind(tmp_path: Path, noise: np.ndarray, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise).save(tmp_path / name, format="PNG")
    np.testing.assert_array_equal(load_image(tmp_path / name), noise)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(load_image(name), noise)


def test_a_name_that_is_not_unicode_can_be_shown(tmp_path: Path) -> None:
    path = Path(str(tmp_path) + "/\udcff.png")
    try:
        path.write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(ImageError) as caught:
        load_image(path)
    str(caught.value).encode("utf-8")


# Kinds of pixel


def test_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm", "jp2"])
def test_grey_of_16_bits_keeps_the_high_byte(tmp_path: Path, suffix: str) -> None:
    levels = np.array([[0, 255, 256, 511], [4095, 32768, 65279, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / f"a.{suffix}")
    image = load_image(tmp_path / f"a.{suffix}")
    assert image[..., 0].tolist() == [[0, 0, 1, 1], [15, 128, 254, 255]]
    assert (image == image[..., :1]).all()


@pytest.mark.filterwarnings("ignore:.*nearly black")
def test_16_bits_scale_alike_whatever_the_image_shows(tmp_path: Path) -> None:
    dim = np.full((4, 4), 2000, np.uint16)
    bright = dim.copy()
    bright[0, 0] = 60000  # a defect that glows must not darken the rest
    for name, levels in (("dim", dim), ("bright", bright)):
        Image.fromarray(levels).save(tmp_path / f"{name}.png")
    np.testing.assert_array_equal(load_image(tmp_path / "dim.png")[1:], load_image(tmp_path / "bright.png")[1:])


@pytest.mark.filterwarnings("ignore:.*nearly black")
@pytest.mark.parametrize("level", [200, 300])
def test_16_bits_are_16_bits_however_dark(tmp_path: Path, level: int) -> None:
    levels = np.full((4, 4), level, np.uint16)
    for suffix in ("png", "pgm", "tif"):
        Image.fromarray(levels).save(tmp_path / f"a.{suffix}")
        assert load_image(tmp_path / f"a.{suffix}").max() == level >> 8, suffix
    for array in (levels, levels.astype(">u2")):
        assert load_image(array).max() == level >> 8


def test_colour_of_16_bits_follows_the_rule_of_grey(tmp_path: Path) -> None:
    levels = [0, 255, 256, 4095, 65279, 65535]
    row = b"\0" + b"".join(struct.pack(">HHH", v, v, v) for v in levels)
    header = struct.pack(">IIBBBBB", len(levels), 1, 16, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    )
    grey = np.array([levels], np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), load_image(tmp_path / "grey.png"))


def tiff(path: Path, bits: int, photometric: int, data: bytes, width: int, height: int) -> Path:
    """A little-endian uncompressed one-strip grey TIFF, written by hand."""
    values = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 277: 1, 278: height, 279: len(data)}
    values[273] = 8 + 2 + 12 * (len(values) + 1) + 4
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in sorted(values.items()))
    path.write_bytes(b"II*\0\x08\0\0\0" + struct.pack("<H", len(values)) + entries + b"\0" * 4 + data)
    return path


def test_a_tiff_of_12_bits_is_scaled_by_12_bits(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", 12, 1, bytes([0xFF, 0xF0, 0x00, 0x80, 0x00, 0x10]), 4, 1)  # 4095, 0, 2048, 16
    assert load_image(path)[0, :, 0].tolist() == [255, 0, 128, 1]


def test_a_tiff_of_16_bits_whose_white_is_zero_is_turned_round(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", 16, 0, struct.pack("<HH", 0, 65535), 2, 1)
    assert load_image(path)[0, :, 0].tolist() == [255, 0]


def test_float_tiff_in_0_to_1(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 0.25, 0.5, 1.0005]], np.float32)).save(tmp_path / "a.tif")
    assert load_image(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 64, 128, 255]


@pytest.mark.parametrize(
    ("values", "said"),
    [([0, 4095], "[0, 4095]"), ([-0.5, 1], "[-0.5, 1]"), ([np.nan, 1], "NaN"), ([np.inf, np.inf], "2 that are NaN")],
)
def test_float_tiff_beyond_is_refused(tmp_path: Path, values: list[float], said: str) -> None:
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"a\.tif") as caught:
        load_image(tmp_path / "a.tif")
    assert said in str(caught.value)


def test_integers_wider_than_16_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="levels from 0 to 70000"):
        load_image(tmp_path / "a.tif")


def test_cmyk(tmp_path: Path, noise: np.ndarray) -> None:
    cmyk = Image.fromarray(noise).convert("CMYK")
    cmyk.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(load_image(tmp_path / "a.tif"), np.asarray(cmyk.convert("RGB")))
    cmyk.save(tmp_path / "a.jpg", quality=100, subsampling=0)
    assert load_image(tmp_path / "a.jpg").shape == noise.shape


def test_one_bit(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png")[0].tolist() == [[255] * 3, [0] * 3]


def test_palette(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    for x in range(3):
        image.putpixel((x, 0), x)
    image.save(tmp_path / "opaque.png")
    image.save(tmp_path / "clear.png", transparency=1)
    assert load_image(tmp_path / "opaque.png")[0].tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    assert load_image(tmp_path / "clear.png")[0].tolist() == [[10, 20, 30], [0, 0, 0], [70, 80, 90]]


def test_transparency_is_laid_on_black(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 51]]], np.uint8)).save(
        tmp_path / "rgba.png"
    )
    assert load_image(tmp_path / "rgba.png")[0].tolist() == [[200, 100, 50], [0, 0, 0], [40, 20, 10]]
    Image.fromarray(np.array([[[200, 255], [200, 0]]], np.uint8), "LA").save(tmp_path / "la.png")
    assert load_image(tmp_path / "la.png")[0].tolist() == [[200] * 3, [0] * 3]
    Image.fromarray(np.array([[[9, 8, 7], [7, 8, 9]]], np.uint8)).save(tmp_path / "key.png", transparency=(9, 8, 7))
    assert load_image(tmp_path / "key.png")[0].tolist() == [[0] * 3, [7, 8, 9]]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    image = np.zeros((16, 24, 3), np.uint8)
    image[:8, :8] = (255, 0, 0)  # one corner tells all eight orientations apart, with the one beside it
    image[:8, 16:] = (0, 255, 0)
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(image).save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(load_image(path), upright)
    assert load_image(path).shape[:2] == ((16, 24) if orientation < 5 else (24, 16))
    with Image.open(path) as image:
        np.testing.assert_array_equal(load_image(image), upright)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_cost_the_image(tmp_path: Path, noise: np.ndarray) -> None:
    Image.fromarray(noise).save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), noise)


@pytest.mark.filterwarnings("ignore:.*pages, of which the first is taken")
@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_of_several_frames_the_first(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 0, 255), (0, 255, 0))]
    frames[0].save(
        tmp_path / f"a.{suffix}",
        save_all=True,
        append_images=frames[1:],
        **({"lossless": True} if suffix == "webp" else {}),
    )
    assert np.unique(load_image(tmp_path / f"a.{suffix}").reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]


# Files as they should not be


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "gif", "ppm", "jp2"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_files_are_refused_by_name(tmp_path: Path, suffix: str, share: float) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"whole.{suffix}")
    data = (tmp_path / f"whole.{suffix}").read_bytes()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=rf"cut\.{suffix}"):
        load_image(path)
    with pytest.raises(ImageError, match=rf"cut\.{suffix}"):
        load_mask(path)


def test_a_disk_that_fails_is_not_called_an_absent_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("blemish.data.readers.base.os.stat", fail)
    with pytest.raises(ImageError, match=r"a\.png'; got Input/output error; check the disk"):
        check_file(tmp_path / "a.png")


def test_other_unreadable_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture at all\n" * 9)
    (tmp_path / "page.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    for name, said in (
        ("empty.png", "0 bytes"),
        ("text.png", "no known picture format"),
        ("page.eps", "no known picture format"),
        ("absent.png", "nothing there"),
        ("loop.png", "nothing there"),
        ("n" * 300 + ".png", "nothing there"),
        ("", "a folder"),
    ):
        with pytest.raises(ImageError) as caught:
            load_image(tmp_path / name)
        assert name in str(caught.value)
        assert said in str(caught.value)


def test_every_corrupted_byte_gives_an_image_or_an_image_error(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    noise = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for suffix in ("png", "jpg", "bmp", "tif", "webp", "gif", "jp2"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(noise).save(path)
        data = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(60):
            damaged = data.copy()
            damaged[random.integers(0, min(len(data), 400), 3)] = random.integers(0, 256, 3)
            path.write_bytes(damaged.tobytes())
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    image = load_image(path, max_pixels=10_000_000)
            except ImageError:
                continue
            assert image.dtype == np.uint8
            assert image.shape[2] == 3


# The limit on size


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = png_of_size(tmp_path / "huge.png", 20_000, 20_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError) as caught:
            load_image(path)
    for word in ("huge.png", "max_pixels", "BLEMISH_MAX_PIXELS", "100,000,000"):
        assert word in str(caught.value)


@pytest.mark.parametrize("sides", [(9_400, 9_600), (9_999, 10_002), (13_000, 13_500)])
def test_sizes_around_pillows_own_limit_warn_of_nothing(tmp_path: Path, sides: tuple[int, int]) -> None:
    path = png_of_size(tmp_path / "large.png", *sides)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError) as caught:
            load_image(path)
    too_large = sides[0] * sides[1] > MAX_PIXELS
    assert ("at most" if too_large else "a whole picture") in str(caught.value)


def test_the_limit_can_be_raised_and_lowered(
    tmp_path: Path, noise: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(noise).save(tmp_path / "a.png")
    pixels = noise.shape[0] * noise.shape[1]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow's own would refuse this file
    np.testing.assert_array_equal(load_image(tmp_path / "a.png", max_pixels=pixels), noise)
    with pytest.raises(ImageError, match="31x23 = 713 pixels"):
        load_image(tmp_path / "a.png", max_pixels=pixels - 1)
    monkeypatch.setenv("BLEMISH_MAX_PIXELS", str(pixels - 1))
    with pytest.raises(ImageError, match="at most 712 pixels"):
        load_image(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png", max_pixels=pixels).shape == noise.shape
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize("suffix", ["tif", "gif", "webp", "jpg"])
def test_a_raised_limit_holds_while_decoding(
    tmp_path: Path, noise: np.ndarray, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    Image.fromarray(noise).save(tmp_path / f"a.{suffix}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert load_image(tmp_path / f"a.{suffix}", max_pixels=10_000).shape == noise.shape


@pytest.mark.parametrize("value", ["many", "0", "-3"])
def test_an_impossible_limit_is_a_settings_error(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLEMISH_MAX_PIXELS", value)
    with pytest.raises(SettingsError, match="BLEMISH_MAX_PIXELS"):
        pixel_limit()


def test_threads_do_not_disturb_one_another(tmp_path: Path, noise: np.ndarray) -> None:
    Image.fromarray(noise).save(tmp_path / "a.tif")
    before, outcomes = Image.MAX_IMAGE_PIXELS, []

    def read(limit: int) -> None:  # 713 pixels: one limit allows them, the other does not
        for _ in range(30):
            try:
                outcomes.append(np.array_equal(load_image(tmp_path / "a.tif", limit), noise) and limit == 1000)
            except ImageError:
                outcomes.append(limit == 10)

    threads = [threading.Thread(target=read, args=(limit,)) for limit in (1000, 10, 1000, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [True] * 120
    assert before == Image.MAX_IMAGE_PIXELS


# Arrays and PIL images


def test_arrays_of_every_accepted_kind(noise: np.ndarray) -> None:
    grey = noise[..., 0]
    assert load_image(noise) is noise
    for array in (grey, grey[..., None], grey.astype(np.uint16) * 257, grey / 255, (grey / 255).astype(np.float32)):
        np.testing.assert_array_equal(load_image(array), np.repeat(grey[..., None], 3, 2))
    np.testing.assert_array_equal(load_image(grey > 99)[..., 0], np.where(grey > 99, 255, 0))
    np.testing.assert_array_equal(load_image(noise.astype(np.float64) / 255), noise)
    opaque = np.dstack([noise, np.full(grey.shape, 255, np.uint8)])
    np.testing.assert_array_equal(load_image(opaque), noise)
    np.testing.assert_array_equal(load_image(noise[::2, ::-1]), noise[::2, ::-1])
    fixed = noise.copy()
    fixed.flags.writeable = False
    assert load_image(fixed).flags.writeable


@pytest.mark.parametrize(
    ("shape", "dtype", "said"),
    [
        ((5,), np.uint8, "shape (5,)"),
        ((4, 5, 2), np.uint8, "shape (4, 5, 2)"),
        ((3, 40, 50), np.uint8, "moveaxis"),
        ((2, 4, 5, 3), np.uint8, "one picture at a time"),
        ((0, 5, 3), np.uint8, "shape (0, 5, 3)"),
        ((4, 5, 3), np.complex64, "complex64"),
        ((4, 5, 3), object, "object"),
    ],
)
def test_other_arrays_are_refused(shape: tuple[int, ...], dtype: type, said: str) -> None:
    with pytest.raises(ImageError) as caught:
        load_image(np.zeros(shape, dtype))
    assert said in str(caught.value)


def test_other_objects_are_refused() -> None:
    with pytest.raises(ImageError, match="list"):
        load_image([[1, 2], [3, 4]])  # type: ignore[arg-type]


def test_pil_images(noise: np.ndarray) -> None:
    image = Image.fromarray(noise)
    np.testing.assert_array_equal(load_image(image), noise)
    grey = image.convert("L")
    np.testing.assert_array_equal(load_image(grey)[..., 1], np.asarray(grey))
    with pytest.raises(ImageError, match="max_pixels"):
        load_image(image, max_pixels=5)


# Masks


def test_masks_are_what_is_not_black(tmp_path: Path) -> None:
    levels = np.zeros((4, 5), np.uint8)
    levels[1, 2], levels[3, 4] = 1, 255
    expected = levels > 0
    Image.fromarray(levels).save(tmp_path / "grey.png")
    Image.fromarray(levels.astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.dstack([levels * 0, levels, levels * 0])).save(tmp_path / "green.png")
    Image.fromarray(expected).save(tmp_path / "bit.png")
    alpha = np.dstack([levels, levels, levels, np.full_like(levels, 255)])
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    palette = Image.fromarray(np.where(expected, 0, 1).astype(np.uint8), "P")
    palette.putpalette([255, 0, 0, 0, 0, 0])
    palette.save(tmp_path / "palette.png")
    for name in ("grey", "deep", "green", "bit", "alpha", "palette"):
        mask = load_mask(tmp_path / f"{name}.png", (4, 5))
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, expected, err_msg=name)
    for array in (levels, expected, levels[..., None], np.dstack([levels] * 3)):
        np.testing.assert_array_equal(load_mask(array), expected)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_mask_in_a_file_whose_zero_is_white(tmp_path: Path, kind: type) -> None:
    tifffile = pytest.importorskip("tifffile")
    levels = np.zeros((4, 5), kind)
    levels[1, 2], levels[3, 4] = 1, np.iinfo(kind).max
    tifffile.imwrite(tmp_path / "a.tif", np.iinfo(kind).max - levels, photometric="miniswhite")
    np.testing.assert_array_equal(load_mask(tmp_path / "a.tif"), levels > 0)


def test_the_ringing_of_jpeg_is_no_defect(tmp_path: Path) -> None:
    levels = np.zeros((64, 64), np.uint8)
    levels[20:37, 11:40] = 255
    Image.fromarray(levels).save(tmp_path / "a.jpg", quality=60)
    assert (np.asarray(Image.open(tmp_path / "a.jpg"))[levels == 0] > 0).any()
    np.testing.assert_array_equal(load_mask(tmp_path / "a.jpg"), levels > 0)


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    Image.new("L", (5, 4)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a mask of 4x5 pixels.*a\.png.*5x4"):
        load_mask(tmp_path / "a.png", (5, 4))
    with pytest.raises(ImageError, match="shape"):
        load_mask(np.zeros((2, 3, 4, 5)))


# Sizes


def test_resize_is_antialiased_and_keeps_constants() -> None:
    board = np.indices((64, 64)).sum(0) % 2 * np.uint8(255)
    small = resize_image(np.dstack([board] * 3).astype(np.uint8), (8, 16))
    assert small.shape == (8, 16, 3)
    assert np.abs(small[1:-1, 1:-1].astype(int) - 128).max() <= 2  # without antialiasing: 0 or 255
    flat = np.full((7, 9, 3), 77, np.uint8)
    assert (resize_image(flat, (30, 4)) == 77).all()
    assert resize_image(flat, (7, 9)) is flat


@pytest.mark.parametrize(
    ("size", "image_size", "multiple", "square", "expected"),
    [
        ((512, 512), 448, 14, False, (448, 448)),
        ((448, 336), 336, 14, False, (448, 336)),
        ((336, 448), 336, 14, False, (336, 448)),
        ((480, 640), 450, 14, False, (448, 602)),
        ((1, 1), 224, 16, False, (224, 224)),
        ((100, 10_000), 224, 14, False, (224, 896)),
        ((10_000, 100), 224, 14, False, (896, 224)),
        ((100, 300), 224, 32, True, (224, 224)),
        ((100, 300), 5, 14, True, (14, 14)),
    ],
)
def test_fit_size(
    size: tuple[int, int], image_size: int, multiple: int, square: bool, expected: tuple[int, int]
) -> None:
    assert fit_size(*size, image_size, multiple, square) == expected


def test_fit_size_properties() -> None:
    random = np.random.default_rng(3)
    for h, w, image_size, multiple in zip(
        *random.integers(1, 3000, (3, 300)), random.integers(1, 40, 300), strict=True
    ):
        sides = fit_size(int(h), int(w), int(image_size), int(multiple))
        assert all(side % multiple == 0 and side >= multiple for side in sides)
        assert abs(min(sides) - image_size) <= max(multiple / 2, multiple - image_size)
        assert max(sides) <= 4 * image_size + multiple
        assert fit_size(int(w), int(h), int(image_size), int(multiple)) == sides[::-1]


def test_fit_size_of_nothing() -> None:
    with pytest.raises(SettingsError):
        fit_size(0, 5, 224, 14)


def test_reading_images_needs_no_torch() -> None:
    code = "import sys, blemish.data; assert not {'torch', 'scipy', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
