"""What a model is and what its thresholds rest on, for the terminal and for reports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from blemish.scoring.describe import count_in_words
from blemish.types import POINTS, RGB, Verdict
from blemish.utils.paths import shown

if TYPE_CHECKING:
    from blemish.model.inspector import Inspector
    from blemish.report import CalibrationFacts
    from blemish.scoring.calibration import Calibration

FEW = 1 / 3  # of the small made-up defects: whoever finds fewer is not to be relied on untested; chosen by hand
_MODALITY_NAMES = {RGB: "the picture", POINTS: "the points"}


def model_in_words(inspector: Inspector) -> list[str]:
    """One line on the method, one on each category's threshold, and more on what is to be said of it."""
    lines = [
        f"Model: {inspector.detector_name} on {inspector.encoder_name} at {inspector.image_size} px",
    ]
    for category, calibration in inspector.calibrations.items():
        name = f"{category}: " if category else ""
        lines.append(f"{name}{calibration.words} {limits_in_words(calibration)}".rstrip())
        if weak := weakness_in_words(calibration):
            lines.append(f"{name}{weak}")
        if unimodal := [
            f"{own.threshold:.4g} with {_MODALITY_NAMES[side]} alone" for side, own in calibration.unimodal.items()
        ]:
            lines.append(f"{name}Limit {', '.join(unimodal)}.")
        if share := ignored_in_words(inspector, category):
            lines.append(f"{name}Not judged: {share} of every picture.")
    return lines


def weakness_in_words(calibration: Calibration) -> str:
    """What to do where a model finds few of the small made-up defects; "" where it finds more, or none were made up."""
    count = len(calibration.defect_gains)
    if not count or calibration.unlabelled is not None or calibration.defects_found >= FEW * count:
        return ""
    return (
        f"It finds {calibration.defects_found} of {count} small made-up defects: test it on defective parts before you "
        "rely on it. The default encoder, a larger --image-size or more good pictures may find more."
    )


def ignored_in_words(inspector: Inspector, category: str | None) -> str:
    """The share of a category's images that is not judged, such as "4.2 %"; "" where all of them is."""
    area = inspector.model_.ignored.get(category or "")
    return "" if area is None else f"{100 * area.mean():.2g} %"


def limits_in_words(calibration: Calibration) -> str:
    """Above which score a part is defective, and from which on a person should look; "" where nothing was seen yet."""
    if not len(calibration.scores):
        return ""
    limit, unsure = f"{calibration.threshold:.4g}", f"{calibration.unsure_threshold:.4g}"
    return f"Defective above {limit}" + ("." if unsure == limit else f", unsure above {unsure}.")


def model_facts(inspector: Inspector) -> dict[str, object]:
    """The method's names and settings, for a report."""
    categories = [category for category in inspector.calibrations if category]
    facts: dict[str, object] = {
        "detector": inspector.detector_name,
        "encoder": inspector.encoder_name,
        "image size": f"{inspector.image_size} px",
        "false alarms accepted": f"{100 * inspector.false_alarm_rate:g} %",
        "good parts that may be unsure": f"{100 * max(own.unsure_rate for own in inspector.calibrations.values()):g} %",
    }
    if categories:
        facts["categories"] = categories
    ignored = {name: ignored_in_words(inspector, name) for name in inspector.calibrations}
    if any(ignored.values()):
        facts["not judged"] = [f"{share} of {name or 'every picture'}" for name, share in ignored.items() if share]
    if inspector.outliers_:
        facts["set aside while learning"] = [one.file for one in inspector.outliers_]
    if inspector.standing_out_:
        facts["learned, but stood out"] = [one.file for one in inspector.standing_out_]
    return facts


def set_aside_in_words(inspector: Inspector) -> list[str]:
    """One line on how many pictures were set aside, one on each; scores are times the median picture's."""
    aside, learned = inspector.outliers_, len(inspector.model_.fingerprints)
    lines = [f"Set aside: {count_in_words(len(aside), 'picture')} that stood out from the others; {learned} learned."]
    return lines + [f"  {shown(Path(one.file))}  {one.score:.2f}× (limit {one.threshold:.2f}×)" for one in aside]


def standing_out_in_words(inspector: Inspector) -> list[str]:
    """Which learned pictures stand out and by how much, and what to do; nothing where none do."""
    found = inspector.standing_out_
    if not found:
        return []
    stand = "stands" if len(found) == 1 else "stand"
    lines = [f"Look at {count_in_words(len(found), 'good picture')} that {stand} out from the others:"]
    for one in found:
        times = f"{one.score:.2f}× the median picture, the others at most {one.others:.2f}×"
        lines.append(f"  {shown(Path(one.file))}  {times}")
    for category, without in {one.category: one.threshold_without for one in found}.items():
        if without is not None:
            name = f"{category}: " if category else ""
            now = f"{inspector.calibrations[category].threshold:.4g}"
            lines.append(f"  {name}The limit is {now}; it would be {without:.4g} without.")
    return [*lines, "  Remove what shows a defect, and learn again. What is good but rare stays."]


def calibration_facts(inspector: Inspector) -> list[CalibrationFacts]:
    """Each category's threshold and the good scores behind it, for a report."""
    from blemish.report import CalibrationFacts

    return [
        CalibrationFacts(
            category=category,
            scores=calibration.scores,
            threshold=calibration.threshold,
            false_alarm_rate=calibration.false_alarm_rate,
            evidence=calibration.source.parts,
            obtained=obtained(calibration) if len(calibration.scores) else calibration.words,
            unlabelled=0 if calibration.unlabelled is None else len(calibration.unlabelled.scores),
        )
        for category, calibration in inspector.calibrations.items()
    ]


def obtained(calibration: Calibration) -> str:
    """Where a threshold comes from, in sentences that can follow "The limit aims at 5 % false alarms."."""
    words = calibration.source.words if calibration.unlabelled is None else calibration.words
    return f"It was taken from {words.removeprefix('Limit from ')} {weakness_in_words(calibration)}".rstrip()


def verdicts_in_words(counts: Mapping[Verdict, int], unreadable: int) -> str:
    """How many pictures got each verdict; the counts add up to the inspected, with the unreadable to the files."""
    said = [f"{counts['defective']:,} defective", f"{counts['good']:,} good"]
    said += [f"{counts['unsure']:,} unsure"] * bool(counts["unsure"])
    said += [f"{counts['unknown']:,} unknown (unlike any part that the model learned)"] * bool(counts["unknown"])
    and_unreadable = f"; {unreadable:,} unreadable" if unreadable else ""
    return f"{sum(counts.values()):,} inspected: {', '.join(said)}{and_unreadable}"
