"""Decode one image file, whatever its format, by the reader that its first bytes call for; and name pages of files."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from PIL import Image

from blemish.data.files import shown
from blemish.data.readers import npy, tiff
from blemish.data.readers.base import FORMATS, Decoded, check_file, guarded, pixel_limit
from blemish.data.readers.dicom import read_dicom
from blemish.data.readers.pillow import load, read_with_pillow
from blemish.errors import ImageError
from blemish.utils.optional import need

FileSource = Path | str | bytes | BinaryIO
ImageSource = FileSource | np.ndarray | Image.Image

_HEAD = 132  # bytes that tell one format from another: DICOM's mark ends here
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")
_PAGE = re.compile(r"(.+)#([1-9][0-9]{0,6})", re.DOTALL)


def decode(source: FileSource | Image.Image, max_pixels: int | None = None, page: int | None = None) -> Decoded:
    """Decode a file (a path, its bytes, or an open binary file) or a PIL image.

    `page` of a TIFF, DICOM or animation counts from 1; a path may end in "#3" to name it. None is the first page (of a
    PIL image, its current one). A file of more than `max_pixels` pixels is refused before it is decoded.

    Raises ImageError, which names the file, for everything that cannot be read; MissingPackageError for HEIC and DICOM
    without the package that reads them.
    """
    limit = pixel_limit(max_pixels)
    if isinstance(source, Image.Image):
        name = shown(getattr(source, "filename", "") or "picture")
        return guarded(name, lambda: load(source, name, limit))
    if isinstance(source, (str, Path)):
        return _decode_path(source, limit, page)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode_bytes(bytes(source), "bytes", limit, page)
    if hasattr(source, "read"):
        name = shown(str(getattr(source, "name", "") or "file object"))
        content = guarded(name, source.read)
        if not isinstance(content, bytes):
            raise ImageError(f"a file opened in binary mode, '{name}'", "text", "open it with mode 'rb'")
        return _decode_bytes(content, name, limit, page)
    raise ImageError(
        "a path, bytes, a binary file, a numpy array or a PIL picture", type(source).__name__, "convert it first"
    )


def split_page(path: Path | str) -> tuple[Path, int | None]:
    """A path, "~" expanded, and the page that its end "#3" names, None where it names none.

    A file whose own name ends so is that file. Raises ImageError for an empty text.
    """
    if not str(path).strip():
        raise ImageError("the path of a picture", "an empty text", "name a file (is a variable of your script unset?)")
    whole = os.path.expanduser(path)
    match = _PAGE.fullmatch(whole)
    if match is None or os.path.lexists(whole):
        return Path(whole), None
    return Path(match[1]), int(match[2])


def pages_of(path: Path | str) -> list[Path]:
    """A TIFF of many equal pages as "file.tif#1", "file.tif#2", …; any other file as itself.

    Reads headers alone. Smaller copies of a page and masks, as some TIFFs hold them, are no pages. Raises ImageError,
    which names the file, where it cannot be read.
    """
    path, page = split_page(path)
    check_file(path)
    if page is not None:
        return [Path(f"{path}#{page}")]

    def numbers() -> list[int]:
        with path.open("rb") as file:
            is_tiff = file.read(4) in tiff.MAGIC
            file.seek(0)
            return tiff.page_numbers(file) if is_tiff else [1]

    found = guarded(shown(path), numbers)
    return [path] if found == [1] else [Path(f"{path}#{page}") for page in found]


def _decode_path(source: Path | str, limit: int, page: int | None) -> Decoded:
    path, named_page = split_page(source)
    page = named_page if page is None else page
    name = shown(path) if page is None else f"{shown(path)}#{page}"
    check_file(path)

    def read() -> Decoded:
        with path.open("rb") as file:
            return _read(file, name, limit, page)

    return guarded(name, read)


def _decode_bytes(content: bytes, name: str, limit: int, page: int | None) -> Decoded:
    if not content:
        raise ImageError(f"a picture in '{name}'", "no bytes", "read the file from its beginning")
    return guarded(name, lambda: _read(io.BytesIO(content), name, limit, page))


def _read(file: BinaryIO, name: str, limit: int, page: int | None) -> Decoded:
    """Decode an open file from its beginning."""
    head = file.read(_HEAD)
    file.seek(0)
    if head.startswith(npy.MAGIC):
        return npy.read_npy(file, name, limit, page)
    if head[128:132] == b"DICM":
        return read_dicom(file, name, limit, page)
    if head.startswith(tiff.MAGIC):
        return tiff.read_tiff(file, name, limit, page)
    return read_with_pillow(file, name, limit, page, _formats_for(head, name))


def _formats_for(head: bytes, name: str) -> tuple[str, ...]:
    """The formats as which Pillow may read the file `name` that begins with `head`."""
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    if brand in _AVIF_BRANDS:
        Image.init()
        if "AVIF" not in Image.OPEN:
            raise ImageError(
                f"a Pillow that reads AVIF, for '{name}'", f"Pillow {PIL.__version__}", "run: pip install -U pillow"
            )
        return ("AVIF",)
    if brand in _HEIF_BRANDS:
        need("pillow_heif", "heif", "HEIC pictures").register_heif_opener()
        return ("HEIF",)
    return FORMATS
