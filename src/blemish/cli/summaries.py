"""What a model is and what its thresholds rest on, for the terminal and for reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from blemish.data.files import shown
from blemish.scoring.describe import count_in_words
from blemish.types import POINTS, RGB

if TYPE_CHECKING:
    from blemish.model.inspector import Inspector
    from blemish.report import CalibrationFacts
    from blemish.scoring.calibration import Evidence

ALONE = {RGB: "the picture", POINTS: "the points"}


def model_in_words(inspector: Inspector) -> list[str]:
    """One line on the method, one on each category's threshold, and one on those of scans that lack a modality."""
    lines = [
        f"Model: {inspector.detector_name} on {inspector.encoder_name} at {inspector.image_size} px",
    ]
    for category, calibration in inspector.calibrations.items():
        name = f"{category}: " if category else ""
        lines.append(f"{name}{calibration.evidence.words} Limit {calibration.threshold:.4g}.")
        if alone := [f"{own.threshold:.4g} with {ALONE[side]} alone" for side, own in calibration.alone.items()]:
            lines.append(f"{name}Limit {', '.join(alone)}.")
    return lines


def model_facts(inspector: Inspector) -> dict[str, object]:
    """The method's names and settings, for a report."""
    categories = [category for category in inspector.calibrations if category]
    facts: dict[str, object] = {
        "detector": inspector.detector_name,
        "encoder": inspector.encoder_name,
        "image size": f"{inspector.image_size} px",
        "wished false-alarm rate": f"{100 * inspector.false_alarm_rate:g} %",
    }
    if categories:
        facts["categories"] = categories
    if inspector.set_aside_:
        facts["set aside while learning"] = [one.file for one in inspector.set_aside_]
    return facts


def set_aside_in_words(inspector: Inspector) -> list[str]:
    """One line on how many pictures were set aside, one on each; scores are times the median picture's."""
    aside, learned = inspector.set_aside_, len(inspector.learned_)
    lines = [f"Set aside: {count_in_words(len(aside), 'picture')} that stood out from the others; {learned} learned."]
    return lines + [f"  {shown(Path(one.file))}  {one.score:.2f}× (limit {one.limit:.2f}×)" for one in aside]


def calibration_facts(inspector: Inspector) -> list[CalibrationFacts]:
    """Each category's threshold and the good scores behind it, for a report."""
    from blemish.report import CalibrationFacts

    return [
        CalibrationFacts(
            category=category,
            scores=calibration.scores,
            threshold=calibration.threshold,
            false_alarm_rate=calibration.false_alarm_rate,
            evidence=distinct_parts(calibration.evidence),
            obtained=obtained(calibration.evidence),
        )
        for category, calibration in inspector.calibrations.items()
    ]


def distinct_parts(evidence: Evidence) -> int:
    """How many different good parts stand behind the scores; copies of one part count once."""
    return evidence.images if evidence.copies else evidence.held_out


def obtained(evidence: Evidence) -> str:
    """How the scores came about, in words that follow "obtained from"."""
    if evidence.copies:
        return f"{evidence.held_out} slightly changed copies of them"
    if evidence.folds:
        return f"detectors that did not know the picture, in {evidence.folds} folds"
    return "pictures that the detector did not learn from"
