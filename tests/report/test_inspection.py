"""The inspection page: complete, escaped, self-contained, bounded, and the same whether it is written once or often."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from blemish.report import CalibrationFacts, InspectionReport, write_inspection_report
from blemish.types import VERDICTS, Sample, Scan

NASTY = "in \"box\"/<script>alert('x')</script> Träger & Söhne 部品 \udc80.png"


@pytest.fixture
def write(tmp_path, grain, read):
    """Writes a report and reads it back, checked for what every page promises."""

    def make(predictions, **more):
        asked = []

        def image(prediction):
            asked.append(prediction)
            return grain((120, 160))

        settings = {"title": "Line <3>", "model_facts": {"encoder": "e<1>"}, "images": image} | more
        path = write_inspection_report(tmp_path / "report.html", predictions=predictions, **settings)
        text = path.read_text("utf-8")
        found = read(text)
        assert all(a["src"].startswith("data:image/jpeg;base64,") and a["alt"] for a in found.all("img"))
        assert "://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert not found.all("link")
        assert all("src" not in a for a in found.all("script"))
        assert "<script>alert" not in text
        return found, text, asked

    return make


def test_the_verdict_stands_first(write, predict):
    predictions = [predict(f"good {i}.png") for i in range(5)]
    predictions += [
        predict("bad.png", score=1.6, box=(0, 0, 20, 10), peak=1.5),
        predict("odd.png", 2.0, is_known=False),
    ]
    found, _, _ = write(predictions, failures=[(NASTY, "expected a picture; got 0 bytes; copy it again")])
    assert "1 of 7 defective" in found.text
    assert "Upper left" in found.text
    assert "1.6 % of the picture, strength 3.0 (outlined from 1)" in found.text
    assert "3.2× the limit" in found.text
    assert "0.02" in found.text
    assert "Unknown parts (1)" in found.text
    assert "Unreadable files (1)" in found.text
    assert "copy it again" in found.text
    assert "<script>alert('x')</script> Träger & Söhne 部品 \ufffd.png" in found.text
    assert len(found.all("article", "part")) == 1
    assert len(found.all("h1")) == 1
    assert found.all("html")[0]["lang"] == "en"


def test_labels_tell_found_missed_and_false_alarms(write, predict):
    bad = (10, 10, 40, 40)
    predictions = [
        predict("found.png", 1.0, bad),
        predict("missed.png", 0.45),
        predict("alarm.png", 0.6, bad),
        predict("passed.png", 0.1),
        predict("unlabelled.png", 0.9, bad),
    ]
    labels = {"found.png": 1, "missed.png": 1, "alarm.png": 0, "passed.png": 0}
    found, text, _ = write(predictions, labels=labels, masks=lambda p: np.eye(60, dtype=bool))
    assert "Against the known truth" in found.text
    assert "4 pictures of known parts came with a label" in found.text
    assert "0.750" in found.text  # AUROC: of the four pairs only missed–alarm is in the wrong order
    assert "Missed defects (1)" in found.text
    assert [text.count(f'badge {tone}">{word}<') for tone, word in (("good", "found"), ("defect", "missed"))] == [2, 2]
    assert "true defect" in found.text


def test_several_categories_have_their_own_histogram_and_evidence(write, predict):
    predictions = [predict(f"{c}{i}.png", 0.1 * i, category=c) for c in ("nut", "screw") for i in range(9)]
    facts = [CalibrationFacts(c, np.linspace(0.1, 0.4, 30), 0.5, 0.05, 30, "From folds.") for c in ("nut", "screw")]
    found, _, _ = write(predictions, calibration=facts)
    assert len(found.all("svg")) == 2
    assert found.text.count("From folds.") == 2
    assert len(found.all("button")) >= 3


def test_nothing_at_all_is_still_a_page(write):
    assert "No picture was inspected" in write([])[0].text


def gone(prediction):
    raise FileNotFoundError(prediction.source)


@pytest.mark.parametrize("image", [lambda prediction: None, gone])
def test_an_image_that_is_gone_is_said_to_be(write, predict, image):
    found, _, _ = write([predict("bad.png", 1.0, (0, 0, 9, 9)), predict("good.png")], images=image, masks=image)
    assert "not at hand" in found.text
    assert not found.all("img")


def test_sixty_grainy_images_stay_bounded(write, predict, grain):
    image = grain((512, 512))
    box = (100, 100, 300, 300)
    predictions = [predict(f"{i}.png", 1.0, box, size=(128, 128)) for i in range(30)]
    predictions += [predict(f"good {i}.png", size=(128, 128)) for i in range(30)]
    _, text, _ = write(predictions, images=lambda p: image)
    assert len(text) < 9_000_000  # pure noise, the worst there is; photographs take a quarter of it


def test_ten_thousand_images_stay_bounded(write, predict, grain):
    small, bad = predict(size=(8, 8)), predict(score=1.0, box=(1, 1, 4, 4), size=(8, 8))
    predictions = [replace(small, source=f"good {i}.png", score=0.4 * i / 9000) for i in range(9000)]
    predictions += [replace(bad, source=f"bad {i}.png", score=1 + i / 1000) for i in range(1000)]
    found, text, asked = write(predictions, failures=[(f"f{i}", "m") for i in range(1000)])
    assert len(text) < 6_000_000
    assert len(asked) == 40 + 36
    assert asked[0].source == "bad 999.png"
    assert "960 more defective pictures not shown here" in found.text
    assert "8,964 more good pictures not shown here" in found.text
    assert "good 8999.png" in found.text  # nearest to the limit


def tile_counts(found) -> dict[str, int]:
    """Label → number of the tiles in the headline."""
    words = found.text[: found.text.index("Scores")] if "Scores" in found.text else found.text
    labels = ("inspected", "defective", "unsure", "unknown part", "good", "unreadable")
    lines = [line for line in words.splitlines() if line and line[0].isdigit()]
    return {
        name: int(line.removesuffix(name))
        for line in lines
        for name in labels
        if line.endswith(name) and line[: -len(name)].isdigit()
    }


def test_every_verdict_has_its_group_and_counts_add_up_to_the_files(write, predict):
    counts = {"good": 7, "defective": 4, "unsure": 3, "unknown": 2}
    predictions = [
        replace(predict(f"{verdict} {i}.png", 0.1 + 0.1 * i), verdict=verdict)
        for verdict, count in counts.items()
        for i in range(count)
    ]
    # Half of the files have a label: groups and counts stay what they are.
    labels = {p.source: i % 2 for i, p in enumerate(predictions) if i % 4 < 2 and p.verdict != "good"}
    for known in ({}, labels):
        found, text, _ = write(predictions, failures=[("broken.png", "m"), ("gone.png", "m")], labels=known)
        tiles = tile_counts(found)
        assert tiles == {"inspected": 16, "defective": 4, "unsure": 3, "unknown part": 2, "good": 7, "unreadable": 2}
        assert tiles["inspected"] == sum(tiles[name] for name in ("defective", "unsure", "unknown part", "good"))
        for heading in ("Defective pictures (4)", "Unsure pictures (3)", "Unknown parts (2)", "Good pictures (7)"):
            assert heading in found.text
        assert text.count('badge unsure">unsure<') == 3 + 3  # its card and its line in the table
    assert "4 of 16 defective" in found.text


def test_a_score_over_the_limit_does_not_make_an_unknown_part_defective(write, predict):
    predictions = [predict("odd.png", 2.0, (0, 0, 9, 9), is_known=False), predict("fine.png")]
    found, _, _ = write(predictions, labels={"odd.png": 1, "fine.png": 0})
    assert "No defect in 2 pictures, but 1 unknown part" in found.text
    assert "Defective pictures" not in found.text
    assert "Missed" not in found.text
    assert tile_counts(found)["unknown part"] == 1


def test_what_was_not_decided_stands_beside_no_defect(write, predict):
    unsure = [replace(predict(f"{i}.png"), verdict="unsure") for i in range(3)]
    unknown = [predict(f"odd {i}.png", is_known=False) for i in range(2)]
    assert "No defect in 5 pictures, but 3 unsure and 2 unknown parts" in write([*unsure, *unknown])[0].text


def test_nothing_is_said_of_good_parts_where_none_was_seen(write, predict):
    facts = CalibrationFacts(None, np.zeros(0), 1.0, 0.05, 0, "No limit yet.")
    unsure = replace(predict("a.png", 0.4), verdict="unsure", p_value=1.0, threshold=1.0)
    found, _, _ = write([unsure], calibration=[facts])
    assert "there is no good score yet to compare it with" in found.text
    assert "100 % of good parts" not in found.text


def test_a_category_may_have_any_name(write, predict):
    predictions = [predict(f"{name}.png", 1.6, category=name) for name in ("nut|bolt", "cap")]
    found, _, _ = write(predictions, labels={"cap.png": 1})
    buttons = {a["data-show"] for a in found.all("button") if a.get("data-show")}
    assert buttons == {"nut|bolt", "cap", "found"}
    assert {tag for a in found.all("article", "part") for tag in a["data-tags"].split("\n")} == buttons


def report(**more) -> InspectionReport:
    return InspectionReport(title="t", model_facts={}, **more)


def test_adding_in_any_order_makes_the_same_page(predict, grain, tmp_path):
    predictions = [predict(f"{i}.png", i / 60, (5, 5, 20, 20) if i > 30 else None) for i in range(100)]
    calibration = [CalibrationFacts(None, np.linspace(0.1, 0.4, 30), 0.5, 0.05, 30, "From folds.")]
    pages = []
    for order in (range(100), range(99, -1, -1), np.random.default_rng(0).permutation(100)):
        made = report(calibration=calibration, most_defective=5, most_good=4)
        for place, i in enumerate(order):
            made.add(predictions[i], grain(seed=int(i)))
            if place == 50:
                made.write(tmp_path / "r.html")
        pages.append(made.write(tmp_path / "r.html").read_text("utf-8").split("<h1>")[1].split("<footer>")[0])
    assert pages[0] == pages[1] == pages[2]
    assert made.counts == {"good": 31, "defective": 69}


def test_an_unfinished_page_counts_what_was_added(predict, grain, read, tmp_path):
    made = report(notes=["7 other files were not looked at."])
    for i in range(3):
        made.add(predict(f"{i}.png", 1.0, (0, 0, 9, 9)), grain())
        found = read(made.write(tmp_path / "r.html").read_text("utf-8"))
        assert f"{i + 1} of {i + 1} defective" in found.text
    assert "7 other files were not looked at." in found.text


def test_pixels_are_asked_for_only_if_they_are_shown(predict, grain):
    asked: list[str] = []

    def give(name: str) -> np.ndarray:
        asked.append(name)
        return grain()

    made = report(most_defective=3, most_good=2)
    for i in range(10):
        for verdict in VERDICTS:
            prediction = replace(predict(f"{verdict} {i}", 1 - i / 20), verdict=verdict)
            made.add(prediction, lambda p=prediction: give(p.source), relief=lambda: give("relief"))
    assert len(asked) == 2 * (3 + 3) + 2 + 2


def test_labels_masks_and_scans_come_with_the_sample(predict, grain, read):
    mask = np.zeros((96, 128), bool)
    mask[10:20, 10:20] = True
    points = np.random.default_rng(0).random((96, 128, 3), np.float32)
    made = report()
    made.add(
        predict("scan.png", 1.0, (9, 9, 30, 30)), Scan(grain(), points), Sample(Path("scan.png"), label=1, mask=mask)
    )
    made.add(
        predict("points.tiff", 1.0, (9, 9, 30, 30)), Scan(None, points), Sample(None, Path("points.tiff"), label=0)
    )
    made.add(predict("gone.png", 1.0, (9, 9, 30, 30)), grain(), Sample(Path("gone.png"), mask=Path("no such mask.png")))
    text = made.page()
    assert [text.count(f"<figcaption>{words}</figcaption>") for words in ("picture", "surface", "true defect")] == [
        3,
        1,
        1,
    ]
    assert "found" in read(text).text
    assert "false alarm" in text


def test_a_lost_map_leaves_boxes_and_words(predict, grain):
    whole = predict("a.png", 1.0, (9, 9, 30, 30))
    lost = replace(
        whole, map=np.zeros((0, 0), np.float32), regions=(replace(whole.regions[0], words="upper left, small"),)
    )
    made = report()
    made.add(lost, grain())
    text = made.page()
    assert "<figcaption>marked</figcaption>" in text
    assert "Upper left" in text


def test_memory_stays_flat(predict, grain):
    image = grain((64, 64))
    base = predict(size=(8, 8), box=(1, 1, 4, 4))
    made = report(most_defective=5, most_good=5)
    scores = np.random.default_rng(0).uniform(0.05, 1.0, 60_000).tolist()

    def add(start: int, stop: int) -> int:
        for i in range(start, stop):
            made.add(
                replace(base, source=f"{i}.png", score=scores[i], verdict="good" if scores[i] < 0.5 else "defective"),
                image,
            )
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        early = add(0, 20_000)
        late = add(20_000, 60_000)
    finally:
        tracemalloc.stop()
    assert late < 1.05 * early
