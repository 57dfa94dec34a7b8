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
    dataset = pydicom.dcmread(file)
    frames = int(dataset.get("NumberOfFrames", None) or 1)
    if page is not None and page > frames:
        raise no_page(name, frames)
    check_pixels(int(dataset.Rows), int(dataset.Columns), name, limit)
    levels = np.asarray(dataset.pixel_array)  # (H, W), (H, W, 3), or either with frames first
    if frames > 1:
        levels = levels[(page or 1) - 1]
    kind, bits = str(dataset.PhotometricInterpretation), int(dataset.BitsStored)
    if kind not in ("MONOCHROME1", "MONOCHROME2", "RGB"):
        raise ImageError(f"grey or RGB levels in '{name}'", kind, "convert it to RGB")
    if int(dataset.PixelRepresentation) == 1:
        levels = (levels.astype(np.int64) + (1 << (bits - 1))).astype(np.uint32)
    return Decoded(name, levels=levels, bits=bits if bits > 8 else None, white_is_zero=kind == "MONOCHROME1")
