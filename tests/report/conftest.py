"""Made-up predictions with realistic maps, and an HTML reader that insists on balanced tags."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser

import numpy as np
import pytest

from blemish.types import Prediction, Region

VOID = {"br", "hr", "img", "input", "link", "meta"}


class Reader(HTMLParser):
    """Collects elements and text; raises AssertionError on a tag that is closed wrongly or never."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute twice in <{tag}>: {names}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if not (self.open and self.open[-1] in ("style", "script")):
            self.text += data

    def all(self, tag: str, class_: str | None = None) -> list[dict[str, str | None]]:
        """The attributes of every `tag` that has the class."""
        return [
            a for t, a in self.elements if t == tag and (class_ is None or class_ in (a.get("class") or "").split())
        ]


@pytest.fixture
def read() -> Callable[[str], Reader]:
    return Reader


@pytest.fixture
def predict() -> Callable[..., Prediction]:
    """Makes a prediction whose map is 0.1 everywhere, and `peak` inside `box` where one is given; limits are 0.5."""

    def make(
        source: str = "part.png",
        score: float = 0.2,
        box: tuple[int, int, int, int] | None = None,
        peak: float = 1.0,
        size: tuple[int, int] = (96, 128),
        category: str | None = None,
        is_known: bool = True,
    ) -> Prediction:
        scores = np.full(size, 0.1, np.float32)
        regions: tuple[Region, ...] = ()
        if box is not None:
            left, top, right, bottom = box
            scores[top:bottom, left:right] = peak
            centre = ((left + right) / 2, (top + bottom) / 2)
            regions = (Region(box, (right - left) * (bottom - top), peak, peak, centre),)
        return Prediction(
            score=score,
            p_value=0.02 if score > 0.5 else 0.6,
            threshold=0.5,
            is_defective=score > 0.5,
            map=scores,
            regions=regions,
            category=category,
            is_known=is_known,
            map_threshold=0.5,
            source=source,
        )

    return make


@pytest.fixture
def grain() -> Callable[..., np.ndarray]:
    """Makes a grainy picture `(H, W, 3)` uint8: what compresses worst."""

    def make(size: tuple[int, int] = (96, 128), seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)

    return make
