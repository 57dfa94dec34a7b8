"""The page about one inspection: the verdict first, then what it rests on, then every image worth a look."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
from markupsafe import Markup

from blemish.data.images import load_mask
from blemish.metrics.ranking import auroc
from blemish.report import charts
from blemish.report.cards import Card, Picture, Row, compact_card, full_card, row_of, scan_views, table_of
from blemish.report.colours import HEAT, css
from blemish.report.evidence import NOT_KNOWN, CalibrationFacts, evidence_in_words
from blemish.report.page import Tile, facts_of, left_out, render
from blemish.report.score_bins import ScoreBins
from blemish.report.shortlist import Shortlist
from blemish.scoring.describe import count_in_words
from blemish.types import Prediction, Sample, Scan, Verdict
from blemish.utils.atomic import write_text

_MOST_ROWS, _MOST_FAILURES, _MOST_CATEGORIES = 1000, 100, 24
_COMPACT = ("unknown", "good")  # groups shown as a contact sheet
_TONES: dict[Verdict, str] = {"defective": "defect", "unsure": "unsure", "unknown": "unknown", "good": "good"}
_KINDS = {0: ("good", "good"), 1: ("defective", "defect"), None: ("no label", "accent")}  # label → name, tone


class InspectionReport:
    """Collects what a page can show while images are inspected; memory stays bounded however many come.

    Kept are counts, bins of scores, the rows and the small views of the most defective `most_defective` images (of
    those missed, and of those unsure as well) and of the `most_good` good and unknown ones nearest to the limit, and
    8 bytes for each image whose label is known. `model_facts` are names and settings, `calibration` tells where the
    thresholds come from, `notes` are sentences that stand under the headline.
    """

    def __init__(
        self,
        *,
        title: str,
        model_facts: Mapping[str, object],
        calibration: Sequence[CalibrationFacts] = (),
        notes: Sequence[str] = (),
        most_defective: int = 40,
        most_good: int = 36,
        made: datetime | None = None,
    ) -> None:
        self.title = title
        self.notes = list(notes)
        self.model_facts = dict(model_facts)
        self.calibration = tuple(calibration)
        self.made = made
        self.counts: Counter[Verdict] = Counter()
        self.failures = 0
        self.has_ignored = False  # whether something of any image is not judged
        self._failed: list[tuple[str, str]] = []
        self._groups: dict[str, Shortlist[Card]] = {
            name: Shortlist(most_good if name in _COMPACT else most_defective)
            for name in ("missed", "defective", "unsure", "unknown", "good")
        }
        self._group_sizes: Counter[str] = Counter()
        self._rows: Shortlist[Row] = Shortlist(_MOST_ROWS)
        self._bins: dict[str | None, dict[int | None, ScoreBins]] = {}  # by category, then by label
        self._limits: dict[str | None, float] = {known.category: known.threshold for known in calibration}
        self._judged: Counter[tuple[Verdict, int]] = Counter()  # images of known parts with a label
        self._excess: dict[int, array[float]] = {0: array("d"), 1: array("d")}  # their scores, by label

    def add(
        self,
        prediction: Prediction,
        image: Scan | Picture = None,
        sample: Sample | None = None,
        *,
        relief: Picture = None,
    ) -> None:
        """Take in one prediction, best while the pixels of its image are alive.

        `image` is what a person should see of it, `(H, W, 3)` uint8, and `relief` the measured points beside it, or
        `image` is a scan, which brings both; arrays may be given as functions, called only if the page keeps this
        image. `sample` brings the label and the true mask, where they are known. What cannot be read or is None is
        shown as not at hand; a prediction whose map is lost may carry an empty one.
        """
        if isinstance(image, Scan):
            image, relief = scan_views(image)
        truth = None if sample is None else sample.mask
        mask = None if truth is None else partial(load_mask, truth)
        self._take(prediction, None if sample is None else sample.label, image, relief, mask)

    def add_failure(self, file: str, message: str) -> None:
        """Take in a file that could not be inspected, and why."""
        self.failures += 1
        if len(self._failed) < _MOST_FAILURES:
            self._failed.append((file, message))

    def _take(self, prediction: Prediction, label: int | None, image: Picture, relief: Picture, mask: Picture) -> None:
        label = None if label is None else int(bool(label))
        self.counts[prediction.verdict] += 1
        self.has_ignored = self.has_ignored or prediction.ignored is not None
        if prediction.is_known:
            self._count_score(prediction, label)
        excess = prediction.excess
        if self._rows.takes(excess):
            self._rows.add(excess, row_of(prediction, label))
        group = "missed" if label and prediction.verdict == "good" else prediction.verdict
        self._group_sizes[group] += 1
        if not self._groups[group].takes(excess):
            return
        if group in _COMPACT:
            card = compact_card(prediction, label, image)
        else:
            card = full_card(prediction, label, image, relief, mask, self.calibration)
        self._groups[group].add(excess, card)

    def _count_score(self, prediction: Prediction, label: int | None) -> None:
        """Bins of scores by category and label; unknown parts were not judged, their scores mean little."""
        self._limits.setdefault(prediction.category, self._limits.get(None, prediction.threshold))
        kinds = self._bins.setdefault(prediction.category, defaultdict(ScoreBins))
        kinds[label].add(prediction.excess)
        if label is not None:
            self._judged[prediction.verdict, label] += 1
            self._excess[label].append(prediction.excess)

    def write(self, path: str | Path) -> Path:
        """Write the page about all that was added so far, whole or not at all. Raises OutputError."""
        return write_text(path, self.page())

    def page(self) -> str:
        """The page as text."""
        return render(
            "inspection.html",
            made=self.made,
            kind="inspection report",
            title=self.title,
            notes=self.notes,
            has_ignored=self.has_ignored,
            verdict=self._verdict(),
            tiles=self._tiles(),
            shares=self._shares(),
            truth=self._against_labels(),
            scores=self._scores(),
            groups={name: self._group(name) for name in self._groups},
            heat_key=", ".join(css(tuple(HEAT[i])) for i in (100, 150, 200, 250)),
            failed=self._failed,
            failures=self.failures,
            more_failures=left_out(self.failures - len(self._failed), "unreadable picture"),
            model_facts=facts_of(self.model_facts),
            evidence=[(known.category, evidence_in_words(known)) for known in self.calibration[:_MOST_CATEGORIES]],
            not_known=NOT_KNOWN,
            rows=table_of(self._rows.largest_first()),
            more_rows=left_out(self.counts.total() - len(self._rows), "inspected picture"),
        )

    def _verdict(self) -> str:
        inspected, defective = self.counts.total(), self.counts["defective"]
        if not inspected:
            return "No picture was inspected"
        if not defective:
            unsure, unknown = self.counts["unsure"], self.counts["unknown"]
            said = [f"{unsure:,} unsure"] * bool(unsure) + [count_in_words(unknown, "unknown part")] * bool(unknown)
            but = f", but {' and '.join(said)}" if said else ""
            return f"No defect in {count_in_words(inspected, 'picture')}{but}"
        return f"{defective:,} of {inspected:,} defective"

    def _tiles(self) -> list[Tile]:
        """Counts that add up: the verdicts to the inspected, these and the unreadable to the number of files."""
        shown = [Tile(f"{self.counts.total():,}", "inspected")]
        for verdict, tone in _TONES.items():
            count = self.counts[verdict]
            if count or verdict in ("good", "defective"):
                shown.append(
                    Tile(f"{count:,}", "unknown part" if verdict == "unknown" else verdict, tone if count else "")
                )
        return [*shown, Tile(f"{self.failures:,}", "unreadable", "warn" if self.failures else "")]

    def _shares(self) -> list[tuple[str, int, str]]:
        """(tone, count, word) of every verdict that came up, for the bar under the tiles."""
        counted = [(tone, self.counts[verdict], str(verdict)) for verdict, tone in _TONES.items()]
        return [each for each in (*counted, ("warn", self.failures, "unreadable")) if each[1]]

    def _against_labels(self) -> dict[str, object] | None:
        """Found, missed, false alarms and the AUROC, where the truth is known; unknown parts were not judged."""
        good, bad = (np.array(self._excess[label]) for label in (0, 1))
        if not len(good) + len(bad):
            return None
        judged = self._judged
        missed, alarms = judged["good", 1], judged["defective", 0]
        shown = [
            Tile(f"{judged['defective', 1]:,}", "defects found", "good", f"of {len(bad):,}"),
            Tile(f"{missed:,}", "defects missed", "defect" if missed else ""),
            Tile(f"{alarms:,}", "false alarms", "warn" if alarms else "", f"of {len(good):,} good"),
        ]
        if unsure := judged["unsure", 0] + judged["unsure", 1]:
            shown.append(Tile(f"{unsure:,}", "unsure", "unsure", f"{judged['unsure', 1]:,} of them defective"))
        drawn: list[Markup] = []
        if len(good) and len(bad):
            scores, labels = np.concatenate([good, bad]), np.repeat([0, 1], [len(good), len(bad)])
            shown.append(Tile(f"{auroc(scores, labels):.3f}", "AUROC", "", "1 is perfect, 0.5 is guessing"))
            drawn = [charts.roc_chart(scores, labels, threshold=1.0), charts.precision_recall_chart(scores, labels)]
        came = f"{count_in_words(len(good) + len(bad), 'picture')} of known parts came with a label"
        return {"tiles": shown, "charts": drawn, "note": f"{came}; the model did not see the labels."}

    def _scores(self) -> dict[str, object] | None:
        """One histogram a category: good parts the limit comes from, and what was inspected."""
        names = sorted(self._bins, key=lambda name: name or "")
        if not names:
            return None
        drawn = [self._histogram(name, len(names)) for name in names[:_MOST_CATEGORIES]]
        rest = len(names) - len(drawn)
        more = f"{count_in_words(rest, 'more category', 'more categories')} not drawn." if rest else ""
        return {"charts": drawn, "more": more}

    def _histogram(self, name: str | None, of: int) -> Markup:
        limit = self._limits[name]
        known = next((one for one in self.calibration if one.category in (name, None)), None)
        groups = [charts.Group("good, reference", known.scores, "calm")] if known is not None else []
        labelled = any(label is not None for kinds in self._bins.values() for label in kinds)
        for label, (words, tone) in _KINDS.items():
            if label in self._bins[name]:
                middles, counts = self._bins[name][label].middles()
                words, tone = (words, tone) if labelled else ("inspected", "accent")
                groups.append(charts.Group(words, middles * (limit if limit > 0 else 1.0), tone, counts))
        title = f"Picture scores of {name}" if name else "Picture scores"
        width, bins = (480, 40) if of > 1 else (1040, 72)
        return charts.histogram(groups, title=title, threshold=limit, width=width, bins=bins)

    def _group(self, name: str) -> dict[str, object]:
        """A group's cards, how many there are in all, the words for the rest, and what its cards can be sorted by."""
        cards = sorted(self._groups[name].largest_first(), key=lambda card: (-card.excess, card.source))
        size = self._group_sizes[name]
        kind = {"missed": "missed defect", "unknown": "unknown part"}.get(name, f"{name} picture")
        tags = Counter(tag for card in cards for tag in card.tags).most_common(_MOST_CATEGORIES)
        return {"cards": cards, "count": size, "more": left_out(size - len(cards), kind), "tags": tags}


ImageOf = Callable[[Prediction], np.ndarray | None]


def write_inspection_report(
    path: str | Path,
    *,
    title: str,
    model_facts: Mapping[str, object],
    predictions: Sequence[Prediction],
    images: ImageOf,
    failures: Sequence[tuple[str, str]] = (),
    calibration: Sequence[CalibrationFacts] = (),
    labels: Mapping[str, int] | None = None,
    masks: ImageOf | None = None,
    reliefs: ImageOf | None = None,
    made: datetime | None = None,
) -> Path:
    """Write the page about predictions that are all at hand, and return its path: for small sets.

    `images`, `masks` and `reliefs` give the `(H, W, 3)` uint8 image, the `(H, W)` true mask and the relief of a
    prediction, or None; they are asked only for those that are shown. `failures` are (file, message) of unreadable
    images. `labels` maps a prediction's `source` to 0 or 1. Raises OutputError when the page cannot be written.
    """
    report = InspectionReport(title=title, model_facts=model_facts, calibration=calibration, made=made)
    for file, message in failures:
        report.add_failure(file, message)
    # The largest first, so that nothing is drawn and then dropped again.
    for prediction in sorted(predictions, key=lambda p: (-p.excess, p.source)):
        image, relief, mask = (give and partial(give, prediction) for give in (images, reliefs, masks))
        report._take(prediction, (labels or {}).get(prediction.source), image, relief, mask)
    return report.write(path)
