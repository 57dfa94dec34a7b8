"""Fill a service with pictures of bottles and photograph its pages: python docs/make_screenshots.py [OUT]

Without OUT, those that the documentation shows are made; with it, all of them. BLEMISH_DATA names the
folder of MVTec AD's categories. Needs Chromium, playwright and the extra `serve`.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from blemish.serve.app import create_app
from blemish.serve.parts import PartQuery
from blemish.serve.records import Product, ProductSettings
from blemish.serve.service import Service

OUT = Path(__file__).parent / "images"
SIZES = {"light": (1280, 860), "dark": (820, 1180)}  # a desk's screen and a tablet held upright
MOST_BYTES = 80_000
SHOWN = {
    "light": ("products", "product", "limits", "wall", "review", "live", "album", "settings"),
    "dark": ("limits", "wall", "review", "live"),
}
GOOD, KINDS = 40, {"broken_large": 4, "broken_small": 4, "contamination": 3, "good": 16}


def fill(service: Service, folder: Path) -> Product:
    """A product that has learned, has inspected parts, and whose parts are decided in part."""
    product = service.catalog.create("bottle", "Eva", ProductSettings(image_size=224))
    good = sorted((folder / "train" / "good").glob("*.*"))[:GOOD]
    service.catalog.add_good(product, [(one.name, one.read_bytes()) for one in good], "Eva")
    job = service.learning.wait(service.learning.start(product, "Eva").id)
    if job.state != "done":
        raise SystemExit(job.error)
    pictures = [
        (kind, one) for kind, most in KINDS.items() for one in sorted((folder / "test" / kind).glob("*.*"))[:most]
    ]
    for number, (kind, one) in enumerate(sorted(pictures, key=lambda pair: (pair[1].name, pair[0])), 1):
        part = service.line.inspect(product.id, one.read_bytes(), f"B-{1200 + number}", one.name)
        if kind != "good" and number % 3:
            service.parts.review(part.id, "defective", "Otto", kind.replace("_", " "))
    return service.core.product(product.id)


@contextmanager
def serving(service: Service) -> Iterator[str]:
    """The address of a service's pages on a free port."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(service), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def save(page: Page, path: Path) -> None:
    """The page as a picture of few bytes."""
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    for quality in (80, 70, 60, 50, 40, 30):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, optimize=True, progressive=True)
        if file.tell() <= MOST_BYTES:
            break
    path.write_bytes(file.getvalue())


def photograph(address: str, product: Product, out: Path, part: str) -> None:
    """Every page, at the desk in the light and on a tablet in the dark."""
    base = f"/products/{product.id}"
    pages = {
        "product": base,
        "limits": f"{base}/limits",
        "wall": f"{base}/wall",
        "review": f"{base}/review?part={part}",
        "live": f"{base}/live",
        "album": f"{base}/album",
        "log": "/audit",
        "settings": "/settings",
        "products": "/",
        "login": "/login",
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for scheme, (width, height) in SIZES.items():
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            page = context.new_page()
            page.on("console", lambda message: print(message.type, message.text))
            for name, path in pages.items():
                if out == OUT and name not in SHOWN[scheme]:
                    continue
                page.goto(address + path)
                time.sleep(1.5)  # pictures are drawn; a live page is never at rest
                if name == "limits":
                    page.focus("#handle-threshold")
                    for _ in range(8):
                        page.keyboard.press("ArrowRight")
                    time.sleep(1.5)
                save(page, out / f"serve_{name}_{scheme}.jpg")
        browser.close()


def main() -> None:
    """Fill, serve, photograph."""
    folder = Path(os.environ["BLEMISH_DATA"]) / "bottle"
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    out.mkdir(parents=True, exist_ok=True)
    kept = os.environ.get("BLEMISH_SCREENSHOT_DATA")  # a folder to fill once, and to use again
    with tempfile.TemporaryDirectory() as temporary, Service.open(kept or temporary) as service:
        products = service.catalog.products()
        product = products[0] if products else fill(service, folder)
        with serving(service) as address:
            part = service.parts.find(PartQuery(product=product.id, state="open", order="score", limit=3))[-1]
            photograph(address, product, out, part.id)


if __name__ == "__main__":
    main()
