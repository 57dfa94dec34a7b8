"""Promised against kept false-alarm rate of each method, over the normal test images of all its runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blemish.evaluation.results import RunDetail
from blemish.metrics import KeptRate, Uniformity, kept_rate, promised_and_kept, uniformity
from blemish.metrics.calibration import PROMISED


@dataclass(frozen=True)
class CalibrationQuality:
    """How well thresholds and p-values keep their promise on `images` different normal test images.

    `target` is the promised false-alarm rate and `kept` that of the verdicts "defective" and "unknown", with its 95 %
    interval.
    `by_rate` is the same at other promised rates, counted from p-values; `uniformity` compares all of these with the
    uniform distribution; `unknown_rate` is the share of all test images that are unlike anything learned.
    """

    images: int
    target: float
    kept: KeptRate
    by_rate: dict[float, KeptRate]
    uniformity: Uniformity
    unknown_rate: float

    @property
    def in_words(self) -> str:
        """Whether the promise is kept, as far as these images can show."""
        if self.kept.low > self.target:
            return "more than promised"
        return "fewer than promised" if self.kept.high < self.target else "no difference is shown"


def calibration_quality(details: Sequence[RunDetail]) -> dict[str, CalibrationQuality]:
    """By method (detector, encoder, image size, shots, pooled: what differs is named); none without normal images.

    Images count once, however many seeds inspected them: models of several seeds share their test images.
    """
    columns = ("encoder", "image_size", "shots", "pooled")
    varying = [name for name in columns if len({str(detail.row[name]) for detail in details}) > 1]
    groups: dict[str, list[RunDetail]] = {}
    for detail in details:
        method = ", ".join([str(detail.row["detector"]), *(f"{name} {detail.row[name]}" for name in varying)])
        groups.setdefault(method, []).append(detail)
    return {method: found for method, members in groups.items() if (found := quality_of(members)) is not None}


def quality_of(details: Sequence[RunDetail]) -> CalibrationQuality | None:
    """The quality over all details of one method; None without normal images."""
    scored = [(detail, image) for detail in details for image in detail.images]
    normal = [(detail, image) for detail, image in scored if not image.label]
    if not normal:
        return None
    distinct = distinct_normal_images(details)
    alarms = sum(image.is_alarm for _, image in normal) / len(normal)
    p_values = [image.p_value for _, image in normal]
    targets = [float(detail.row["target_false_alarm_rate"]) for detail, _ in normal]
    return CalibrationQuality(
        images=distinct,
        target=sum(targets) / len(targets),
        kept=kept_rate(alarms, distinct),
        by_rate=promised_and_kept(p_values, PROMISED, distinct),
        uniformity=uniformity(p_values, images=distinct),
        unknown_rate=sum(image.verdict == "unknown" for _, image in scored) / len(scored),
    )


def distinct_normal_images(details: Sequence[RunDetail]) -> int:
    """How many different normal test images stand behind the details: those of each category once."""
    counts: dict[tuple[str, str], int] = {}
    for detail in details:
        key = str(detail.row["dataset"]), str(detail.row["category"])
        counts[key] = max(counts.get(key, 0), sum(not image.label for image in detail.images))
    return sum(counts.values())
