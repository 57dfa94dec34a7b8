"""The diagnosis page: verdicts first, every measure with its limit, advice only where a sign shows, self-contained."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.diagnosis import Diagnosis, InspectedImage, Measure, Sign
from blemish.report import write_diagnosis_report


@pytest.fixture
def write(tmp_path, read):
    def make(diagnosis):
        path = tmp_path / "report.html"
        write_diagnosis_report(path, title="Line <3>", model_facts={"encoder": "e<1>"}, diagnosis=diagnosis)
        text = path.read_text("utf-8")
        found = read(text)
        assert all(a["src"].startswith("data:image/jpeg;base64,") and a["alt"] for a in found.all("img"))
        assert "://" not in text.replace("http://www.w3.org/2000/svg", "")
        return found

    return make


@pytest.fixture
def failing(predict, grain):
    mask = np.zeros((96, 128), bool)
    mask[10:30, 10:40] = True
    seen = InspectedImage(grain(), predict("a/<b>.png", 0.7, (10, 10, 40, 30)), mask)
    calm = InspectedImage(grain(), predict("c.png"))
    identity = Sign(
        "identity mapping",
        "Means <this>.",
        (Measure("seen", 0.51, 0.8, at_least=True), Measure("contrast", None, 1.3, True, "no <picture>")),
        ("Set `--set gate=0.5` now.",),
        (("The faintest", seen), ("Another", calm)),
    )
    over = Sign("over-fitting", "Fits.", (Measure("way", 0.2, 0.5),), ("Not to be told.",), facts={"new": 4})
    bars = {f"milliseconds in the detector with {share} % of the patches": 1.0 * share for share in (25, 50, 100)}
    grows = Sign("growth", "Grows.", (Measure("ms", 1.0, 200.0),), facts=bars | {"patches stored": 10})
    gap = Sign("domain gap", "Gap.", (Measure("unknown", None, 0.25, why="no picture given"),))
    scores = {"good, learned": np.ones(3), "made-up spot": np.array([2.0, 3.0])}
    return Diagnosis((identity, over, gap, grows), ("Looked at 3.",), scores, (("x<y>.png", "expected <a>"),))


def test_the_verdict_stands_first_and_numbers_stand_beside_their_limits(write, failing):
    found = write(failing)
    assert "Shows: identity mapping" in found.text
    for words in ("0.51", "at least 0.8", "at most 0.5", "not measured: no <picture>", "Means <this>.", "<b>.png"):
        assert words in found.text, words
    assert "Set --set gate=0.5 now." in found.text
    assert "Not to be told." not in found.text
    assert len(found.all("article", "part")) == 2
    assert len(found.all("img")) == 3 + 2
    assert len(found.all("svg")) == 2  # scores, and time by what is stored
    assert "Unreadable files (1)" in found.text
    assert len(found.all("span", "warn")) == 1


def test_a_healthy_model_is_said_to_be(write, failing):
    healthy = Diagnosis(failing.signs[1:], (), {})
    assert "None of 2 measured signs shows" in write(healthy).text
