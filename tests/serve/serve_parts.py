"""A service on a toy detector, its web application, and pictures to send."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from made_up_parts import made_up_part
from PIL import Image

from blemish.serve.app import create_app
from blemish.serve.core import ServiceSettings
from blemish.serve.records import Product, ProductSettings
from blemish.serve.service import Service

HERE = "http://127.0.0.1:8765"
# The encoder without weights on small images; the detector's name is given by the fixture `toy`.
TOY = ProductSettings(detector="toy", encoder="pixels", image_size=64)


def png(image: np.ndarray) -> bytes:
    """An image (H, W, 3) uint8 as a file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def good_png(seed: int) -> bytes:
    """A made-up good part."""
    return png(made_up_part(seed=seed))


def bad_png(seed: int) -> bytes:
    """A made-up part with a dark square."""
    return png(made_up_part(seed=seed, defective=True))


HEIC = b"\0\0\0\x18ftypheic"  # how files begin that blemish has the package pillow_heif read


def heic_package(folder: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install `source` as the package that reads HEIC, for processes that start from now on; its folder."""
    package = folder / "packages" / "pillow_heif"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(source)
    monkeypatch.syspath_prepend(str(package.parent))
    return package


def taught(service: Service, name: str = "disc", count: int = 12) -> Product:
    """A product that has learned."""
    product = service.catalog.create(name, "test", TOY)
    service.catalog.add_good(product, [(f"{seed}.png", good_png(seed)) for seed in range(count)], "test")
    job = service.learning.wait(service.learning.start(product, "test").id)
    assert job.state == "done", job.error
    return service.core.product(product.id)


@contextmanager
def served(
    folder: Path, settings: ServiceSettings | None = None, **options: Any
) -> Iterator[tuple[Service, TestClient]]:
    """A service and a client of it on this machine."""
    with (
        Service.open(folder, settings) as service,
        TestClient(create_app(service, **options), HERE, client=("127.0.0.1", 50000)) as client,
    ):
        yield service, client
