"""The reader of PLY point clouds, ASCII and binary of both byte orders: x, y, z and colours of the element "vertex".

Turk: The PLY polygon file format (Stanford, 1994). PLY has no field for the grid of a scan; programs state it in a
comment or obj_info, such as "obj_info num_cols 640" (Stanford's range scans) or "comment width 640".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from blemish.data.readers.cloud import (
    Cloud,
    as_colours,
    columns_of,
    damaged,
    header_lines,
    read_table,
    read_text_table,
    whole_numbers,
)
from blemish.errors import ImageError

MAGIC = (b"ply\n", b"ply\r")
_FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_TYPES = {
    **dict(zip(("char", "uchar", "short", "ushort"), ("i1", "u1", "i2", "u2"), strict=True)),
    **dict(zip(("int", "uint", "float", "double"), ("i4", "u4", "f4", "f8"), strict=True)),
    **dict(zip(("int8", "uint8", "int16", "uint16"), ("i1", "u1", "i2", "u2"), strict=True)),
    **dict(zip(("int32", "uint32", "float32", "float64"), ("i4", "u4", "f4", "f8"), strict=True)),
}
_COLOURS = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))
_WIDTH, _HEIGHT = (
    re.compile(rf"\b(?:{words})\b\s*[:=]?\s*([0-9]{{1,6}})\b", re.IGNORECASE)
    for words in ("num_cols|cols|columns|width", "num_rows|rows|height")
)
_BOTH = re.compile(
    r"\b(?:grid|size|resolution|organi[sz]ed)\b\s*[:=]?\s*([0-9]{1,6})\s*x\s*([0-9]{1,6})\b", re.IGNORECASE
)


@dataclass
class _Element:
    name: str
    count: int
    fields: list[tuple[str, str]] = field(default_factory=list)  # name, type of numpy
    has_lists: bool = False


@dataclass
class _Header:
    order: str
    elements: list[_Element]
    grid: tuple[int, int] | None

    @property
    def vertex(self) -> _Element | None:
        return next((one for one in self.elements if one.name == "vertex"), None)


def read_ply(file: BinaryIO, name: str, check_count: Callable[[int], None]) -> Cloud:
    """Read an open file from its beginning; `check_count` refuses too many points. Raises ImageError."""
    header = _read_header(file, name)
    vertex = _checked_vertex(header, name)
    check_count(vertex.count)
    table = _read_vertices(file, header, vertex, name)
    colours = _colour_fields(vertex)
    return Cloud(
        points=columns_of(table, ("x", "y", "z")),
        colours=None if colours is None else as_colours(columns_of(table, colours)),
        grid=header.grid,
    )


def has_colours(file: BinaryIO, name: str) -> bool:
    """Whether the points of an open file have colours, by its header. Raises ImageError."""
    vertex = _read_header(file, name).vertex
    return vertex is not None and _colour_fields(vertex) is not None


def _read_header(file: BinaryIO, name: str) -> _Header:
    lines = header_lines(file, "end_header", name)
    order, elements, remarks = None, list[_Element](), list[str]()
    if lines[0] != "ply":
        raise damaged(name, "no mark 'ply' in the first line")
    for line in lines[1:-1]:
        words = line.split()
        if words[:1] == ["format"] and len(words) >= 2:
            order = _FORMATS.get(words[1])
        elif words[:1] == ["element"] and len(words) == 3:
            elements.append(_Element(words[1], whole_numbers(words[2:], name)[0]))
        elif words[:1] == ["property"] and elements:
            _add_property(elements[-1], words, name)
        elif words[:1] in (["comment"], ["obj_info"]):
            remarks.append(" ".join(words[1:]))
    if order is None:
        raise ImageError(
            f"a PLY of the format {', '.join(_FORMATS)}, in '{name}'", "another or none", "export it in one of them"
        )
    return _Header(order, elements, _grid_in(" ; ".join(remarks)))


def _add_property(element: _Element, words: list[str], name: str) -> None:
    if words[1:2] == ["list"]:
        element.has_lists = True
    elif len(words) != 3 or words[1] not in _TYPES:
        raise damaged(name, f"the property '{' '.join(words[1:])}'")
    elif words[2] in (known for known, _ in element.fields):
        raise damaged(name, f"two properties called '{words[2]}'")
    else:
        element.fields.append((words[2], _TYPES[words[1]]))


def _grid_in(remarks: str) -> tuple[int, int] | None:
    """Height and width that the remarks of a header state."""
    if both := _BOTH.search(remarks):
        return int(both[2]), int(both[1])
    width, height = _WIDTH.search(remarks), _HEIGHT.search(remarks)
    return (int(height[1]), int(width[1])) if width and height else None


def _checked_vertex(header: _Header, name: str) -> _Element:
    vertex = header.vertex
    if vertex is None or not {"x", "y", "z"} <= {known for known, _ in vertex.fields}:
        raise ImageError(
            f"an element 'vertex' with x, y, z in '{name}'",
            "none" if vertex is None else f"one with {', '.join(known for known, _ in vertex.fields) or 'nothing'}",
            "export the points themselves",
        )
    before = header.elements[: header.elements.index(vertex) + 1]
    if any(one.has_lists for one in before):
        raise ImageError(f"points before any list in '{name}'", "lists in or before the points", "export points alone")
    return vertex


def _read_vertices(file: BinaryIO, header: _Header, vertex: _Element, name: str) -> np.ndarray:
    """The rows of the element "vertex" as a structured array."""
    before = header.elements[: header.elements.index(vertex)]
    row = np.dtype([(known, header.order + kind) for known, kind in vertex.fields])
    if header.order:
        for one in before:
            file.seek(one.count * sum(np.dtype(kind).itemsize for _, kind in one.fields), 1)
        return read_table(file, row, vertex.count, name)
    for one in before:
        for _ in range(one.count):
            if not file.readline():
                raise damaged(name, f"{one.count:,} elements '{one.name}', and fewer lines")
    return _as_table(read_text_table(file, len(vertex.fields), vertex.count, name), row, name)


def _as_table(values: np.ndarray, row: np.dtype, name: str) -> np.ndarray:
    """Columns `(N, C)` of numbers in text as a structured array of their types."""
    table = np.empty(len(values), row)
    for column, known in enumerate(row.names or ()):
        own = values[:, column]
        if row[known].kind in "iu":
            limits = np.iinfo(row[known])
            if not ((own >= limits.min) & (own <= limits.max)).all():
                raise damaged(name, f"values of '{known}' that its type cannot hold")
        with np.errstate(over="ignore"):
            table[known] = own
    return table


def _colour_fields(vertex: _Element) -> tuple[str, str, str] | None:
    names = {known for known, _ in vertex.fields}
    return next((colours for colours in _COLOURS if names.issuperset(colours)), None)
