from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blemish.data.data_warnings import collected_warnings
from blemish.data.full_scale import FullScale, learn_full_scale, to_uint8
from blemish.data.images import load_image
from blemish.errors import DataWarning, ImageError, SettingsError
from blemish.types import Sample


def levels(bits: int, dtype: type = np.uint16, seed: int = 0) -> np.ndarray:
    """Levels `(40, 50)` that use nearly all of a depth."""
    return np.random.default_rng(seed).integers(0, 1 << bits, (40, 50)).astype(dtype)


def png_of_colours(path: Path, pixels: np.ndarray) -> Path:
    """A PNG of 16 bits a channel, written by hand: Pillow writes none. `pixels` is (H, W, 3) or (H, W, 4) uint16."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2 if channels == 3 else 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def learned(*images: np.ndarray | Path, bit_depth: int | None = None) -> FullScale:
    return learn_full_scale([Sample(image) for image in images], bit_depth)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_the_depth_of_a_camera_is_learned_and_all_8_bits_are_kept(tmp_path: Path, bits: int, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(levels(bits)).save(path)
    scale = learned(path)
    assert (scale.bits, scale.floats, scale.stated) == (bits, None, False)
    expected = (levels(bits) >> (bits - 8)).astype(np.uint8)
    np.testing.assert_array_equal(load_image(path, full_scale=scale)[..., 1], expected)
    assert len(np.unique(load_image(path, full_scale=scale))) > 200


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_12_bits_in_a_png_keep_their_low_bits(tmp_path: Path, channels: int) -> None:
    pixels = np.dstack([levels(12, seed=seed) for seed in range(3)] + [np.full((40, 50), 65535, np.uint16)])
    path = png_of_colours(tmp_path / "a.png", pixels[..., :channels])
    scale = learned(path)
    assert scale.bits == 12
    np.testing.assert_array_equal(load_image(path, full_scale=scale), pixels[..., :3] >> 4)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32])
def test_wide_integers_with_levels_to_255(tmp_path: Path, dtype: type) -> None:
    array = levels(8, dtype)
    assert learned(array).bits == 8
    for scale in (None, learned(array)):
        np.testing.assert_array_equal(load_image(array, full_scale=scale)[..., 0], array)
    if dtype == np.int32:
        Image.fromarray(array).save(tmp_path / "a.tif")
        np.testing.assert_array_equal(load_image(tmp_path / "a.tif")[..., 0], array)


def test_a_defect_that_glows_does_not_darken_the_rest() -> None:
    dark, bright = levels(10), levels(10)
    bright[3, 4] = 5000
    scale = learned(dark)
    with pytest.warns(DataWarning, match=r"above full scale \(1023 at 10 bits\)"):
        seen = load_image(bright, full_scale=scale)
    assert seen[3, 4, 0] == 255
    kept = np.ones(dark.shape, bool)
    kept[3, 4] = False
    np.testing.assert_array_equal(seen[kept], load_image(dark, full_scale=scale)[kept])


@pytest.mark.parametrize(
    ("image", "scale", "said"),
    [
        (levels(8), FullScale(bits=12), "nearly black"),
        (levels(12), None, "state its bit depth"),
        (levels(12), FullScale(), "no good picture had"),
        (levels(14), FullScale(bits=12), "cut off"),
        (np.full((4, 4), 9.0), FullScale(floats=255.0), "nearly black"),
        (np.full((4, 4), 300.0), FullScale(floats=255.0), "cut off"),
    ],
)
def test_an_image_that_disagrees_is_warned_of(image: np.ndarray, scale: FullScale | None, said: str) -> None:
    with collected_warnings() as found:
        load_image(image, full_scale=scale)
    assert [warning.kind for warning in found] == ["scale"]
    assert said in str(found[0])


@pytest.mark.parametrize(
    ("image", "scale"),
    [
        (levels(12), FullScale(bits=12)),
        (levels(10), FullScale(bits=12)),
        (levels(16), None),
        (levels(8, np.uint8), FullScale(bits=12)),
        (levels(8, np.int64), None),
        (levels(8) / 255.0, FullScale()),
    ],
)
def test_an_image_that_agrees_is_not(image: np.ndarray, scale: FullScale | None) -> None:
    with collected_warnings() as found:
        load_image(image, full_scale=scale)
    assert found == []


def test_floats_in_0_to_1_and_0_to_255_are_alike() -> None:
    grey = levels(8, np.uint8)
    ones, bytes_ = grey / 255.0, grey.astype(np.float32)
    assert learned(ones).floats == 1.0
    assert learned(bytes_).floats == 255.0
    assert learned(levels(12).astype(np.float32)).floats == 4095.0
    for array in (ones, bytes_):
        for scale in (None, FullScale(), learned(array)):
            np.testing.assert_array_equal(load_image(array, full_scale=scale)[..., 2], grey)
    dim = grey.astype(np.float32) / 400  # no level above 1: only the learned scale can tell
    assert load_image(dim, full_scale=learned(ones)).max() > 100


def test_8_bits_are_never_touched_nor_looked_at(tmp_path: Path) -> None:
    grey = levels(8, np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(grey).save(tmp_path / "a.jpg")
    assert learned(grey, tmp_path / "a.png", tmp_path / "a.jpg", grey > 99) == FullScale()
    for scale in (FullScale(bits=12), FullScale(bits=16, stated=True), FullScale(floats=255.0)):
        np.testing.assert_array_equal(load_image(tmp_path / "a.png", full_scale=scale)[..., 0], grey)


@pytest.mark.filterwarnings("ignore:.*nearly black")
def test_the_user_states_the_depth() -> None:
    scale = learned(levels(9), bit_depth=12)
    assert (scale.bits, scale.stated) == (12, True)
    np.testing.assert_array_equal(to_uint8(levels(12), "a", scale), levels(12) >> 4)
    np.testing.assert_array_equal(to_uint8(levels(12), "a", scale, bits=16), levels(12) >> 4)  # outranks a header
    np.testing.assert_array_equal(to_uint8(levels(12), "a", FullScale(bits=12), bits=16), levels(12) >> 8)
    for impossible in (7, 33, 0):
        with pytest.raises(SettingsError, match="bit depth from 8 to 32"):
            learned(levels(8), bit_depth=impossible)


@pytest.mark.filterwarnings("ignore:Truncated File Read", "ignore:Corrupt EXIF")
def test_all_images_together_decide_and_broken_ones_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "broken.tif").write_bytes(b"II*\0 no more")
    dark = levels(8)
    assert learned(dark, levels(12), tmp_path / "broken.tif", tmp_path / "absent.png", dark).bits == 12


def test_transparency_counts_for_itself() -> None:
    colours = np.dstack([levels(12)] * 3)
    for opaque in (4095, 65535):
        rgba = np.dstack([colours, np.full((40, 50), opaque, np.uint16)])
        np.testing.assert_array_equal(load_image(rgba, full_scale=FullScale(bits=12)), colours >> 4)
    assert learned(np.dstack([colours, np.full((40, 50), 65535, np.uint16)])).bits == 12


@pytest.mark.filterwarnings("ignore:.*nearly black")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_what_is_transparent_everywhere_is_refused(dtype: type) -> None:
    image = np.random.default_rng(0).integers(0, 2, (5, 6, 4)).astype(dtype)
    image[..., 3] = 0
    with pytest.raises(ImageError, match="transparent everywhere"):
        load_image(image)
    image[0, 0, 3] = 1
    load_image(image)


@pytest.mark.parametrize("scale", [FullScale(), FullScale(bits=12, floats=255.0), FullScale(bits=10, stated=True)])
def test_a_scale_survives_json(scale: FullScale) -> None:
    assert FullScale.from_dict(json.loads(json.dumps(scale.to_dict()))) == scale


@pytest.mark.parametrize("nonsense", [{"bits": "many"}, {"bits": 99}, {"floats": -1}, [], None])
def test_nonsense_is_no_scale(nonsense: object) -> None:
    with pytest.raises(SettingsError):
        FullScale.from_dict(nonsense)  # type: ignore[arg-type]


def test_what_cannot_be_levels_is_refused_with_true_advice() -> None:
    with pytest.raises(ImageError, match="at least 0") as caught:
        load_image(np.array([[-5, 3]]))
    assert "astype" not in str(caught.value)
    with pytest.raises(ImageError, match="--bit-depth 17"):
        load_image(np.array([[0, 70000]]))
    assert load_image(np.array([[0, 131071]]), full_scale=FullScale(bits=17)).max() == 255
    with pytest.raises(ImageError, match=r"\[0, 1\]"):
        load_image(np.full((3, 3), 200.0), full_scale=FullScale(floats=1.0))


def test_arrays_that_are_no_levels_are_passed_over() -> None:
    wide = Sample(np.full((4, 4), 4000, np.uint16))
    for strange in (np.array([["a"]]), np.zeros((2, 2), complex), np.zeros((2, 2), object)):
        assert learn_full_scale([Sample(strange), wide]) == FullScale(bits=12)
