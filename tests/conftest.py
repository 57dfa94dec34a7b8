"""Shared by all tests: made-up parts and predictions, a detector small enough to read, and real images."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_parts import made_up_part

from blemish import registry
from blemish.types import Prediction, Region

ROOT = Path(__file__).resolve().parent.parent


# Why a test may be skipped where everything that CI installs is installed: weights that only a hub has, hardware, data
# that cannot be published, what a file system or a user's rights forbid, a random draw without a case, the camera's
# package, which is not installed for tests.
MAY_SKIP = re.compile(
    "download|names no weights|CUDA|no GPU|no real pictures|no .+ in |root may write|file system|this draw|Windows|cv2"
)


def skipped_in_ci(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why a test was skipped that must run in CI; "" for all others."""
    if not report.skipped or not os.environ.get("CI") or hasattr(report, "wasxfail"):
        return ""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return "" if MAY_SKIP.search(reason) else reason


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that must run in CI fails there when it would be skipped."""
    report = yield
    if reason := skipped_in_ci(report):
        report.outcome, report.longrepr = "failed", f"must run in CI, but: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same of whole modules."""
    report = yield
    if reason := skipped_in_ci(report):
        report.outcome, report.longrepr = "failed", f"must run in CI, but: {reason}"
    return report


LONGEST = ("test_examples", "test_golden", "test_distribution")  # modules of the longest tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first, so that a slip shows early; the longest before other slow ones: no process waits for them."""
    items.sort(key=lambda item: (item.get_closest_marker("slow") is not None, item.path.stem not in LONGEST))


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name under which `NearestMean` is registered during one test."""
    entry = registry.DetectorEntry("nearest_mean:NearestMean", "distance to the mean patch", "none: a toy")
    monkeypatch.setitem(registry.DETECTORS, "toy", entry)
    return "toy"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real images: BLEMISH_DATA, or shared/data beside the repository."""
    folder = Path(os.environ.get("BLEMISH_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real pictures at {folder}: set BLEMISH_DATA to their folder")
    return folder


@pytest.fixture
def part() -> Any:
    """`made_up_part`, for tests that draw several."""
    return made_up_part


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
            verdict="unknown" if not is_known else "defective" if score > 0.5 else "good",
            map=scores,
            regions=regions,
            category=category,
            region_threshold=0.5,
            source=source,
        )

    return make
