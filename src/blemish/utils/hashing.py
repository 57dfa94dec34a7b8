"""Content hashes: sha256 in hexadecimal of files, arrays and settings."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np


def file_sha256(path: str | Path) -> str:
    """The sha256 of a file, read piece by piece. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def array_sha256(*arrays: np.ndarray) -> str:
    """The sha256 of arrays of any shape and number format: equal exactly where shape, format and bytes are."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape} {array.dtype.str}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def text_sha256(text: str) -> str:
    """The sha256 of text, encoded as UTF-8; lone surrogates (undecodable file names) count as they are."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def json_sha256(value: Any) -> str:
    """The sha256 of a value that JSON can hold, whatever the order of its keys."""
    return text_sha256(json.dumps(value, sort_keys=True))
