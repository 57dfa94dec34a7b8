"""Elements escape what they hold, and a page is written whole or not at all."""

from __future__ import annotations

import base64
import errno
import io
import os
import re
import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image

from blemish.errors import OutputError
from blemish.report.page import Markup, data_uri, element, escape, page, table, write_page

NASTY = [
    "<script>alert(1)</script>",
    "\"quoted\" & 'quoted'",
    "Träger-部品.png",
    "half \udc80 name",
    "bell \x07 \x00 zero",
]


@pytest.mark.parametrize("text", NASTY)
def test_any_text_survives_as_text(text, read):
    found = read(element("p", text, title=text))
    expected = "".join(c if c.isprintable() else "\ufffd" for c in text)
    assert found.text == expected
    assert found.elements == [("p", {"title": expected})]


def test_markup_is_escaped_only_once():
    assert escape(escape("a < b")) == "a &lt; b"
    assert element("p", Markup("<b>x</b>"), None) == "<p><b>x</b></p>"


def test_attributes_true_false_and_hyphens():
    assert element("div", data_zoom=True, hidden=False, id=None, class_="a") == '<div data-zoom class="a"></div>'


def test_a_page_can_ask_for_nothing_from_outside(read):
    text = page("T", element("p", "x"))
    found = read(text)
    policy = next(a["content"] for a in found.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert not found.all("link")


def test_table_has_a_header_cell_a_row_and_scopes(read):
    found = read(table(["file", "score"], [["a", 1], ["b", None]], caption="C", sums=True))
    assert [a.get("scope") for a in found.all("th")] == ["col", "col", "row", "row"]
    assert len(found.all("tr", "sum")) == 1


def test_data_uri_is_a_jpeg_of_bounded_size(grain):
    calm = np.full((40, 60, 3), 90, np.uint8)
    header, _, body = data_uri(calm).partition(",")
    assert header == "data:image/jpeg;base64"
    assert np.abs(np.asarray(Image.open(io.BytesIO(base64.b64decode(body)))).astype(int) - 90).max() <= 2
    assert len(data_uri(grain((380, 380)))) < 200_000


def test_write_replaces_the_whole_page(tmp_path):
    path = tmp_path / "new folder" / "repört.html"
    write_page(path, "one")
    assert write_page(path, "two \udc80").read_text("utf-8") == "two ?"
    assert [p.name for p in path.parent.iterdir()] == ["repört.html"]


def test_a_full_disk_leaves_the_old_page(tmp_path, monkeypatch):
    path = write_page(tmp_path / "report.html", "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_page(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_folder_that_is_a_file_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="name another place"):
        write_page(tmp_path / "file" / "report.html", "x")


def test_reports_load_neither_torch_nor_matplotlib():
    code = "import sys, blemish.report; print([m for m in ('torch', 'matplotlib', 'transformers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def luminance(colour: str) -> float:
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_words_stand_out_from_their_ground(scheme):
    """WCAG 2.2, 1.4.3: a contrast of at least 4.5 : 1."""
    style = files("blemish.report").joinpath("page.css").read_text("utf-8")
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", re.findall(r":root \{(.*?)\}", style, re.DOTALL)[scheme]))
    pairs = [(word, ground) for word in ("ink", "soft", "accent") for ground in ("paper", "card")]
    pairs += [(tone, ground) for tone in ("good", "defect", "unknown", "warn") for ground in ("card", f"{tone}-wash")]
    for word, ground in pairs:
        low, high = sorted((luminance(colours[word]), luminance(colours[ground])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (word, ground)
