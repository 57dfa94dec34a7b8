"""The pages without a browser: each renders, escapes, links to what exists and has no inline script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from serve_parts import bad_png, good_png, served, taught

from blemish.report.colours import DEFECT, css
from blemish.serve.pages.crops import square
from blemish.serve.pages.templating import change_words, theme
from blemish.serve.parts import PartQuery
from blemish.serve.service import Service

HOSTILE = "<img src=x onerror=alert(1)>'\"&{{7*7}}"
GLOBAL = ("/", "/audit", "/settings", "/login")
OF_PRODUCT = ("", "/limits", "/wall", "/review", "/album", "/live")
Served = tuple[Service, TestClient]


class Elements(HTMLParser):
    """All tags of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))


@pytest.fixture
def line(toy: str, tmp_path: Path) -> Iterator[Served]:
    """A taught product with hostile names everywhere, some parts and decisions."""
    with served(tmp_path / "data") as (service, client):
        product = taught(service, HOSTILE.replace("/", ""))
        for seed in range(3):
            service.line.inspect(product.id, good_png(50 + seed), f"{HOSTILE}{seed}", f"{HOSTILE}.png")
            part = service.line.inspect(product.id, bad_png(seed), f"bad {seed}", "b.png")
            if seed < 2:
                service.parts.review(part.id, "defective", HOSTILE, HOSTILE if seed else "")
        service.line.inspect(product.id, b"no picture", "unreadable")
        service.webhooks.add("http://127.0.0.1:9/x?a=1&b=<2>", [], "", "test")
        yield service, client


def paths(service: Service) -> list[str]:
    """All pages there are."""
    product = service.catalog.products()
    return [*GLOBAL, *(f"/products/{one.id}{page}" for one in product for page in OF_PRODUCT)]


def test_every_page_of_a_filled_service_is_safe_and_its_links_resolve(line: Served) -> None:
    service, client = line
    checked: set[str] = set()
    for path in paths(service):
        reply = client.get(path)
        assert reply.status_code == 200, path
        assert "<img src=x" not in reply.text, f"unescaped at {path}"
        for tag, attributes in Elements(reply.text).tags:
            assert tag != "style", path
            assert tag != "script" or "src" in attributes, path
            assert not [name for name in attributes if name == "style" or name.startswith("on")], (path, tag)
            for link in (
                attributes.get("href"),
                attributes.get("src"),
                attributes.get("action"),
                attributes.get("data-over"),
            ):
                if not link or link.startswith("#") or link in checked:
                    continue
                assert link.startswith("/"), f"an outside link at {path}: {link}"
                checked.add(link)
                assert client.get(link).status_code == 200, f"{link}, linked at {path}"
    assert len(checked) > 40


def test_every_page_of_an_empty_service_says_what_to_do_next(toy: str, tmp_path: Path) -> None:
    with served(tmp_path / "new") as (service, client):
        assert "No product yet" in client.get("/").text
        product = service.catalog.create("new", "test")
        service.catalog.add_good(product, [("1.png", good_png(1))], "test")
        for page in OF_PRODUCT:
            reply = client.get(f"/products/{product.id}{page}")
            assert reply.status_code == 200
            assert 'class="empty"' in reply.text or page == "", page
        assert "Nothing has been learned yet" in client.get(f"/products/{product.id}").text


def test_errors_are_pages(line: Served) -> None:
    _, client = line
    reply = client.get("/products/none")
    assert reply.status_code == 404
    assert "What to do" in reply.text
    assert "text/html" in reply.headers["content-type"]


def test_login_where_a_token_is_demanded(toy: str, tmp_path: Path) -> None:
    with served(tmp_path / "data") as (service, client):
        product = taught(service)
        engineer = service.users.add("Eva", "engineer", "test")
        operator = service.users.add("Otto", "operator", "test")
        reply = client.get(f"/products/{product.id}/wall?order=time", follow_redirects=False)
        assert reply.status_code == 303
        assert reply.headers["location"] == f"/login?next=%2Fproducts%2F{product.id}%2Fwall%3Forder%3Dtime"
        assert f'data-next="/products/{product.id}/wall?order=time"' in client.get(reply.headers["location"]).text
        for foreign in ("//elsewhere.example/", "/%09/elsewhere.example", "/%0a/x.example", "/\\x.example", "x", ""):
            assert 'data-next="/"' in client.get(f"/login?next={foreign}").text
        assert 'data-next="/products/a/wall?text=a b"' in client.get("/login?next=/products/a/wall?text=a%20b").text
        for token, sees_settings in ((operator, False), (engineer, True)):
            assert client.post("/api/session", json={"token": token}, headers={"X-Blemish": "1"}).status_code == 200
            assert client.get("/settings").status_code == (200 if sees_settings else 403)
            assert ('id="create"' in client.get("/").text) == sees_settings
            assert ('id="apply"' in client.get(f"/products/{product.id}/limits").text) == sees_settings
            assert "Sign out" in client.get("/").text


def test_the_wall_is_sorted_filtered_and_paged(line: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blemish.serve.pages.routes.ON_WALL", 2)
    service, client = line
    wall = f"/products/{service.catalog.products()[0].id}/wall"

    def shown(query: str) -> list[str]:
        found = [
            attributes["data-part"]
            for _, attributes in Elements(client.get(wall + query).text).tags
            if "data-part" in attributes
        ]
        return [service.parts.get(one).part_id for one in found]

    scores = shown("") + shown("?page=2") + shown("?page=3")
    assert len(scores) == 6  # the unreadable one has no score
    assert set(scores[:3]) == {"bad 0", "bad 1", "bad 2"}
    assert shown("?verdict=error") == ["unreadable"]
    assert shown("?text=bad+1") == ["bad 1"]
    assert shown("?page=9") == []
    assert 'rel="next"' in client.get(wall).text
    assert 'rel="next"' not in client.get(wall + "?page=3").text


def test_close_ups_of_a_region(line: Served) -> None:
    service, client = line
    part = next(one for one in service.parts.find(PartQuery(verdict="defective")) if one.prediction["regions"])
    for kind in ("found", "good"):
        reply = client.get(f"/parts/{part.id}/regions/0/{kind}")
        has_match = bool((part.prediction["regions"][0].get("attributes") or {}).get("match"))
        assert reply.status_code == (200 if kind == "found" or has_match else 404)
    assert client.get(f"/parts/{part.id}/regions/99/found").status_code == 404


def test_a_square_lies_inside_its_image() -> None:
    image = np.arange(10 * 20 * 3, dtype=np.uint8).reshape(10, 20, 3)
    for centre, half in (((0, 0), 3), ((19, 9), 3), ((10, 5), 50), ((5, 5), 0.1)):
        crop = square(image, centre, half)
        assert crop.shape[0] == crop.shape[1] > 0
    assert np.array_equal(square(image, (10, 5), 2), image[3:7, 8:12])


def test_colours_are_those_of_reports() -> None:
    assert css(DEFECT) in theme()
    assert "prefers-color-scheme: dark" in theme()
    assert theme().count("{") == theme().count("}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2, "from": [0.5, 0.4], "to": [0.6, 0.4], "limits": {}}, "limits 0.5 / 0.4 → 0.6 / 0.4; version 2"),
        ({"from": 3, "to": 1}, "version 3 → 1"),
        ({"audit_share": [0.02, 0.1]}, "random sample to review 2 % → 10 %"),
        ({"unsure_rate": [None, 0.03]}, "good parts a person may be asked about none → 3 %"),
        ({"detector": ["auto", "padim"], "image_size": [None, 320]}, "method auto → padim; picture size none → 320"),
        ({"name": "disc"}, "name disc"),
        ({"from": None, "to": [0.5, 0.4], "pictures": 12}, "limits 0.5 / 0.4; pictures 12"),
        ({"cause": "darker", "text": "pictures are darker", "evidence": 25.0}, "pictures are darker"),
        ({"false_alarms": ["a" * 64, "b" * 64]}, "false alarms 2"),
        ({}, ""),
    ],
)
def test_changes_in_words(change: dict[str, object], words: str) -> None:
    assert change_words(change) == words


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb as WCAG 2 defines it."""
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast_is_that_of_wcag_aa(scheme: int) -> None:
    light, dark = theme().split("@media")
    tones = dict(re.findall(r"--([\w-]+): (#\w{6})", (light, dark)[scheme]))
    pairs = [
        ("ink", "paper"),
        ("ink", "card"),
        ("soft", "paper"),
        ("soft", "card"),
        ("accent", "card"),
        ("paper", "ink"),
    ]
    pairs += [(name, f"{name}-wash") for name in ("good", "defect", "unsure", "unknown", "warn")]
    pairs += [("soft", "trough"), ("accent", "trough"), ("card", "accent")]
    for front, back in pairs:
        high, low = sorted((luminance(tones[front]), luminance(tones[back])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"{front} on {back}"


def test_scripts_write_no_html() -> None:
    for script in files("blemish.serve.pages").joinpath("static").iterdir():
        if script.name.endswith(".js"):
            text = script.read_text("utf-8")
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|https?://(?!www\.w3\.org)", text
            ), script.name
