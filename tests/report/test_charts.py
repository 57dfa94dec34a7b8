"""Charts hold every value once, stay inside their frame, and are well-formed SVG."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from blemish.report.charts import (
    Bar,
    Group,
    Line,
    bar_chart,
    curve_chart,
    histogram,
    precision_recall_chart,
    roc_chart,
)
from blemish.report.svg import RIGHT, nice_ticks, tag

SVG = "{http://www.w3.org/2000/svg}"
RANDOM = np.random.default_rng(3)


def drawing(chart: str) -> ElementTree.Element:
    found = ElementTree.fromstring(chart).find(f".//{SVG}svg")
    assert found is not None
    assert found.get("role") == "img"
    assert found.get("aria-label")
    _, _, width, height = map(float, found.get("viewBox").split())
    for element in found.iter():
        for key, most in (("x", width), ("cx", width), ("x1", width), ("x2", width), ("y", height), ("y1", height)):
            if element.get(key) is not None and element.get("transform") is None:
                assert -1 <= float(element.get(key)) <= most + 1, (element.tag, element.attrib)
    return found


def counts(chart: str) -> dict[str, int]:
    """Sums what the bars say they hold, by group."""
    total: dict[str, int] = {}
    for title in drawing(chart).iter(f"{SVG}title"):
        count, name = re.match(r"(\d+) (.+), \S+ to \S+$", title.text).groups()
        total[name] = total.get(name, 0) + int(count)
    return total


@pytest.mark.parametrize("spread", [0.0, 0.1, 2.0, 40.0])
def test_a_histogram_holds_every_score_once(spread):
    good, bad = RANDOM.uniform(0.2, 0.4, 57), 0.5 + spread * RANDOM.random(23)
    chart = histogram([Group("good", good, "good"), Group("defective", bad, "defect")], title="T", threshold=0.5)
    assert counts(chart) == {"good": 57, "defective": 23}
    assert ("≥" in chart) == (spread > 3)  # more than six times the limit share the last bar


def test_the_name_of_the_last_bar_stands_inside_the_chart() -> None:
    chart = drawing(histogram([Group("g", np.array([1.0, 99.0]))], title="T", threshold=10.460831, width=480))
    [last] = [one for one in chart.iter(f"{SVG}text") if (one.text or "").startswith("≥")]
    assert last.text == "≥ 62.8"
    assert (last.get("text-anchor"), float(last.get("x"))) == ("end", 480 - RIGHT)


@pytest.mark.parametrize("values", [[], [0.0], [1.0, 1.0], [-2.0, 5.0], [float("nan"), float("inf"), 1.0]])
def test_histograms_of_odd_scores(values):
    chart = histogram([Group("g", np.array(values))], title="T", threshold=None)
    assert sum(counts(chart).values()) == int(np.isfinite(values).sum())
    histogram([Group("g", np.array(values))], title="T", threshold=0.0)


def test_curves_draw_one_point_a_score():
    """And their beginning, where the first point is another one."""
    scores, labels = RANDOM.random(30), np.arange(30) % 3 == 0
    found = int(labels[scores.argmax()])
    drawn = (roc_chart(scores, labels, threshold=0.5), 1), (precision_recall_chart(scores, labels), found)
    for chart, extra in drawn:
        points = drawing(chart).find(f"{SVG}polyline").get("points").split()
        assert len(points) == 30 + extra
    assert drawing(roc_chart(scores, labels, threshold=0.5)).find(f"{SVG}circle") is not None


def test_the_size_of_a_curve_does_not_grow_with_the_images() -> None:
    """Points that lie on one another to a tenth of a pixel are drawn once; the ends of the curve stay."""
    random = np.random.default_rng(0)
    scores, labels = random.random(50_000), random.integers(0, 2, 50_000)
    for chart in (roc_chart, precision_recall_chart):
        assert len(chart(scores + labels, labels)) < 150_000
    few, many = (roc_chart((scores + labels)[:n], labels[:n]) for n in (500, 50_000))
    points = [re.search(r'points="([^"]*)"', drawn)[1].split() for drawn in (few, many)]
    assert points[0][0] == points[1][0]
    assert points[0][-1] == points[1][-1]


def test_bars_have_the_length_of_their_values():
    bars = [Bar("a", 1.0), Bar("b <script>", 0.25, "1 of 4"), Bar("none", 0.0), Bar("broken", float("nan"))]
    chart = bar_chart(bars, title="T", maximum=1.0)
    widths = [float(r.get("width")) for r in drawing(chart).iter(f"{SVG}rect") if "bar" in r.get("class")]
    assert len(widths) == 4
    assert np.array(widths) / widths[0] == pytest.approx([1, 0.25, 0, 0], abs=0.01)
    assert "<script" not in chart


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.037), (-3, 7), (0, 123456), (0.97, 0.99)])
def test_ticks_are_round_and_inside(low, high):
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 6
    assert low - 1e-9 <= ticks[0]
    assert ticks[-1] <= high + 1e-9
    assert np.diff(ticks) == pytest.approx(np.diff(ticks)[0])
    assert all(len(f"{t:.6g}".lstrip("-0.").replace(".", "").rstrip("0")) <= 3 for t in ticks)


def test_values_may_come_with_counts() -> None:
    values, counts = np.array([0.2, 0.8, 30.0]), np.array([5, 7, 2])
    counted = histogram([Group("g", values, counts=counts)], title="T", threshold=0.5)
    repeated = histogram([Group("g", np.repeat(values, counts))], title="T", threshold=0.5)
    assert counted == repeated
    assert "14 g; above the limit: 9 g" in counted


NASTY = ("<script>alert(1)</script>", "\"quoted\" & 'quoted'", "Träger-部品")


@pytest.mark.parametrize("words", NASTY)
def test_names_are_escaped_once(words: str) -> None:
    drawn = tag("text", words, aria_label=words)
    found = ElementTree.fromstring(drawn)
    assert (found.text, found.get("aria-label")) == (words, words)
    for chart in (
        bar_chart([Bar(words, 1.0, words)], title=words),
        histogram([Group(words, np.ones(3))], title=words, x_label=words),
        curve_chart(
            [Line(words, np.arange(2), np.arange(2)), Line("b", np.arange(2), np.arange(2))],
            title=words,
            x_label=words,
            y_label=words,
            x_range=(0, 1),
            y_range=(0, 1),
            marks=[(0.5, 0.5, words)],
        ),
    ):
        assert ElementTree.fromstring(chart).find("figcaption").text == words
        assert "<script" not in chart


def test_places_on_the_axis_can_have_names_and_points_their_deviation() -> None:
    line = Line("a", np.array([0.0, 1.0]), np.array([0.5, 0.9]), std=np.array([0.1, 0.0]))
    drawn = curve_chart(
        [line],
        title="t",
        x_label="x",
        y_label="y",
        x_range=(0, 1),
        y_range=(0, 1),
        x_names={0.0: "one", 1.0: "all"},
        reference=("chance", 0.5),
    )
    for words in (">one<", ">all<", ">chance<", "a: 0.5 ± 0.1", "a: 0.9<"):
        assert words in drawn
    assert drawn.count("<polyline") == 3  # the curve and two whiskers
    low, high = re.findall(r'points="[\d.]+,([\d.]+) [\d.]+,([\d.]+)"', drawn)[1]
    assert float(low) - float(high) == pytest.approx(0.2 * (270 - 38 - 12), abs=0.2)
