"""One self-contained HTML page: jinja2 templates that escape what they show, images as data URIs."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from blemish.scoring.describe import count_in_words, number

if TYPE_CHECKING:
    from jinja2 import Environment

# Characters that HTML cannot hold: controls, and the halves of surrogate pairs that undecodable file names bring.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_QUALITIES = (82, 66, 52, 40)  # of JPEG, tried in this order; at 40 thin coloured lines still look clean
_MOST_BYTES = 48_000  # of one image: sixty of pure noise then make a page of a few MB


@dataclass(frozen=True)
class Photo:
    """An image ready for a page: its data URI, and `alt` for a person who cannot see it."""

    src: str
    alt: str
    width: int
    height: int
    caption: str = ""


@dataclass(frozen=True)
class Tile:
    """One large figure with what it counts; `tone` is "good", "defect", "unsure", "unknown", "warn" or "" for none."""

    value: str
    label: str
    tone: str = ""
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """A table cell with more than text: small words behind it, a badge's tone, a bar of `share` 0…1, or the best."""

    text: str
    small: str = ""
    tone: str = ""
    share: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table whose rows open with a header cell. `numeric` columns stand right; `sums` sets the last row apart."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]  # text, numbers, Cell, or None for nothing
    caption: str
    numeric: frozenset[int] = field(default_factory=frozenset)
    sums: bool = False


def data_uri(image: np.ndarray) -> str:
    """An image `(H, W, 3)` uint8 as a JPEG data URI. Colour is kept at full resolution, for thin coloured lines.

    The quality falls where an image (coarse grain, noise) would take too many bytes.
    """
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
        if buffer.tell() <= _MOST_BYTES:
            break
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def photo(image: np.ndarray, alt: str, caption: str = "") -> Photo:
    """An image `(H, W, 3)` uint8 with its words."""
    height, width = image.shape[:2]
    return Photo(data_uri(image), alt, width, height, caption)


def left_out(count: int, kind: str, where: str = "not shown here; all are in results.csv") -> str:
    """ "960 more defective pictures not shown here; …", or nothing for none."""
    return f"{count_in_words(count, f'more {kind}')} {where}." if count > 0 else ""


def fact(value: object) -> object:
    """A setting as a person reads it: numbers short, yes and no, lists with commas, a dash for nothing."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value) if math.isfinite(value) else "–"
    if isinstance(value, list | tuple):
        return ", ".join(str(v) for v in value)
    return "–" if value is None else value


def environment_of(package: str) -> Environment:
    """The templates of a package: everything they show is escaped, a name that is not given is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def printable(page: str) -> str:
    """A page without characters that HTML cannot hold."""
    return _UNPRINTABLE.sub("\ufffd", page)


@cache
def environment() -> Environment:
    """The templates of this folder, with the style and the script that every page holds."""
    made = environment_of("blemish.report")
    made.filters["code_spans"] = code_spans
    here = files("blemish.report")
    made.globals["style"] = Markup(here.joinpath("page.css").read_text("utf-8"))
    made.globals["script"] = Markup(here.joinpath("page.js").read_text("utf-8"))
    return made


def code_spans(line: str) -> list[tuple[bool, str]]:
    """A sentence as (is code, text) parts, split at backquotes."""
    return [(i % 2 == 1, part) for i, part in enumerate(line.split("`")) if part]


def render(template: str, *, made: datetime | None = None, **view: Any) -> str:
    """The whole page that a template makes of a view; `made` is the time that stands on it, now by default."""
    when = (made or datetime.now()).strftime("%Y-%m-%d %H:%M")
    return printable(environment().get_template(template).render(when=when, **view))


def facts_of(pairs: Mapping[str, object]) -> dict[str, object]:
    """Names and values, every value as a person reads it."""
    return {name: fact(value) for name, value in pairs.items()}
