"""One inspection, from images to a folder of results: what `blemish inspect` and `blemish demo` share.

Every image is decoded once: its score, its overlay and its place in the report are made while its pixels are in memory.
What is done is on disk at once: whatever ends a run early loses nothing, and the same command goes on from there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blemish.cli.result_folder import (
    REPORT,
    Origin,
    Wanted,
    begin_results,
    result_folder,
    samples_left,
    write_summary,
)
from blemish.cli.results import ResultWriter, Row, picture_of, prediction_of_row, relief_of
from blemish.errors import BlemishError
from blemish.report.shortlist import Shortlist
from blemish.scoring.describe import times_in_words
from blemish.types import VERDICTS, ImageOrScan, Prediction, Sample, Scan, Verdict

if TYPE_CHECKING:
    import numpy as np

    from blemish.data.files import FolderContents
    from blemish.data.full_scale import FullScale
    from blemish.errors import DataWarning
    from blemish.model.inspector import Inspector
    from blemish.model.prediction import Inspected
    from blemish.report import CalibrationFacts, InspectionReport

REPORT_SECONDS, REPORT_IMAGES = 60.0, 1000  # a report is written anew when so much time has passed, or so many images
_REPORT_SHARE = 0.05  # of the time, that writing reports may take at most
NAMED = 10  # unreadable files, and the strongest alarms, that the terminal names; all are in results.csv
_UNKNOWN = "unlike any part that the model learned"


@dataclass
class Inspection:
    """What became of all images, as counts: memory stays flat however many come.

    `skipped` are those of this run that an earlier one inspected, of whose results all stay if the run `appends`;
    `notes` are sentences on files that were not looked at, and warnings.
    """

    report: InspectionReport
    skipped: int = 0
    appends: bool = False
    inspected: int = 0  # by this run
    seconds: float = 0.0
    unreadable: list[str] = field(default_factory=list)  # the first few messages
    alarms: Shortlist[tuple[Verdict, str, str]] = field(default_factory=lambda: Shortlist(NAMED))  # with file and why
    notes: list[str] = field(default_factory=list)

    @property
    def failures(self) -> int:
        return self.report.failures

    @property
    def all_good(self) -> bool:
        """Whether every image that could be read shows a part that is good beyond doubt."""
        return self.report.counts["good"] == self.report.counts.total()

    def add_alarm(self, prediction: Prediction) -> None:
        """Keep why a part is not good, if it is among the strongest alarms; unknown parts come before all others."""
        if prediction.verdict == "good":
            return
        if prediction.verdict == "unknown":
            excess, why = math.inf, _UNKNOWN
        elif prediction.regions:
            excess, why = prediction.excess, max(prediction.regions, key=lambda region: region.peak).words
        else:
            excess, why = prediction.excess, times_in_words(prediction.score, prediction.threshold)
        self.alarms.add(excess, (prediction.verdict, prediction.source, why))

    def add_failure(self, file: str, error: str) -> None:
        self.report.add_failure(file, error)
        if len(self.unreadable) < NAMED:
            self.unreadable.append(error)

    def to_dict(self) -> dict[str, Any]:
        """The counts, ready for JSON: verdicts add up to the inspected, these and the unreadable to the files."""
        counts = self.report.counts
        return {
            "files": counts.total() + self.failures,
            "inspected": counts.total(),
            "verdicts": {verdict: counts[verdict] for verdict in VERDICTS},
            "unreadable": self.failures,
            "notes": self.notes,
        }

    def say(self, out: Path) -> None:
        """A few lines on what was found; unreadable pictures go to stderr."""
        from blemish.cli.console import say, say_where
        from blemish.cli.summaries import verdicts_in_words
        from blemish.utils.paths import shown

        for error in self.unreadable:
            say(f"not read: {error}", err=True)
        if self.failures > len(self.unreadable):
            say(f"not read: {self.failures - len(self.unreadable):,} more, see results.csv", err=True)
        for note in self.notes:
            say(note)
        for verdict, file, why in self.alarms.largest_first():
            say(f"{verdict:<9}  {shown(Path(file))}: {why}")
        counts = self.report.counts
        if further := counts.total() - counts["good"] - len(self.alarms):
            say(f"… and {further:,} more, see results.csv")
        if self.skipped:
            again = "" if self.appends else " (--restart inspects them again)"  # it would remove the others, too
            say(f"{self.skipped:,} of them inspected by an earlier run and skipped{again}")
        rate = f" ({self.inspected / self.seconds:.1f} pictures a second)" if self.inspected and self.seconds else ""
        say(verdicts_in_words(counts, self.failures) + rate)
        say_where("Report", out / REPORT)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to inspect, and what to say of it: `title` heads the report, `contents` are the folders that were read."""

    samples: Sequence[Sample]
    title: str
    origin: Origin = field(default_factory=lambda: Origin(model=""))
    wanted: Wanted = field(default_factory=Wanted)
    contents: FolderContents | None = None
    warnings: Sequence[DataWarning] = ()  # grows while images are read


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictor:
    """What gives the predictions of a job, a fitted model or the images themselves, and what the report says of it.

    `stream` gives samples, in order, with their results; `facts` are names and settings, `calibration` says where
    thresholds come from, `statements` are sentences that come before all others. `full_scale` and the `ignored` areas
    `(h, w)` bool by category show how images are seen.
    """

    stream: Callable[[Sequence[Sample]], Generator[Inspected]]
    facts: Mapping[str, object]
    calibration: Sequence[CalibrationFacts]
    full_scale: FullScale
    ignored: Mapping[str, np.ndarray] = field(default_factory=dict)
    statements: Sequence[str] = ()


def model_as_predictor(inspector: Inspector, category: str | None) -> Predictor:
    """A fitted model, for images of a `category` where it is given."""
    from blemish.cli.summaries import calibration_facts, model_facts

    return Predictor(
        stream=partial(inspector.stream, category=category),
        facts=model_facts(inspector),
        calibration=calibration_facts(inspector),
        full_scale=inspector.model_.full_scale,
        ignored=inspector.model_.ignored,
    )


def inspect_into(out: Path, inspector: Inspector, job: Job) -> Inspection:
    """Inspect by a fitted model; see `predict_into`."""
    job = replace(job, samples=[inspector.model_.settings.measured(sample) for sample in job.samples])
    return predict_into(out, model_as_predictor(inspector, job.origin.category), job)


def predict_into(out: Path, predictor: Predictor, job: Job) -> Inspection:
    """Inspect what has not been inspected yet, and write everything into `out`. Raises OutputError.

    On Ctrl-C and any other error the rows, overlays, summary and report of all images that were done are left in `out`.
    """
    from blemish.cli.progress import tracked
    from blemish.report import InspectionReport

    done = Inspection(InspectionReport(title=job.title, model_facts=predictor.facts, calibration=predictor.calibration))
    with result_folder(out):
        kept = begin_results(
            out, job.origin, job.samples, job.wanted, lambda row, sample: add_row(done, row, sample, predictor)
        )
        left = samples_left(job.samples, kept.identities)
        done.skipped, done.appends = len(job.samples) - len(left), job.wanted.append
        publisher = Publisher(out, done, job, predictor.statements)
        publisher.publish(is_complete=False)
        is_complete = False
        try:
            with (
                ResultWriter(out, job.wanted.overlays, job.wanted.maps, iter(kept.names)) as results,
                closing(predictor.stream([sample for sample, _ in left])) as stream,
            ):
                for item, (_, identity) in zip(tracked("inspecting", stream, len(left)), left, strict=True):
                    write_item(item, identity, results, done)
                    publisher.publish_now_and_then(results)
            is_complete = True
        finally:
            publisher.publish_at_end(is_complete)
    return done


def write_item(item: Inspected, identity: str, results: ResultWriter, done: Inspection) -> None:
    """Write the row and overlay of one image and take it into the report, whole, whatever interrupts."""
    from blemish.cli.interrupts import deferred_interrupts

    with deferred_interrupts():
        if item.failure is not None:
            results.write_failure(item.failure.file, item.failure.error)
            done.add_failure(item.failure.file, item.failure.error)
            return
        prediction, image = item.prediction, item.image
        assert prediction is not None  # an image was inspected, or it failed
        assert image is not None
        results.write(prediction, image, identity)
        done.report.add(prediction, lambda: picture_of(image), item.sample, relief=lambda: relief_beside(image))
        done.add_alarm(prediction)
        done.inspected += 1


def relief_beside(image: ImageOrScan) -> np.ndarray | None:
    """The relief of a scan that has an image, too; where it has points alone, the relief is its picture already."""
    return relief_of(image) if isinstance(image, Scan) and image.image is not None else None


def add_row(done: Inspection, row: Row, sample: Sample, predictor: Predictor) -> None:
    """Take a row of an earlier run of the `predictor` into the report; its image is decoded only where it is shown."""
    from blemish.report.views import image_view, relief_view

    if row["error"] is not None:
        done.add_failure(row["file"], row["error"])
        return
    relief = None if sample.image is None else lambda: relief_view(sample)
    prediction = prediction_of_row(row, predictor.ignored.get(row["category"] or ""))
    done.report.add(prediction, lambda: image_view(sample, predictor.full_scale), sample, relief=relief)
    done.add_alarm(prediction)


class Publisher:
    """Writes the summary and the report of a running inspection, now and then and at its end."""

    def __init__(self, out: Path, done: Inspection, job: Job, statements: Sequence[str] = ()) -> None:
        self.out, self.done, self.job, self.statements = out, done, job, statements
        self.started = self.last = time.perf_counter()
        self.cost = 0.0  # seconds that the last report took
        self.count = 0  # images since then

    def publish_now_and_then(self, results: ResultWriter) -> None:
        """Bring rows, summary and report to the disk when it is time."""
        self.count += 1
        passed = time.perf_counter() - self.last
        is_due = passed >= REPORT_SECONDS or self.count >= REPORT_IMAGES
        if is_due and self.cost <= _REPORT_SHARE * passed:
            results.flush()
            self.publish(is_complete=False)

    def publish_at_end(self, is_complete: bool) -> None:
        """The last report. Where an error ended the run, that error counts, not what it does to the report."""
        if is_complete:
            self.publish(is_complete=True)
            return
        from blemish.cli.console import say
        from blemish.utils.paths import shown

        with suppress(BlemishError, OSError):
            self.publish(is_complete=False)
            ready = self.done.report.counts.total()
            say(f"{ready:,} inspected so far are kept in {shown(self.out)}; the same command goes on there", err=True)

    def publish(self, is_complete: bool) -> None:
        from blemish.cli.interrupts import deferred_interrupts

        began = time.perf_counter()
        self.done.seconds = began - self.started
        self.done.notes = [*self.statements, *notes_of(self.job)]
        self.done.report.notes = self.done.notes
        with deferred_interrupts():
            write_summary(self.out, self._summary(is_complete))
            self.done.report.write(self.out / REPORT)
        self.last, self.count = time.perf_counter(), 0
        self.cost = self.last - began

    def _summary(self, is_complete: bool) -> dict[str, Any]:
        contents = self.job.contents
        others = {} if contents is None else dict(sorted(contents.ignored.items()))
        left_out = [] if contents is None else [str(folder) for folder in contents.left_out]
        facts = {"model": self.job.title, **self.job.origin.to_dict(), "complete": is_complete}
        return facts | self.done.to_dict() | {"other_files": others, "folders_left_out": left_out}


def notes_of(job: Job) -> list[str]:
    """Sentences on what was not looked at, and on what is odd about the images."""
    from blemish.data.data_warnings import summary

    return [*(job.contents.words() if job.contents else ()), *summary(job.warnings)]
