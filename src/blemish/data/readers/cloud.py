"""What a reader of point clouds gives back, and how tables of numbers are read within the bounds of their file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from blemish.errors import ImageError

LONGEST_HEADER = 1 << 16  # bytes; those of real files have a few hundred
_AT_ONCE = 1 << 18  # bytes of text that are split at a time


@dataclass(frozen=True, eq=False)
class Cloud:
    """The points `(N, 3)` of a file as numbers of any format, their colours `(N, 3)` uint8 where it has some, and the
    grid (height, width) that they fill row by row, None where they have none."""

    points: np.ndarray
    colours: np.ndarray | None = None
    grid: tuple[int, int] | None = None


def header_lines(file: BinaryIO, last: str, name: str) -> list[str]:
    """The lines of a header in text, up to and with the one whose first word is `last`. Raises ImageError."""
    lines: list[str] = []
    size = 0
    while size < LONGEST_HEADER:
        line = file.readline(LONGEST_HEADER - size)
        if not line:
            break
        size += len(line)
        lines.append(line.decode("ascii", "replace").strip())
        if lines[-1].split()[:1] == [last]:
            return lines
    raise damaged(name, f"a header without its end, '{last}'")


def left_in(file: BinaryIO) -> int:
    """How many bytes of an open file have not been read yet."""
    place = file.tell()
    size = file.seek(0, 2)
    file.seek(place)
    return size - place


def read_table(file: BinaryIO, row: np.dtype, count: int, name: str) -> np.ndarray:
    """`count` binary rows, read only where the file is long enough for them. Raises ImageError."""
    needed, left = count * row.itemsize, left_in(file)
    if needed > left:
        raise damaged(name, f"{count:,} points of {row.itemsize} bytes, and {left:,} bytes of them")
    return np.frombuffer(file.read(needed), row, count)


def read_text_table(file: BinaryIO, columns: int, count: int, name: str) -> np.ndarray:
    """`count` lines of `columns` numbers as float64 `(count, columns)`; what follows is left. Raises ImageError."""
    left = left_in(file)
    if 2 * count * columns > left + 1:
        raise damaged(name, f"{count:,} points of {columns} numbers, and {left:,} bytes of text")
    numbers, found = np.empty(count * columns), 0
    while found < len(numbers) and (lines := file.readlines(_AT_ONCE)):
        words = b"".join(lines).split()[: len(numbers) - found]
        try:
            numbers[found : found + len(words)] = np.array(words, dtype=np.float64)
        except ValueError as error:
            raise damaged(name, f"a word that is no number ({error})") from error
        found += len(words)
    if found < len(numbers):
        raise damaged(name, f"{count:,} points of {columns} numbers, and {found:,} numbers")
    return numbers.reshape(count, columns)


def columns_of(table: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Some fields of a structured table side by side, `(N, len(names))`."""
    return np.stack([table[name] for name in names], axis=-1)


def as_colours(values: np.ndarray) -> np.ndarray:
    """Colours `(N, 3)` of any type as uint8. What white is follows from the largest value, as programs differ in it.

    Up to 1 in floats it is 1; else up to 255 it is 255, whatever the type; beyond that 65,535.
    """
    if values.dtype == np.uint8:
        return values
    levels = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0)
    largest = levels.max(initial=0)
    white = 1 if values.dtype.kind == "f" and largest <= 1 else 255 if largest <= 255 else 65535
    return np.rint((levels / white).clip(0, 1) * 255).astype(np.uint8)


def whole_numbers(words: Iterable[str], name: str) -> list[int]:
    """Words of a header as numbers of at least 0. Raises ImageError."""
    found = list(words)
    if not all(word.isascii() and word.isdigit() and len(word) <= 12 for word in found):
        raise damaged(name, f"'{' '.join(found)}' for whole numbers")
    return [int(word) for word in found]


def damaged(name: str, got: str) -> ImageError:
    """The error for a file whose header and contents do not fit."""
    return ImageError(f"a whole point cloud in '{name}'", got, "export or record it again")
