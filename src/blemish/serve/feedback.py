"""From people's decisions to a new version: limits from the random sample, false alarms into what is learned.

Only reviewed good parts of the random sample (monitoring/audit.py) say how good parts score. False alarms outside of
it may be learned from; they were chosen by their scores, so that the limits never rest on them. Before anything is
applied a preview says which of the latest decisions would be others.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from blemish.errors import DatasetError
from blemish.model.inspector import Inspector
from blemish.monitoring.audit import AuditSample, ReviewedPart, audit_sample, bank_candidates, estimated_rate
from blemish.serve.catalog import inspector_of
from blemish.serve.core import Core
from blemish.serve.learning import Learning, learned_by
from blemish.serve.limits import Limits, counts_of_parts, flip_facts, flipped, limits_of
from blemish.serve.models import Models, calibration_of
from blemish.serve.parts import STATES
from blemish.serve.records import Job, Product, Version
from blemish.types import Sample
from blemish.utils.progress import Progress

Kind = Literal["limits", "learn"]


@dataclass(frozen=True)
class Reviewed:
    """What people decided of a product's parts: the random sample, false alarms that may be learned from, all.

    `parts` holds those whose picture is deleted as well, from which nothing can be learned any more.
    """

    sample: AuditSample
    false_alarms: tuple[ReviewedPart, ...]
    parts: tuple[ReviewedPart, ...]
    pictures: dict[str, str]  # sha256 by part
    scored_by: dict[str, str]  # the version whose learning made the detector, by part

    def files(self, parts: tuple[ReviewedPart, ...]) -> list[str]:
        """The pictures of some parts, by hash; each once."""
        return list(dict.fromkeys(self.pictures[one.part_id] for one in parts))


class Feedback:
    """Shows and applies what reviews change."""

    def __init__(self, core: Core, models: Models, limits: Limits, learning: Learning) -> None:
        self._core, self._models = core, models
        self._limits, self._learning = limits, learning

    def reviewed(self, product: Product) -> Reviewed:
        """All parts that were put up for review, in the order of their inspection."""
        in_bank = set(self._learned_from(product))
        rows = self._core.store.rows(
            "SELECT p.id, p.sha256, p.score, p.audit_draw, p.audit_share, p.verdict, p.decision, p.has_picture, "
            "v.scored_by FROM parts p JOIN versions v ON v.id = p.version "
            "WHERE p.product = ? AND p.score IS NOT NULL AND p.is_deleting = 0 "
            f"AND ({STATES['for_review']} OR p.decision IS NOT NULL) ORDER BY p.seq",
            (product.id,),
        )
        parts = tuple(
            ReviewedPart(
                row["id"],
                row["score"],
                row["audit_draw"],
                row["audit_share"],
                row["verdict"],
                row["decision"],
                row["sha256"] in in_bank,
            )
            for row in rows
        )
        kept = [part for part, row in zip(parts, rows, strict=True) if row["has_picture"]]
        pictures = {row["id"]: row["sha256"] for row in rows}
        scored_by = {row["id"]: row["scored_by"] for row in rows}
        return Reviewed(audit_sample(kept), tuple(bank_candidates(kept)), parts, pictures, scored_by)

    def state(self, product: Product) -> dict[str, Any]:
        """How far the reviews are: what counts for the limits, what waits, and the false alarms in truth.

        `estimated_rate` is that of the present limit, by parts that the present detector scored.
        """
        reviewed, rate = self.reviewed(product), None
        if product.active_version:
            version = self._core.version(product.active_version)
            parts = [one for one in reviewed.parts if reviewed.scored_by[one.part_id] == version.scored_by]
            rate = estimated_rate(parts, version.threshold)
        return {
            "audit_share": product.settings.audit_share,
            "counted": len(reviewed.sample.counted),
            "waiting": [one.part_id for one in reviewed.sample.waiting],
            "false_alarms": len(reviewed.false_alarms),
            "estimated_rate": rate,
        }

    def preview(self, product: Product) -> dict[str, Any]:
        """Which decisions new limits from the random sample would turn; nothing is changed.

        Raises DatasetError where there is nothing that counts. What learning from false alarms changes is only known
        once it has learned: scores are others then.
        """
        version = self._models.active(product)
        before = calibration_of(self._models.inspector(version))
        renewed, added = self._recalibrated(product, version)
        after = calibration_of(renewed)
        parts = self._limits.comparable(product, version)
        return {
            "version": version.id,
            "added": added,
            "before": limits_of(before),
            "after": limits_of(after),
            "parts": counts_of_parts(parts, before, after),
            "flips": [flip_facts(part, flip) for part, flip in flipped(parts, before, after)],
            **self.state(product),
        }

    def apply(self, product: Product, kind: Kind, who: str) -> Job:
        """Make a new version in the background: "limits" from the random sample, or "learn" from false alarms, too.

        Raises DatasetError where there is nothing to apply.
        """
        version = self._models.active(product)
        reviewed = self.reviewed(product)
        if kind == "learn":
            if not reviewed.false_alarms:
                raise DatasetError("false alarms that were reviewed as good", "none", "review alarms first")
            return self._learning.run(
                product, "learn from reviews", who, lambda progress: self._relearn(product, version, who, progress)
            )
        if not reviewed.sample.counted:
            raise DatasetError("reviewed good parts of the random sample", "none", "review those that wait first")
        return self._learning.run(product, "limits from reviews", who, lambda _: self._renew(product, version, who))

    def _learned_from(self, product: Product) -> list[str]:
        """The pictures of all false alarms that any version has learned from, the earliest first."""
        versions = reversed(self._models.versions(product.id))
        return list(dict.fromkeys(one for version in versions for one in version.details.get("false_alarms", ())))

    def _recalibrated(self, product: Product, version: Version) -> tuple[Inspector, int]:
        """The version's model with the random sample in its calibration, scored by this very model."""
        reviewed = self.reviewed(product)
        files = reviewed.files(reviewed.sample.counted)
        if not files:
            raise DatasetError("reviewed good parts of the random sample", "none", "review those that wait first")
        inspector = copy.copy(self._models.inspector(version))
        change = inspector.calibrate([Sample(self._core.pictures.path(one)) for one in files])
        return inspector, sum(change.added.values())

    def _renew(self, product: Product, version: Version, who: str) -> Version:
        inspector, added = self._recalibrated(product, version)
        return self._models.publish(product, inspector, "limits from reviews", who, version, {"added": added})

    def _relearn(self, product: Product, version: Version, who: str, progress: Progress) -> Version:
        """Learn anew from the good pictures and all false alarms so far; the random sample calibrates."""
        reviewed = self.reviewed(product)
        counted = reviewed.files(reviewed.sample.counted)
        given = [*self._learned_from(product), *reviewed.files(reviewed.false_alarms)]
        with self._learning.held(product, [*given, *counted]) as good:
            false_alarms = [one for one in dict.fromkeys(given) if self._core.pictures.path(one).is_file()]
            chosen = [Sample(self._core.pictures.path(sha256)) for sha256 in false_alarms]
            inspector = inspector_of(product.settings).fit(good, progress=progress, learned_only=chosen)
            added = 0
            if counted:
                with suppress(DatasetError):  # all of them were learned from, or are other parts to the new model
                    change = inspector.calibrate([Sample(self._core.pictures.path(one)) for one in counted])
                    added = sum(change.added.values())
        details = {"pictures": len(good), "false_alarms": false_alarms, "added": added, **learned_by(inspector)}
        return self._models.publish(product, inspector, "learned from reviews", who, version, details, is_refitted=True)
