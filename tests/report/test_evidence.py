"""The stated range of false-alarm rates covers the true one as often as it says."""

from __future__ import annotations

import numpy as np
import pytest

from blemish.report.evidence import CalibrationFacts, evidence_in_words, images_needed, percent, rate_interval


@pytest.mark.parametrize(("n", "above"), [(40, 2), (19, 1), (200, 10)])
def test_the_interval_covers_as_promised(n, above):
    random = np.random.default_rng(n)
    covered = 0
    for _ in range(400):
        scores = np.sort(random.random(n))
        threshold = scores[n - above]
        low, high = rate_interval(CalibrationFacts(None, scores, threshold, 0.05, n))
        covered += low <= 1 - threshold <= high
    assert covered / 400 == pytest.approx(0.9, abs=0.05)


def test_little_evidence_is_called_little():
    few = CalibrationFacts("screw", np.linspace(0.1, 0.2, 40), 0.3, 0.05, 4, "From 40 copies of 4 good pictures.")
    words = " ".join(evidence_in_words(few))
    assert "40 copies of 4" in words
    assert "too few" in words
    assert "at least 19" in words
    assert rate_interval(few)[1] == pytest.approx(1 - 0.1 ** (1 / 4))  # zero of four: (1 − r)⁴ = 0.1
    many = CalibrationFacts(None, np.linspace(0, 1, 200), 0.95, 0.05, 200)
    assert "too few" not in " ".join(evidence_in_words(many))
    assert rate_interval(CalibrationFacts(None, np.zeros(0), 1.0, 0.05, 0)) == (0.0, 1.0)


def test_more_evidence_narrows_the_range():
    widths = []
    for n in (20, 100, 1000):
        low, high = rate_interval(CalibrationFacts(None, np.arange(n), n - n * 0.05, 0.05, n))
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)


def test_small_numbers():
    assert [images_needed(r) for r in (0.5, 0.05, 0.01)] == [1, 19, 99]
    assert [percent(r) for r in (0.05, 0.005, 0.123)] == ["5 %", "0.5 %", "12 %"]


def test_every_piece_is_a_sentence():
    """How the scores were obtained stands in a sentence of its own."""
    sentence = "It was taken from 200 good pictures that the model did not learn from."
    for obtained in ("", sentence):
        words = evidence_in_words(CalibrationFacts(None, np.linspace(0, 1, 200), 0.95, 0.05, 200, obtained))
        for line in words:
            assert line.endswith(".")
            assert all(part[0].isupper() for part in line.split(". "))
        assert words[0].endswith(obtained or "It rests on 200 good pictures.")


def test_pictures_of_unknown_state_are_not_called_too_few() -> None:
    facts = CalibrationFacts(None, np.linspace(0.8, 1, 4), 1.1, 0.05, 4, "It was taken from both.", unlabelled=50)
    words = " ".join(evidence_in_words(facts))
    assert "too few" not in words
    assert "confidence" not in words
    assert "most of them show good parts" in words
