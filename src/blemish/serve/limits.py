"""The limits of a product: the scores they part, what moving them would change, and the move itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from blemish.errors import SettingsError
from blemish.model.inspector import Inspector
from blemish.model.recalibration import Flip
from blemish.monitoring.flips import Decision, flips_of
from blemish.scoring.calibration import Calibration
from blemish.serve.core import Core
from blemish.serve.errors import ConflictError
from blemish.serve.models import Models, calibration_of
from blemish.serve.parts import Parts
from blemish.serve.records import Product, ScoredPart, Version
from blemish.types import Verdict

BINS = 60
SHOWN = 2000  # scores of each kind that are handed out one by one
RECENT = 500  # parts whose verdicts are compared
NEAREST = 12  # parts shown on either side of a limit
SCALE = 3.0  # the histogram ends at this many times the limit; higher scores are in its last bar


@dataclass(frozen=True)
class LimitMove:
    """Limits asked for: by hand, as two scores, or as the rates that good parts may exceed them with."""

    threshold: float | None = None
    unsure_threshold: float | None = None
    false_alarm_rate: float | None = None
    unsure_rate: float | None = None

    def of(self, calibration: Calibration) -> Calibration:
        """The calibration with these limits. Raises SettingsError for what cannot be."""
        by_hand = self.threshold is not None or self.unsure_threshold is not None
        if by_hand and (self.false_alarm_rate is not None or self.unsure_rate is not None):
            raise SettingsError("limits by hand, or accepted rates", "both", "give one kind of them")
        if by_hand:
            threshold = calibration.threshold if self.threshold is None else self.threshold
            unsure = self.unsure_threshold
            return calibration.with_thresholds(
                threshold, min(calibration.unsure_threshold, threshold) if unsure is None else unsure
            )
        rate = calibration.false_alarm_rate if self.false_alarm_rate is None else self.false_alarm_rate
        return calibration.at(rate, self.unsure_rate)


class Limits:
    """Reads and moves the limits of products; every move makes a new version."""

    def __init__(self, core: Core, models: Models, parts: Parts) -> None:
        self._core, self._models, self._parts = core, models, parts

    def histogram(self, product: Product) -> dict[str, Any]:
        """Scores of good, unlabelled and defective parts that the present detector gave, and the limits among them.

        `good` are held-out scores of the calibration, `reviewed_good` and `defective` those of parts that people
        decided, `unlabelled` those of all others. `edges` has one more entry than each of the `counts`; what is above
        the last edge is counted in the last bar.
        """
        version = self._models.active(product)
        calibration = calibration_of(self._models.inspector(version))
        scores = {"good": calibration.scores.tolist(), **self._scores_of_parts(product, version)}
        together = [score for some in scores.values() for score in some]
        top = min(max(together, default=1.0), SCALE * calibration.threshold)
        edges = np.linspace(min(0.0, *together), max(top, calibration.threshold) * (1 + 1e-9) or 1.0, BINS + 1)
        return {
            "product": product.id,
            "version": version.to_dict(),
            "rests_on": calibration.words,
            **limits_of(calibration),
            "edges": edges.tolist(),
            "counts": {
                kind: np.histogram(np.minimum(some, edges[-1]), edges)[0].tolist() for kind, some in scores.items()
            },
            "scores": {kind: sorted(some)[-SHOWN:] for kind, some in scores.items()},
            "totals": {kind: len(some) for kind, some in scores.items()},
        }

    def _scores_of_parts(self, product: Product, version: Version) -> dict[str, list[float]]:
        rows = self._core.store.rows(
            "SELECT p.score AS score, p.decision AS decision FROM parts p JOIN versions v ON v.id = p.version "
            "WHERE p.product = ? AND v.scored_by = ? AND p.score IS NOT NULL AND p.is_deleting = 0 "
            "ORDER BY p.seq DESC LIMIT 20000",
            (product.id, version.scored_by),
        )
        kinds = {"good": "reviewed_good", "defective": "defective"}
        found: dict[str, list[float]] = {"unlabelled": [], "reviewed_good": [], "defective": []}
        for row in rows:
            found[kinds.get(row["decision"] or "", "unlabelled")].append(float(row["score"]))
        return found

    def preview(self, product: Product, move: LimitMove, recent: int = RECENT) -> dict[str, Any]:
        """What a move of the limits would change; nothing is changed by asking.

        `held_out` counts the verdicts of the good pictures that the limits rest on, `parts` those of the latest
        `recent` parts that the present detector scored, each `before` and `after`; `flips` are those whose verdict
        would be another. `nearest` are the parts whose scores lie nearest to each limit.
        """
        version = self._models.active(product)
        before = calibration_of(self._models.inspector(version))
        after = move.of(before)
        parts = self.comparable(product, version, recent)
        return {
            "product": product.id,
            "version": version.id,
            "before": limits_of(before),
            "after": limits_of(after),
            "held_out": {
                "total": len(before.scores),
                "before": counted([before.verdict(score) for score in before.scores.tolist()]),
                "after": counted([after.verdict(score) for score in before.scores.tolist()]),
            },
            "parts": counts_of_parts(parts, before, after),
            "flips": [
                flip_facts(part, flip) | {"review": part.decision} for part, flip in flipped(parts, before, after)
            ],
            "nearest": {
                "threshold": nearest(parts, after.threshold),
                "unsure_threshold": nearest(parts, after.unsure_threshold),
            },
        }

    def comparable(self, product: Product, version: Version, recent: int = RECENT) -> list[ScoredPart]:
        """The latest parts whose scores are of the same detector as the version's, latest first."""
        return self._parts.scored(product.id, version.scored_by, recent)

    def set(self, product: Product, move: LimitMove, who: str, expected_version: str = "") -> Version:
        """Move the limits: a new version with the same detector. Raises ConflictError where it is not the expected."""
        version = self._models.active(product)
        if expected_version and expected_version != version.id:
            raise ConflictError("the version that the preview was of", "a newer one", "look at the preview again")
        inspector = self._models.inspector(version)
        after = move.of(calibration_of(inspector))
        details = {"limits": limits_of(after)}
        renewed = with_calibration(inspector, after)
        return self._models.publish(product, renewed, "moved the limits", who, version, details)


def limits_of(calibration: Calibration) -> dict[str, Any]:
    """The limits of a calibration and the rates behind them."""
    return {
        "threshold": calibration.threshold,
        "unsure_threshold": calibration.unsure_threshold,
        "false_alarm_rate": calibration.false_alarm_rate,
        "unsure_rate": calibration.unsure_rate,
        "is_by_hand": calibration.fixed_thresholds is not None,
    }


def with_calibration(inspector: Inspector, calibration: Calibration) -> Inspector:
    """The same model of one product with another calibration, and its rates as the model's."""
    model = inspector.model_
    settings = dataclasses.replace(
        model.settings, false_alarm_rate=calibration.false_alarm_rate, unsure_rate=calibration.unsure_rate
    )
    calibrations = dict.fromkeys(model.calibrations, calibration)
    return type(inspector).of(dataclasses.replace(model, calibrations=calibrations, settings=settings))


def verdict_by(calibration: Calibration, part: ScoredPart) -> Verdict:
    """What a part would be called; whether it is known does not depend on limits."""
    return calibration.verdict(part.score, part.verdict != "unknown")


def flipped(parts: Sequence[ScoredPart], before: Calibration, after: Calibration) -> list[tuple[ScoredPart, Flip]]:
    """The parts whose verdict other limits turn, and how."""
    by_id = {one.id: one for one in parts}
    given = (Decision(None, one.id, one.score, verdict_by(before, one)) for one in parts)
    return [(by_id[flip.file], flip) for flip in flips_of(given, {None: after})]


def flip_facts(part: ScoredPart, flip: Flip) -> dict[str, Any]:
    """A flip ready for JSON."""
    verdicts = {"before": flip.before, "after": flip.after}
    return {"part": part.id, "part_id": part.part_id, "score": part.score, **verdicts}


def counts_of_parts(parts: Sequence[ScoredPart], before: Calibration, after: Calibration) -> dict[str, Any]:
    """How many parts have which verdict by two calibrations."""
    return {
        "total": len(parts),
        "before": counted([verdict_by(before, one) for one in parts]),
        "after": counted([verdict_by(after, one) for one in parts]),
    }


def counted(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many of each."""
    return {name: sum(one == name for one in verdicts) for name in ("good", "unsure", "defective", "unknown")}


def nearest(parts: Sequence[ScoredPart], limit: float) -> list[dict[str, Any]]:
    """The parts with the scores nearest to a limit, from the lowest score."""
    closest = sorted(parts, key=lambda one: abs(one.score - limit))[: 2 * NEAREST]
    return [{"part": one.id, "score": one.score} for one in sorted(closest, key=lambda one: one.score)]
