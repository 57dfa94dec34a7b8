"""Pictures of more than 8 bits are watched and shown by the model's full scale, as they are judged."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from made_up_parts import made_up_part
from PIL import Image
from serve_parts import TOY, served

from blemish.serve.records import Product
from blemish.serve.rendering import jpeg
from blemish.serve.service import Service


def deep_png(seed: int, defective: bool = False) -> bytes:
    """A made-up part as a camera of 12 bits writes it, in 16 bits whose upper four are empty."""
    grey = made_up_part(seed=seed, defective=defective).mean(axis=2)
    file = io.BytesIO()
    Image.fromarray((grey * 16).astype(np.uint16)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("size", [(66_000, 2), (2, 66_000)])
def test_what_is_longer_than_a_jpeg_may_be_is_shown_smaller(size: tuple[int, int]) -> None:
    content, kind = jpeg(np.zeros((*size, 3), np.uint8))
    assert kind == "image/jpeg"
    assert max(Image.open(io.BytesIO(content)).size) == 65_500


def brightness(content: bytes) -> float:
    """The mean level of a picture of 8 bits."""
    image = Image.open(io.BytesIO(content))
    assert image.mode in ("L", "RGB")
    return float(np.asarray(image).mean())


@pytest.fixture
def line(toy: str, tmp_path: Path) -> Iterator[tuple[Service, TestClient, Product]]:
    """A service whose product has learned from pictures of 12 bits."""
    with served(tmp_path / "data") as (service, client):
        product = service.catalog.create("disc", "test", TOY)
        service.catalog.add_good(product, [(f"{seed}.png", deep_png(seed)) for seed in range(24)], "test")
        seen = client.get("/api/products/disc/good").json()["good"][0]["links"]["thumbnail"]
        assert brightness(client.get(seen).content) > 60  # before a model knows which level is white, too
        job = service.learning.wait(service.learning.start(product, "test").id)
        assert job.state == "done", job.error
        yield service, client, service.core.product(product.id)


def test_every_view_is_as_bright_as_what_was_judged(line: tuple[Service, TestClient, Product]) -> None:
    client = line[1]
    part = client.post("/api/inspect", content=deep_png(30, defective=True)).json()
    assert part["verdict"] == "defective"
    expected = float(made_up_part(seed=30, defective=True).mean())
    for view in ("image", "thumbnail", "overlay"):
        assert brightness(client.get(part["links"][view]).content) == pytest.approx(expected, abs=25), view
    assert brightness(client.get(f"/parts/{part['id']}/regions/0/found").content) > expected / 3
    good = client.get("/api/products/disc/good").json()["good"][0]["links"]
    for view in ("image", "thumbnail"):
        assert brightness(client.get(good[view]).content) > 60


def test_an_unchanged_line_raises_no_alarm(line: tuple[Service, TestClient, Product]) -> None:
    service, _, product = line
    for seed in range(30):
        service.line.inspect(product.id, deep_png(100 + seed))
    assert service.watch.state(product)["alarms"] == []


def test_a_version_that_is_gone_costs_no_picture(line: tuple[Service, TestClient, Product]) -> None:
    service, client, product = line
    part = client.post("/api/inspect", content=deep_png(30)).json()
    (service.models.folder(product.active_version) / "settings.json").unlink()
    assert brightness(client.get(part["links"]["image"]).content) > 60


def test_a_good_picture_is_kept_by_browsers_for_one_version(line: tuple[Service, TestClient, Product]) -> None:
    """Another version may show it by another scale, at an address of its own."""
    service, client, product = line
    shown = [client.get("/api/products/disc/good").json()["good"][0]["links"]]
    assert "immutable" in client.get(shown[0]["thumbnail"]).headers["cache-control"]
    unnamed = client.get(shown[0]["thumbnail"].partition("&version")[0])
    assert unnamed.headers["cache-control"] == "no-store"
    dark = client.get(shown[0]["thumbnail"]).content
    assert unnamed.content == dark

    file = io.BytesIO()
    Image.fromarray(np.full((96, 128), 65535, np.uint16)).save(file, "PNG")
    service.catalog.add_good(product, [("white.png", file.getvalue())], "test")
    job = service.learning.wait(service.learning.start(product, "test").id)
    assert job.state == "done", job.error
    shown.append(client.get("/api/products/disc/good").json()["good"][0]["links"])
    for view in ("image", "thumbnail"):
        assert shown[0][view] != shown[1][view]
        assert brightness(client.get(shown[1][view]).content) < brightness(client.get(shown[0][view]).content) / 4
    assert client.get(shown[0]["thumbnail"]).content == dark
    for page in ("/", f"/products/{product.id}"):
        assert shown[1]["thumbnail"].replace("&", "&amp;") in client.get(page).text
