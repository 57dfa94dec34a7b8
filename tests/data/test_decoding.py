from __future__ import annotations

import builtins
import io
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.data.full_scale import FullScale, learn_full_scale
from blemish.data.images import load_image, load_levels
from blemish.errors import ImageError
from blemish.types import Sample


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def test_bytes_and_binary_files(tmp_path: Path, noise: np.ndarray) -> None:
    Image.fromarray(noise).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    with (tmp_path / "a.png").open("rb") as file:
        sources: list[Any] = [content, bytearray(content), memoryview(content), io.BytesIO(content), file]
        for source in sources:
            np.testing.assert_array_equal(load_image(source), noise)
    with pytest.raises(ImageError, match="bytes"):
        load_image(content[:40])
    with pytest.raises(ImageError, match="no bytes"):
        load_image(b"")
    with (tmp_path / "a.png").open("r", encoding="latin-1") as text, pytest.raises(ImageError, match="mode 'rb'"):
        load_image(text)  # type: ignore[arg-type]


def test_numpy_files(tmp_path: Path, noise: np.ndarray) -> None:
    deep = noise[..., 0].astype(">u2") << 4
    for name, array in (("rgb", noise), ("grey", noise[..., 0]), ("float", noise / 255), ("deep", deep)):
        np.save(tmp_path / f"{name}.npy", array)
    for name in ("rgb", "float"):
        np.testing.assert_array_equal(load_image(tmp_path / f"{name}.npy"), noise)
    np.testing.assert_array_equal(load_image(tmp_path / "grey.npy")[..., 2], noise[..., 0])
    scale = learn_full_scale([Sample(tmp_path / "deep.npy")])
    assert scale.bits == 12
    np.testing.assert_array_equal(load_image(tmp_path / "deep.npy", full_scale=scale)[..., 0], noise[..., 0])
    with pytest.raises(ImageError, match="at most 10 pixels"):
        load_image(tmp_path / "rgb.npy", max_pixels=10)
    for name, array in (("row", np.zeros(5)), ("objects", np.array([[{}]], dtype=object))):
        np.save(tmp_path / f"{name}.npy", array, allow_pickle=True)
        with pytest.raises(ImageError, match=name):
            load_image(tmp_path / f"{name}.npy")


def test_avif_and_heic(tmp_path: Path) -> None:
    y, x = np.mgrid[:64, :96]
    smooth = np.dstack([x * 2, y * 3, x + y]).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.avif", quality=95)
    pytest.importorskip("pillow_heif").register_heif_opener()
    Image.fromarray(smooth).save(tmp_path / "a.heic", quality=95)
    for name in ("a.avif", "a.heic"):
        seen = load_image(tmp_path / name)
        assert seen.shape == smooth.shape
        assert np.abs(seen.astype(int) - smooth).mean() < 4, name


def dicom(path: Path, levels: np.ndarray, bits: int, photometric: str = "MONOCHROME2", signed: bool = False) -> Path:
    """A DICOM file of one grey frame, or of several for `(N, H, W)` levels."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = pydicom.dataset.FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, meta.MediaStorageSOPInstanceUID
    *frames, dataset.Rows, dataset.Columns = levels.shape
    if frames:
        dataset.NumberOfFrames = frames[0]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    dataset.PixelData = levels.astype("<i2" if signed else "<u2").tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_dicom_is_scaled_by_the_depth_it_declares(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 4096, (20, 30), dtype=np.uint16)
    expected = levels >> 4
    path = dicom(tmp_path / "a.dcm", levels, 12)
    for scale in (None, FullScale(), FullScale(bits=16)):
        np.testing.assert_array_equal(load_image(path, full_scale=scale)[..., 0], expected)
    assert learn_full_scale([Sample(path)]) == FullScale()
    np.testing.assert_array_equal(
        load_image(dicom(tmp_path / "b.dcm", levels, 12, "MONOCHROME1"))[..., 0], 255 - expected
    )
    signed = levels.astype(np.int16) - 2048
    np.testing.assert_array_equal(load_image(dicom(tmp_path / "c.dcm", signed, 12, signed=True))[..., 0], expected)
    frames = dicom(tmp_path / "d.dcm", np.stack([levels, levels[::-1]]), 12)
    np.testing.assert_array_equal(load_image(f"{frames}#2")[..., 0], expected[::-1])
    with pytest.raises(ImageError, match="at most 10 pixels"):
        load_image(path, max_pixels=10)
    np.testing.assert_array_equal(load_image(dicom(tmp_path / "e.dcm", levels % 256, 8))[..., 0], levels % 256)


def test_of_a_dicom_of_many_frames_one_is_decoded(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", minversion="3.0")
    levels = np.random.default_rng(0).integers(0, 4096, (64, 128, 128), dtype=np.uint16)
    path = dicom(tmp_path / "a.dcm", levels, 12)
    load_image(path)  # what is imported does not count
    tracemalloc.start()
    image = load_image(f"{path}#60")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(image[..., 0], levels[59] >> 4)
    assert peak < levels.nbytes / 4


def test_levels_in_memory_keep_all_bits_and_are_not_the_callers(noise: np.ndarray) -> None:
    deep = noise[..., 0].astype(np.uint16) << 4
    for source in (deep, Image.fromarray(deep)):
        kept = load_levels(source)
        assert kept.dtype == np.uint16
        np.testing.assert_array_equal(kept, deep)
        assert not np.shares_memory(kept, deep)
    np.testing.assert_array_equal(load_levels(Image.fromarray(noise)), noise)


def test_an_empty_path_is_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for empty in ("", "  "):
        with pytest.raises(ImageError, match="an empty text"):
            load_image(empty)


def test_permission_denied_is_said(tmp_path: Path, noise: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise).save(tmp_path / "a.png")
    usual = builtins.open

    def refuse(file: Any, *args: Any, **options: Any) -> Any:
        if str(file).endswith("a.png"):
            raise PermissionError(13, os.strerror(13))
        return usual(file, *args, **options)

    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(ImageError, match=r"a\.png.*permission denied.*right to read") as caught:
        load_image(tmp_path / "a.png")
    assert "damaged" not in str(caught.value)
