"""The inspection page: complete, escaped, self-contained, bounded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from blemish.report import CalibrationFacts, write_inspection_report

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
    assert "1.6 % of the picture, strongest 3.0× the limit" in found.text
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
    found, _, _ = write(predictions, calibration=facts, loss_curve=[(i, 1 / (i + 1)) for i in range(20)])
    assert len(found.all("svg")) == 3
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
