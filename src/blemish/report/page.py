"""One self-contained HTML page: elements that escape what they hold, and images as data URIs."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from blemish.utils.atomic import write_text

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})
# Characters that HTML cannot hold: controls, and the halves of surrogate pairs that undecodable file names bring.
_UNSAYABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


class Markup(str):
    """Text that is HTML already; every other text is escaped when it enters a page."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """Any value as HTML text, safe inside elements and quoted attributes."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(_UNSAYABLE.sub("\ufffd", str(value)), quote=True))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """One HTML or SVG element. Children are escaped unless they are Markup; None children are left out.

    Attribute names: a trailing underscore is dropped (`class_`), other underscores become hyphens; a value of True
    gives the bare attribute, None and False leave it out.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{html.escape(_plain(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{''.join(escape(c) for c in children if c is not None)}</{name}>")


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return _UNSAYABLE.sub("\ufffd", str(value))


def join(*parts: object) -> Markup:
    """Parts one after the other, escaped where they are not Markup; None is left out."""
    return Markup("".join(escape(p) for p in parts if p is not None))


def data_uri(image: np.ndarray, quality: int = 82, most_bytes: int = 48_000) -> str:
    """An image `(H, W, 3)` uint8 as a JPEG data URI. Colour is kept at full resolution, for thin coloured lines.

    The quality falls to 40 at the lowest where an image (coarse grain, noise) would take more than `most_bytes`.
    """
    for tried in (quality, 66, 52, 40):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=min(tried, quality), subsampling=0)
        if buffer.tell() <= most_bytes:
            break
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def figure(image: np.ndarray, alt: str, **attributes: object) -> Markup:
    """An `<img>` that carries its pixels; `alt` says what a person who cannot see it should know."""
    height, width = image.shape[:2]
    return element("img", src=data_uri(image), alt=alt, width=width, height=height, decoding="async", **attributes)


def section(title: str, *children: object, note: str | None = None, id_: str | None = None) -> Markup:
    """A titled part of the page, with an optional line under its title."""
    head = element("h2", title), element("p", note, class_="note") if note else None
    return element("section", *head, *children, id_=id_)


def facts(pairs: dict[str, object]) -> Markup:
    """Names and values as a definition list."""
    return element(
        "dl",
        *(element("div", element("dt", name), element("dd", value)) for name, value in pairs.items()),
        class_="facts",
    )


def tile(value: object, label: str, tone: str = "", note: str | None = None) -> Markup:
    """One large figure with what it counts."""
    small = element("small", note) if note else None
    return element("div", element("b", value), element("span", label), small, class_=f"tile {tone}".strip())


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    caption: str,
    numeric: frozenset[int] = frozenset(),
    sums: bool = False,
) -> Markup:
    """A table whose rows open with a header cell; it scrolls sideways where the page is too narrow.

    `numeric` columns stand right; `sums` sets the last row apart. A cell may be Markup holding a whole `<td>`.
    """
    heads = (element("th", c, scope="col", class_="n" if i in numeric else None) for i, c in enumerate(columns))
    body = [
        element(
            "tr",
            *(_cell(value, i, i in numeric) for i, value in enumerate(row)),
            class_="sum" if sums and number == len(rows) - 1 else None,
        )
        for number, row in enumerate(rows)
    ]
    head = element("thead", element("tr", *heads))
    inner = element("table", element("caption", caption), head, element("tbody", *body))
    return element("div", inner, class_="scroll", tabindex=0, role="region", aria_label=caption)


def _cell(value: object, column: int, numeric: bool) -> Markup:
    if isinstance(value, Markup) and value.startswith("<td"):
        return value
    shown = "–" if value is None else value
    if column == 0:
        return element("th", shown, scope="row")
    return element("td", shown, class_="n" if numeric else None)


def page(title: str, *body: object) -> str:
    """The whole document: no external request is possible (content policy), scripts are only a convenience."""
    here = files("blemish.report")
    style, script = here.joinpath("page.css").read_text("utf-8"), here.joinpath("page.js").read_text("utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(style)),
    )
    main = element("body", element("main", *body), element("script", Markup(script)))
    return f"<!doctype html>\n{element('html', head, main, lang='en')}\n"


def write_page(path: str | Path, text: str) -> Path:
    """Write a page whole or not at all: a reader sees the old one or the new one. Raises OutputError."""
    return write_text(path, text)
