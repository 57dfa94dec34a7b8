"""The reader of DICOM, by pydicom: X-ray and CT images of parts, whose header declares their bit depth."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from blemish.data.readers.base import Decoded, check_pixels, no_page
from blemish.errors import ImageError
from blemish.utils.optional import need


def read_dicom(file: BinaryIO, name: str, limit: int, page: int | None = None) -> Decoded:
    """Decode an open DICOM file from its beginning; `page` is a frame and counts from 1.

    Levels are as stored: no window and no modality table is applied. Signed ones are shifted to begin at 0.
    """
    pydicom = need("pydicom", "dicom", "DICOM pictures")
    has_frames = hasattr(pydicom, "pixels")  # from 3.0 on: it reads one frame without the others
    dataset = pydicom.dcmread(file, stop_before_pixels=has_frames)
    frames = int(dataset.get("NumberOfFrames", None) or 1)
    if page is not None and page > frames:
        raise no_page(name, frames)
    check_pixels(int(dataset.Rows), int(dataset.Columns), name, limit)
    index = (page or 1) - 1
    if has_frames:
        file.seek(0)
        levels = np.asarray(pydicom.pixels.pixel_array(file, index=index))  # (H, W) or (H, W, 3)
    else:
        levels = np.asarray(dataset.pixel_array)
        levels = levels[index] if frames > 1 else levels
    kind, bits = str(dataset.PhotometricInterpretation), int(dataset.BitsStored)
    if kind not in ("MONOCHROME1", "MONOCHROME2", "RGB"):
        raise ImageError(f"grey or RGB levels in '{name}'", kind, "convert it to RGB")
    if int(dataset.PixelRepresentation) == 1:
        levels = (levels.astype(np.int64) + (1 << (bits - 1))).astype(np.uint32)
    is_declared = bits > 8 or (bits == 8 and levels.dtype.itemsize > 1)
    return Decoded(name, levels=levels, bits=bits if is_declared else None, white_is_zero=kind == "MONOCHROME1")
