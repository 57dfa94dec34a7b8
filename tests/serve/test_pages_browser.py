"""A new user's whole way in a real browser, from an empty folder to moved limits and back, without a complaint."""

from __future__ import annotations

import re
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from made_up_parts import made_up_part
from serve_parts import TOY, bad_png, good_png, png, taught

from blemish import registry
from blemish.serve.app import create_app
from blemish.serve.parts import PartQuery
from blemish.serve.service import Service

uvicorn = pytest.importorskip("uvicorn")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright drives the browser: pip install blemish[dev]"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="NO PAGE WAS TESTED IN A BROWSER: install Chromium (apt-get install chromium)"
    ),
]
ENDS = ("", "/limits", "/wall", "/review", "/album", "/live")
# What a page does before anything else: it notes breaches of the content policy, which are no exception.
WATCH = """
window.breaches = [];
const note = (event) => window.breaches.push(`${event.violatedDirective} ${event.blockedURI}`);
document.addEventListener("securitypolicyviolation", note);
"""


@dataclass
class Served:
    """A service that a browser reaches."""

    service: Service
    address: str


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """A service with a toy detector, and its pages on a free port."""
    entry = registry.DetectorEntry("nearest_mean:NearestMean", "distance to the mean patch", "none: a toy")
    with pytest.MonkeyPatch.context() as patch, Service.open(folder) as service:
        patch.setitem(registry.DETECTORS, "toy", entry)
        listening = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(create_app(service), log_level="error", lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Served(service, f"http://127.0.0.1:{listening.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join(20)
            listening.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests of this module but those that demand tokens."""
    with serving(tmp_path_factory.mktemp("line")) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    """Headless Chromium."""
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(served: Served, browser: playwright.Browser) -> Iterator[playwright.Page]:
    """A page that must end without an error on its console and without a breach of the content policy."""
    context = browser.new_context(base_url=served.address, viewport={"width": 1280, "height": 900})
    context.add_init_script(WATCH)
    found = context.new_page()
    found.set_default_timeout(15_000)
    playwright.expect.set_options(timeout=15_000)
    complaints: list[str] = []
    found.on(
        "console",
        lambda message: (
            complaints.append(f"{message.text} {message.location}")
            if message.type in ("error", "warning") and "icon.svg" not in message.location["url"]
            else None  # the tab asks for its icon when it likes, after the end of the server, too
        ),
    )
    found.on("pageerror", lambda error: complaints.append(str(error)))
    yield found
    complaints += found.evaluate("window.breaches")
    context.close()
    assert complaints == []


def files(folder: Path, **contents: bytes) -> list[str]:
    """Pictures as files, to be chosen in the browser."""
    for name, content in contents.items():
        (folder / f"{name}.png").write_bytes(content)
    return [str(folder / f"{name}.png") for name in contents]


def taught_product(served: Served) -> str:
    """The id of a product that has learned, made once."""
    found = [one.id for one in served.service.catalog.products() if one.name == "taught"]
    return found[0] if found else taught(served.service, "taught").id


def test_the_whole_way_of_a_new_user(served: Served, page: playwright.Page, tmp_path: Path) -> None:
    expect = playwright.expect
    page.goto("/")
    expect(page.get_by_text("No product yet")).to_be_visible()
    page.get_by_label("Name of a new product").fill("disc <b>1")
    expect(page.locator("select[name=detector]")).to_be_hidden()
    page.get_by_text("Advanced").click()
    page.get_by_label("False alarms you accept, %").fill("10")
    page.locator("select[name=detector]").select_option("toy")
    page.locator("select[name=encoder]").select_option("pixels")
    page.get_by_label("Picture size, pixels").fill("64")
    page.get_by_role("button", name="Create").click()
    page.wait_for_url("**/products/*")
    (product,) = served.service.catalog.products()
    assert product.settings == replace(TOY, false_alarm_rate=0.1)
    base = f"/products/{product.id}"

    # good pictures, and learning
    good = files(tmp_path, **{f"good{seed}": good_png(seed) for seed in range(4)})
    page.locator("#drop input").set_input_files(good)
    expect(page.get_by_text("4 pictures added.")).to_be_visible()
    expect(page.locator("#good img")).to_have_count(4)
    page.get_by_role("button", name="Learn from 4 pictures").click()
    expect(page.get_by_text("judges now")).to_be_visible()
    expect(page.get_by_role("heading", name="Version 1")).to_be_visible()
    page.wait_for_load_state()  # with its scripts, which take the files

    # a good and a defective one
    tried = files(tmp_path, fine=good_png(100), broken=bad_png(100), worse=bad_png(101))
    page.locator("#try input").set_input_files(tried)
    expect(page.locator("#tried .badge")).to_have_count(3)
    expect(page.locator("#tried li", has_text="broken").locator(".badge")).to_have_text("✕defective")

    page.locator("#tried li", has_text="broken").locator("summary").click()
    expect(page.locator("#tried img.whole:visible")).to_have_count(1)
    assert served.service.parts.count(PartQuery()) == 0  # what is only tried is no part of the line

    # review by keys, and undo
    for path in tried:
        served.service.line.inspect(product.id, Path(path).read_bytes(), name=Path(path).name)
    page.goto(f"{base}/review")
    expect(page.locator("#name")).to_have_text("worse.png")
    page.keyboard.press("d")
    expect(page.locator("#name")).to_have_text("broken.png")
    page.locator("#defect").fill("hole")
    page.keyboard.press("Enter")
    expect(page.get_by_text("broken.png: hole. Z takes it back.")).to_be_visible()
    page.keyboard.press("z")
    expect(page.get_by_text("Taken back: broken.png.")).to_be_visible()
    expect(page.locator("#name")).to_have_text("broken.png")
    page.keyboard.press("3")
    expect(page.locator('[data-view="heat"]')).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("u")
    expect(page.get_by_text("broken.png: unsure. Z takes it back.")).to_be_visible()
    decisions = {one.name: one.review and one.review.decision for one in served.service.parts.find(PartQuery())}
    assert decisions["worse.png"] == "defective"
    assert decisions["broken.png"] == "unsure"

    # limits: by the pointer, by keys, applied
    page.goto(f"{base}/limits")
    expect(page.locator("#says-good")).to_contain_text("of 4 good ones would be rejected")
    expect(page.locator("#apply")).to_be_disabled()
    grip = page.locator("#handle-threshold .grip").bounding_box()
    chart = page.locator("#chart").bounding_box()
    assert grip is not None
    assert chart is not None
    page.mouse.move(grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2)
    page.mouse.down()
    page.mouse.move(chart["x"] + 20, grip["y"], steps=6)
    page.mouse.up()
    expect(page.locator("#says-good")).to_contain_text("3 of 4 good ones would be rejected")
    expect(page.locator("#flips-title")).to_contain_text("of 3 decisions would change")
    before = float(page.locator("#defective").input_value())
    page.locator("#handle-threshold").press("ArrowRight")
    page.wait_for_function(f"Number(document.querySelector('#defective').value) > {before}")
    assert page.locator("#handle-threshold").get_attribute("role") == "slider"
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_text("Version 2 judges with these limits")).to_be_visible()
    expect(page.locator("#apply")).to_be_disabled()

    # the version is listed; back to the one before
    page.goto(base)
    expect(page.get_by_role("heading", name="Version 2")).to_contain_text("judges now")
    page.get_by_role("button", name="Go back to this").click()
    expect(page.get_by_role("heading", name="Version 1")).to_contain_text("judges now")
    page.goto("/audit")
    rows = page.locator("tbody tr")
    expect(rows.first).to_contain_text("went to another version")
    expect(rows.first).to_contain_text("version 2 → 1")
    expect(rows.first).to_contain_text("local")
    expect(rows.nth(1)).to_contain_text("moved the limits")


def test_good_pictures_are_dropped_in(served: Served, page: playwright.Page) -> None:
    product = served.service.catalog.create("dropped", "test")
    page.goto(f"/products/{product.id}")
    page.evaluate(
        """(bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "a.png", { type: "image/png" }));
            data.items.add(new File(["text"], "b.txt", { type: "text/plain" }));
            document.querySelector("#drop").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
        }""",
        list(good_png(1)),
    )
    playwright.expect(page.get_by_text("1 picture added.")).to_be_visible()
    assert [one.name for one in served.service.catalog.good(product)] == ["a.png"]


def test_sign_in_and_out(page: playwright.Page, tmp_path: Path) -> None:
    with serving(tmp_path) as locked:
        token = locked.service.users.add("Eva", "engineer", "test")
        page.goto(f"{locked.address}/audit")
        assert page.url == f"{locked.address}/login?next=%2Faudit"
        page.get_by_label("Your token").fill(token)
        page.get_by_role("button", name="Sign in").click()
        playwright.expect(page.get_by_role("heading", name="Log")).to_be_visible()
        playwright.expect(page.locator(".who")).to_contain_text("Eva")
        page.wait_for_load_state("load")  # what the button does comes with the scripts
        page.get_by_role("button", name="Sign out").click()
        playwright.expect(page.get_by_label("Your token")).to_be_visible()
        page.wait_for_load_state("load")  # scripts may still come when the form is there, and the server ends here


def test_the_live_page_shows_a_part_as_it_comes(served: Served, page: playwright.Page) -> None:
    product = taught_product(served)
    page.goto(f"/products/{product}/live")
    served.service.line.inspect(product, bad_png(7), "SN-7")
    playwright.expect(page.locator("#latest-verdict .word")).to_have_text("defective")
    playwright.expect(page.locator("#latest-facts")).to_contain_text("SN-7")
    playwright.expect(page.locator("#rate")).to_contain_text("%")


def test_decisions_of_the_random_sample_renew_the_limits(served: Served, page: playwright.Page) -> None:
    service = served.service
    product = taught(service, "sampled").id
    service.catalog.change(service.core.product(product), "test", audit_share=1.0)
    part = service.line.inspect(product, good_png(300), "SN-300")
    service.parts.review(part.id, "good", "test")
    page.goto(f"/products/{product}/limits")
    playwright.expect(page.locator("#reviews-words")).to_contain_text("1 good part of the random sample")
    page.locator("#reviews-preview").click()
    playwright.expect(page.locator("#reviews-job")).to_contain_text("The defective limit would go from")
    page.locator("#reviews-limits").click()
    playwright.expect(page.locator("#reviews-job")).to_contain_text("the new version judges")
    assert service.models.versions(product)[0].change == "limits from reviews"


def test_a_drift_is_said_in_words_and_taken_back(served: Served, page: playwright.Page) -> None:
    service = served.service
    product = taught(service, "drifting", count=30).id
    page.goto(f"/products/{product}/live")
    playwright.expect(page.locator("#drift")).to_be_hidden()
    for seed in range(60):
        service.line.inspect(product, png((made_up_part(seed=500 + seed) * np.float32(0.6)).astype(np.uint8)))
    playwright.expect(page.locator(".alarm", has_text="darker")).to_be_visible()
    page.get_by_role("button", name="It is mended").click()
    playwright.expect(page.locator(".alarm")).to_have_count(0)


def test_the_wall_turns_pictures_on_hover_and_space(served: Served, page: playwright.Page) -> None:
    product = taught_product(served)
    served.service.line.inspect(product, bad_png(8), "SN-8")
    page.goto(f"/products/{product}/wall")
    first = page.locator("#wall .tile").first
    image = first.locator("img")
    first.hover()
    playwright.expect(image).to_have_attribute("src", re.compile("/overlay$"))
    page.mouse.move(2, 2)
    playwright.expect(image).to_have_attribute("src", re.compile("/thumbnail$"))
    page.keyboard.press("ArrowRight")
    playwright.expect(first).to_be_focused()
    page.keyboard.press(" ")
    playwright.expect(image).to_have_attribute("src", re.compile("/overlay$"))


@pytest.mark.parametrize("width", [1280, 820])
def test_no_page_is_wider_than_its_window(served: Served, page: playwright.Page, width: int) -> None:
    product = taught_product(served)
    page.set_viewport_size({"width": width, "height": 900})
    for path in ("/", "/audit", "/settings", "/login", *(f"/products/{product}{end}" for end in ENDS)):
        page.goto(path)
        page.wait_for_timeout(150)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        small = page.evaluate(
            "[...document.querySelectorAll('button, a.button, nav a, input:not([type=file]), select')]"
            ".filter((one) => one.offsetParent && one.getBoundingClientRect().height < 47)"
            ".map((one) => one.outerHTML)"
        )
        assert small == [], f"targets too small for gloves at {path}"
