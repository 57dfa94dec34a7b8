"""Templates escape what they show, whatever it is, and a page needs nothing but itself."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
import tomllib
from datetime import datetime
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from jinja2 import UndefinedError
from PIL import Image

from blemish.report.page import Cell, Photo, Table, Tile, code_spans, data_uri, environment, fact, left_out, render

ROOT = Path(__file__).resolve().parents[2]
NASTY = [
    "<script>alert(1)</script>",
    "\"quoted\" & 'quoted'",
    "Träger-部品.png",
    "half \udc80 name",
    "bell \x07 \x00 zero",
    "{{ title }} {% raw %}",
    "&amp; escaped once",
]


def part(call: str, **view: object) -> str:
    """What one macro of the shared parts makes of its arguments."""
    return environment().from_string(f'{{% import "parts.html" as ui %}}{{{{ ui.{call} }}}}').render(**view)


def sheet(**view: object) -> str:
    """A whole page with little on it."""
    about = {"kind": "generate", "title": "T", "about": "", "counts": {}, "categories": {}, "note": "", "command": ""}
    return render("scan_sheet.html", **about | view)


@pytest.mark.parametrize("words", NASTY)
def test_any_text_survives_as_text_wherever_it_stands(words, read):
    found = read(sheet(title=words, about=words, counts={words: words}, command=words))
    expected = "".join(c if c.isprintable() else "\ufffd" for c in words)
    assert found.text.count(expected) == 6  # title, headline, about, name and value, command
    photo = Photo("data:image/jpeg;base64,", words, 1, 1, words)
    drawn = environment().from_string('{% import "parts.html" as ui %}{{ ui.views([p]) }}').render(p=photo)
    assert read(drawn).all("img")[0]["alt"] == words
    table = Table([words, words], [[words, Cell(words, words, words)]], words)
    inside = read(part("table(t)", t=table))
    assert inside.text.count(words) == 6  # caption, two heads, a row's name, a cell and what stands behind it
    assert inside.all("div", "scroll")[0]["aria-label"] == words


def test_markup_is_shown_as_it_is_and_all_else_escaped(read):
    from markupsafe import Markup

    assert part("charts([a, b])", a=Markup("<svg></svg>"), b="<svg>").count("<svg>") == 1


def test_a_name_that_is_not_given_is_an_error():
    with pytest.raises(UndefinedError, match="question"):
        render("experiment.html", kind="k", title="t")


def test_a_page_can_ask_for_nothing_from_outside(read):
    text = sheet(made=datetime(2026, 1, 2, 3, 4))
    found = read(text)
    assert text.startswith("<!doctype html>")
    assert "2026-01-02 03:04" in found.text
    policy = next(a["content"] for a in found.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    for outside in ("http://", "https://", "url(", "@import"):
        assert outside not in text
    assert not found.all("link")


def test_every_template_is_part_of_the_package():
    """What the wheel takes along is what lies beside the code."""
    folder = ROOT / "src" / "blemish"
    given = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"]["blemish"]
    taken = {path for pattern in given for path in folder.glob(pattern)}
    assert taken >= {path for path in (folder / "report").rglob("*") if path.suffix in (".html", ".css", ".js")}
    assert files("blemish.report").joinpath("templates", "base.html").is_file()


def test_table_has_a_header_cell_a_row_and_scopes(read):
    cells = [["a", Cell("1", share=0.5)], ["b", None], ["c", Cell("0.9", "± 0.1", best=True)]]
    found = read(part("table(t)", t=Table(["file", "score"], cells, "C", frozenset({1}), sums=True)))
    assert [a.get("scope") for a in found.all("th")] == ["col", "col", "row", "row", "row"]
    assert len(found.all("tr", "sum")) == 1
    assert [len(found.all("td", name)) for name in ("n", "best")] == [3, 1]
    assert "–" in found.text
    assert "0.9 ± 0.1" in found.text
    assert found.all("i")[0]["style"] == "width:50%"


def test_tiles_facts_and_what_is_left_out(read):
    found = read(part("tiles(t)", t=[Tile("3", "bad", "defect", "of 9"), Tile("4", "good")]))
    assert len(found.all("div", "tile")) == 2
    assert len(found.all("div", "defect")) == 1
    assert [fact(v) for v in (True, 0.12345, ["a", 1], None, "x", float("nan"))] == [
        "yes",
        "0.123",
        "a, 1",
        "–",
        "x",
        "–",
    ]
    assert left_out(0, "picture") == ""
    assert left_out(1200, "good picture").startswith("1,200 more good pictures not shown here")
    assert code_spans("Set `a=1` now.") == [(False, "Set "), (True, "a=1"), (False, " now.")]


def test_data_uri_is_a_jpeg_of_bounded_size(grain):
    calm = np.full((40, 60, 3), 90, np.uint8)
    header, _, body = data_uri(calm).partition(",")
    assert header == "data:image/jpeg;base64"
    assert np.abs(np.asarray(Image.open(io.BytesIO(base64.b64decode(body)))).astype(int) - 90).max() <= 2
    assert len(data_uri(grain((380, 380)))) < 200_000


def test_reports_load_neither_torch_nor_matplotlib():
    code = "import sys, blemish.report; print([m for m in ('torch', 'matplotlib', 'transformers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def luminance(colour: str) -> float:
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_words_stand_out_from_their_background(scheme):
    """WCAG 2.2, 1.4.3: a contrast of at least 4.5 : 1."""
    style = files("blemish.report").joinpath("page.css").read_text("utf-8")
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", re.findall(r":root \{(.*?)\}", style, re.DOTALL)[scheme]))
    pairs = [(word, below) for word in ("ink", "soft", "accent") for below in ("paper", "card")]
    tones = ("good", "defect", "unsure", "unknown", "warn")
    pairs += [(tone, below) for tone in tones for below in ("card", f"{tone}-wash")]
    for word, below in pairs:
        low, high = sorted((luminance(colours[word]), luminance(colours[below])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (word, below)
