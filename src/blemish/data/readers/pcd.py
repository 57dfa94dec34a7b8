"""The reader of PCD point clouds, ASCII, binary and binary_compressed: x, y, z, and colours packed as rgb or rgba.

Rusu, Cousins: 3D is here: Point Cloud Library (PCL), ICRA 2011; the format is https://pointclouds.org's version 0.7.
A file of HEIGHT above 1 is organised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from blemish.data.readers.cloud import (
    Cloud,
    columns_of,
    damaged,
    header_lines,
    left_in,
    read_table,
    read_text_table,
    whole_numbers,
)
from blemish.errors import ImageError

MAGIC = (b"# .PCD", b"VERSION", b"FIELDS")
_KINDS = {"F": "f", "I": "i", "U": "u"}
_SIZES = {"F": (4, 8), "I": (1, 2, 4, 8), "U": (1, 2, 4, 8)}
_MOST_RATIO = 300  # LZF makes at most 264 bytes of 3


@dataclass(frozen=True)
class _Header:
    row: np.dtype  # the fields, those of several numbers as subarrays
    width: int
    height: int
    count: int
    data: str

    @property
    def colours(self) -> str | None:
        names = self.row.names or ()
        return next((n for n in ("rgb", "rgba") if n in names and self.row[n].itemsize == 4), None)


def read_pcd(file: BinaryIO, name: str, check_count: Callable[[int], None]) -> Cloud:
    """Read an open file from its beginning; `check_count` refuses too many points. Raises ImageError."""
    header = _read_header(file, name)
    if not {"x", "y", "z"} <= set(header.row.names or ()):
        raise ImageError(
            f"the fields x, y, z in '{name}'", f"{', '.join(header.row.names or ())}", "export the points themselves"
        )
    check_count(header.count)
    table = _READERS[header.data](file, header, name)
    points = columns_of(table, ("x", "y", "z"))
    if points.ndim != 2:
        raise damaged(name, "several numbers each for x, y and z")
    packed = None if header.colours is None else np.ascontiguousarray(table[header.colours]).view("<u4")
    return Cloud(
        points=points,
        colours=None if packed is None else np.stack([(packed >> n & 255).astype(np.uint8) for n in (16, 8, 0)], -1),
        grid=(header.height, header.width) if header.height > 1 else None,
    )


def has_colours(file: BinaryIO, name: str) -> bool:
    """Whether the points of an open file have colours, by its header. Raises ImageError."""
    return _read_header(file, name).colours is not None


def _read_header(file: BinaryIO, name: str) -> _Header:
    facts: dict[str, list[str]] = {}
    for line in header_lines(file, "DATA", name):
        words = line.split()
        if words and not words[0].startswith("#"):
            facts[words[0]] = words[1:]
    lacking = [word for word in ("FIELDS", "SIZE", "TYPE", "WIDTH", "HEIGHT", "DATA") if not facts.get(word)]
    if lacking:
        raise damaged(name, f"a header without {', '.join(lacking)}")
    (width,), (height,) = (whole_numbers(facts[word][:1], name) for word in ("WIDTH", "HEIGHT"))
    count = whole_numbers(facts.get("POINTS", [str(width * height)])[:1], name)[0]
    if count != width * height:
        raise damaged(name, f"{count:,} points on a grid of {width}x{height}")
    if facts["DATA"][0] not in _READERS:
        raise ImageError(
            f"a PCD of the data {', '.join(_READERS)}, in '{name}'", facts["DATA"][0], "export it as one of them"
        )
    return _Header(_row_of(facts, name), width, height, count, facts["DATA"][0])


def _row_of(facts: dict[str, list[str]], name: str) -> np.dtype:
    """The type of one point. Fields of no use get names of their own: PCL calls its padding "_", again and again."""
    names, kinds = facts["FIELDS"], facts["TYPE"]
    sizes = whole_numbers(facts["SIZE"], name)
    counts = whole_numbers(facts.get("COUNT", ["1"] * len(names)), name)
    if not len(names) == len(kinds) == len(sizes) == len(counts):
        raise damaged(name, f"{len(names)} fields, {len(sizes)} sizes, {len(kinds)} types and {len(counts)} counts")
    fields: list[tuple[str, str, tuple[int, ...]]] = []
    for number, (own, kind, size, count) in enumerate(zip(names, kinds, sizes, counts, strict=True)):
        if size not in _SIZES.get(kind, ()) or not 1 <= count <= 4096:
            raise damaged(name, f"{count} numbers of type {kind} and size {size} for the field '{own}'")
        is_known = own in ("x", "y", "z", "rgb", "rgba") and own not in (known for known, _, _ in fields)
        fields.append((own if is_known else f"_{number}", f"<{_KINDS[kind]}{size}", () if count == 1 else (count,)))
    return np.dtype(fields)


def _read_ascii(file: BinaryIO, header: _Header, name: str) -> np.ndarray:
    columns = [int(np.prod(header.row[known].shape, initial=1)) for known in header.row.names or ()]
    values = read_text_table(file, sum(columns), header.count, name)
    table = np.zeros(header.count, header.row)
    starts = np.cumsum([0, *columns])
    for known, start in zip(header.row.names or (), starts, strict=False):
        if known == header.colours and header.row[known].kind == "f":  # PCL writes the bits as a whole number, or float
            table[known] = _packed(values[:, start])
        elif not known.startswith("_"):
            with np.errstate(over="ignore", invalid="ignore"):
                table[known] = values[:, start].astype(header.row[known])
    return table


def _packed(values: np.ndarray) -> np.ndarray:
    """Colours in text as the float32 whose bits they are."""
    with np.errstate(over="ignore", invalid="ignore"):
        is_bits = bool((values == np.floor(values)).all() and (values >= 0).all() and (values < 2**32).all())
        return values.astype(np.uint32).view(np.float32) if is_bits and values.any() else values.astype(np.float32)


def _read_binary(file: BinaryIO, header: _Header, name: str) -> np.ndarray:
    return read_table(file, header.row, header.count, name)


def _read_compressed(file: BinaryIO, header: _Header, name: str) -> np.ndarray:
    """Field after field, compressed by LZF as one block."""
    sizes = np.frombuffer(file.read(8), "<u4")
    needed = header.count * header.row.itemsize
    if len(sizes) != 2 or sizes[1] != needed or sizes[0] > left_in(file) or needed > _MOST_RATIO * int(sizes[0]):
        raise damaged(name, f"{needed:,} bytes of points, and compressed ones of other sizes")
    content = unpacked(file.read(int(sizes[0])), needed, name)
    table = np.empty(header.count, header.row)
    start = 0
    for known in header.row.names or ():
        stop = start + header.count * header.row[known].itemsize
        base = header.row[known].base
        table[known] = np.frombuffer(content[start:stop], base).reshape(header.count, *header.row[known].shape)
        start = stop
    return table


def unpacked(packed: bytes, size: int, name: str) -> bytes:
    """`size` bytes that LZF made `packed` (Lehmann, liblzf): runs of literals, and copies of what came before."""
    out = bytearray()
    place, end = 0, len(packed)
    while place < end and len(out) <= size:
        control = packed[place]
        place += 1
        if control < 32:
            out += packed[place : place + control + 1]
            place += control + 1
            continue
        length = control >> 5
        needed = 2 if length == 7 else 1
        if place + needed > end:
            break
        if length == 7:
            length += packed[place]
            place += 1
        start = len(out) - ((control & 31) << 8) - packed[place] - 1
        place += 1
        length += 2
        if start < 0:
            raise damaged(name, "compressed points that begin before their beginning")
        if start + length <= len(out):
            out += out[start : start + length]
        else:  # the copy overlaps what it makes: a pattern is repeated
            pattern = out[start:]
            out += (pattern * (length // len(pattern) + 1))[:length]
    if len(out) != size or place != end:
        raise damaged(name, f"{size:,} bytes of points, and compressed ones that give {len(out):,}")
    return bytes(out)


_READERS: dict[str, Callable[[BinaryIO, _Header, str], np.ndarray]] = {
    "ascii": _read_ascii,
    "binary": _read_binary,
    "binary_compressed": _read_compressed,
}
