"""Files wherever they lie: local paths, and URIs of every file system that pyarrow or fsspec can open."""

from __future__ import annotations

import io
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes, unquote, unquote_to_bytes, urlsplit

from blemish.errors import BlemishError, DatasetError, ImageError, MissingPackageError
from blemish.utils.optional import need
from blemish.utils.paths import expanded, shown

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # of two letters or more: "C:\" is a drive


def is_uri(text: str) -> bool:
    """Whether `text` names a file by scheme, such as "s3://bucket/part.png" or "file:///data"."""
    return _SCHEME.match(text) is not None


def local_path(text: str) -> Path | None:
    """The path of a local file, named by its path or a file:// URI, whose end "#3" it keeps; None for any other URI."""
    if not is_uri(text):
        return expanded(text)
    if not text.lower().startswith("file://"):
        return None
    parts = urlsplit(text)
    path = os.fsdecode(unquote_to_bytes(parts.path))
    return Path(f"{path}#{parts.fragment}" if parts.fragment else path)


def uri_of(path: Path) -> str:
    """The absolute path as text; as a file:// URI where its bytes are no UTF-8."""
    full = os.path.abspath(path)
    return full if _is_utf8(full) else "file://" + quote_from_bytes(os.fsencode(full))


def id_of(path: Path) -> str:
    """A relative path as an id, with "/" between its parts; percent-encoded where its bytes are no UTF-8."""
    text = path.as_posix()
    return text if _is_utf8(text) else quote_from_bytes(os.fsencode(text))


def filesystem_of(uri: str) -> tuple[FileSystem, str]:
    """The file system of a URI as pyarrow's, and the path in it.

    Schemes that pyarrow does not know go to fsspec. Raises DatasetError for a scheme that neither knows,
    MissingPackageError where the package that knows it is not installed.
    """
    parts = urlsplit(uri)
    root = f"{parts.scheme}://{parts.netloc}" + (f"?{parts.query}" if parts.query else "")
    filesystem, base = _filesystem(root)
    path = unquote(parts.path)
    return filesystem, f"{base.rstrip('/')}{path}" if base.strip("/") else path if base else path.lstrip("/")


@lru_cache(maxsize=64)
def _filesystem(root: str) -> tuple[FileSystem, str]:
    """The file system of a URI without its path, and what a path in it begins with."""
    fs: Any = need("pyarrow.fs", "batch", "reading from other file systems")
    pyarrow = need("pyarrow", "batch", "reading from other file systems")
    try:
        found: tuple[FileSystem, str] = fs.FileSystem.from_uri(root)
        return found
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as unknown:
        scheme = root.partition("://")[0]
        try:
            fsspec = need("fsspec.core", "batch", f"{scheme}:// files")
            opened, base = fsspec.url_to_fs(root)
        except ValueError as error:
            known = "a path, or a URI of a file system that pyarrow or fsspec knows"
            raise DatasetError(known, f"{scheme}://", "correct the scheme") from error
        except ImportError as error:
            raise MissingPackageError(
                f"the package that reads {scheme}:// files", str(error), "install what the message names"
            ) from error
        del unknown
        return fs.PyFileSystem(fs.FSSpecHandler(opened)), str(base)


class NamedBytes(io.BytesIO):
    """The content of a file that lies elsewhere, with the URI as its `name`, which errors state."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def read_remote(uri: str) -> NamedBytes:
    """The content of a file of another file system. Raises ImageError, which names it, where it cannot be read."""
    try:
        filesystem, path = filesystem_of(uri)
        with filesystem.open_input_stream(path) as stream:
            return NamedBytes(stream.read(), uri)
    except BlemishError:
        raise
    except Exception as error:  # each file system has errors of its own
        raise ImageError(
            f"a picture that can be read at '{shown(uri)}'", f"{type(error).__name__}: {error}", "check the URI"
        ) from error


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
