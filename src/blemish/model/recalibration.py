"""New thresholds from further normal images, without fitting again; and what that changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from functools import cached_property

from blemish.data.duplicates import Signature, fingerprint, near_duplicates, signature
from blemish.data.loading import ImageInputs, good_samples, samples_of
from blemish.detectors.base import Progress
from blemish.errors import BlemishError, DatasetError
from blemish.model.fitted import FittedModel
from blemish.model.held_out_scores import scores_and_peaks, unimodal_of
from blemish.model.prediction import Opened, encode_and_recognise, open_image, open_or_fail
from blemish.scoring.calibration import AddedScore, Calibration, check_rates
from blemish.scoring.unlabelled import MIN_IMAGES
from blemish.types import Failure, Sample, Verdict

NAMED = 5  # files that a message names


@dataclass(frozen=True)
class Flip:
    """A held-out score of a normal part whose verdict has changed. `file` is "" where it is not known."""

    category: str | None
    file: str
    score: float
    before: Verdict
    after: Verdict


@dataclass(frozen=True, eq=False)
class Recalibration:
    """What `calibrate` has changed: the calibrations by category `before` and `after`.

    `added` images counted, by category. Not counted were: those the model was `fitted_on`, `repeated` ones, files of
    `unknown` parts, and, of unlabelled ones, what is `unreadable`. `flips` are held-out scores known before whose
    verdict is another now.
    """

    before: Mapping[str | None, Calibration]
    after: Mapping[str | None, Calibration]
    added: Mapping[str | None, int]
    fitted_on: int
    repeated: int
    unknown: tuple[str, ...]
    unreadable: tuple[Failure, ...] = ()

    @property
    def calibrations(self) -> Mapping[str | None, Calibration]:
        """Those that hold now."""
        return self.after

    @property
    def flips(self) -> tuple[Flip, ...]:
        """Good parts whose score was known before, and whose verdict is another now."""
        return tuple(flip for name, old in self.before.items() for flip in flips_between(name, old, self.after[name]))


def flips_between(category: str | None, old: Calibration, new: Calibration) -> list[Flip]:
    """The scores of `old` whose verdict is another under `new`."""
    files = {one.score: one.file for one in old.added}
    found = []
    for score in old.scores.tolist():
        before, after = old.verdict(score), new.verdict(score)
        if before != after:
            found.append(Flip(category, files.get(score, ""), score, before, after))
    return found


def recalibrate(
    model: FittedModel,
    images: ImageInputs,
    category: str | None,
    false_alarm_rate: float,
    unsure_rate: float | None,
    keep: bool,
    progress: Progress | None = None,
) -> tuple[FittedModel, Recalibration]:
    """The model with its calibrations pooled with scores of further normal images, or replaced by them unless `keep`.

    See `Inspector.calibrate` for the arguments and what it raises.
    """
    check_rates(false_alarm_rate, unsure_rate)
    seen = counted_already(model) if keep else frozenset()
    seen |= {one.fingerprint for one in model.outliers}  # which are probably no good ones
    model.check_category(category)
    samples = [replace(one, category=model.category_of(one.category)) for one in good_samples(images, category)]
    opened = (open_image(model, sample, sample.category) for sample in samples)
    new = collect_candidates(model, opened, seen, progress, len(samples))
    if not new.candidates and not new.repeated:
        raise DatasetError(
            "good pictures that the model did not learn from", f"{new.fitted_on} it learned from", "give others"
        )
    check_known(new.unknown, len(new.candidates))
    after = {
        name: pooled(old, name, new.scores, keep).at(false_alarm_rate, unsure_rate)
        for name, old in model.calibrations.items()
    }
    return with_calibrations(model, after, new, false_alarm_rate, unsure_rate)


def recalibrate_unlabelled(
    model: FittedModel,
    images: ImageInputs,
    category: str | None,
    false_alarm_rate: float,
    unsure_rate: float | None,
    expected_defects: float,
    progress: Progress | None = None,
) -> tuple[FittedModel, Recalibration]:
    """The model with its calibrations joined with scores of images of unknown state, most of which are normal.

    See `Inspector.calibrate_unlabelled` for the arguments and what it raises.
    """
    check_rates(false_alarm_rate, unsure_rate)
    model.check_category(category)
    total = len(images) if isinstance(images, Sized) else 0
    opened = opened_or_failed(model, samples_of(images), category)
    new = collect_candidates(model, opened, counted_already(model), progress, total)
    check_known(new.unknown, len(new.candidates))
    counted = {name: new.scores.get((name, ""), []) for name in model.calibrations}
    if max(map(len, counted.values())) < MIN_IMAGES:
        raise DatasetError(
            f"at least {MIN_IMAGES} pictures of one product that the model did not learn from",
            f"{max(map(len, counted.values()))}{unreadable_in_words(new.unreadable)}",
            "give more of them",
        )
    joined = dict(model.calibrations)
    for name, scores in counted.items():
        if len(scores) >= MIN_IMAGES:
            joined[name] = joined[name].with_unlabelled(
                [one.score for one in scores], [one.peak for one in scores], expected_defects
            )
    after = {name: one.at(false_alarm_rate, unsure_rate) for name, one in joined.items()}
    return with_calibrations(model, after, new, false_alarm_rate, unsure_rate)


@dataclass(frozen=True, eq=False)
class NewImages:
    """Images that may count, and how many do not because the model was `fitted_on` them or they are `repeated`."""

    candidates: Sequence[Candidate]
    fitted_on: int
    repeated: int
    unreadable: Sequence[Failure] = ()

    @cached_property
    def unknown(self) -> list[str]:
        """The names of those that show an unknown part."""
        return [one.name for one in self.candidates if not one.is_known]

    @cached_property
    def scores(self) -> Mapping[tuple[str | None, str], list[AddedScore]]:
        """Those of known parts, by category and, of scans with one modality alone, by that."""
        found: dict[tuple[str | None, str], list[AddedScore]] = defaultdict(list)
        for one in self.candidates:
            if one.is_known:
                found[one.category, one.only_modality].append(one.score)
        return found


def collect_candidates(
    model: FittedModel,
    images: Iterable[Opened | Failure],
    known: frozenset[str],
    progress: Progress | None = None,
    total: int = 0,
) -> NewImages:
    """Score the images that the model has not seen; those whose fingerprint is `known`, and repeats, do not count.

    They are taken one by one, so that a stream never lies in memory; `total` is how many will come, 0 where that is not
    known.
    """
    candidates: list[Candidate] = []
    unreadable: list[Failure] = []
    seen = set(known)
    fitted_on = repeated = 0
    for done, opened in enumerate(images, start=1):
        mark = "" if isinstance(opened, Failure) else fingerprint(opened.image)
        if isinstance(opened, Failure):
            unreadable.append(opened)
        elif model.was_given(mark):
            fitted_on += 1
        elif mark in seen:
            repeated += 1
        else:
            seen.add(mark)
            candidates.append(candidate(model, opened, mark))
        if progress:
            progress(done, max(done, total), {})
    distinct = [i == first for i, first in enumerate(near_duplicates([one.signature for one in candidates]))]
    kept = [one for one, is_distinct in zip(candidates, distinct, strict=True) if is_distinct]
    return NewImages(kept, fitted_on, repeated + distinct.count(False), tuple(unreadable))


def opened_or_failed(
    model: FittedModel, samples: Iterable[Sample | BlemishError], category: str | None
) -> Iterator[Opened | Failure]:
    """The samples, decoded one by one, or why one is no image; `category` takes the place of their own if given."""
    for sample in samples:
        own = None
        if isinstance(sample, Sample):
            own = model.category_of(sample.category if category is None else category)
            sample = replace(sample, category=own)
        opened = open_or_fail(model, sample, own)
        if isinstance(opened, Opened):
            yield opened
        elif opened.failure is not None:
            yield opened.failure


def with_calibrations(
    model: FittedModel,
    after: Mapping[str | None, Calibration],
    new: NewImages,
    false_alarm_rate: float,
    unsure_rate: float | None,
) -> tuple[FittedModel, Recalibration]:
    """The model with other calibrations, and what that changes."""
    change = Recalibration(
        before=model.calibrations,
        after=after,
        added={name: sum(len(some) for (known, _), some in new.scores.items() if known == name) for name in after},
        fitted_on=new.fitted_on,
        repeated=new.repeated,
        unknown=tuple(new.unknown),
        unreadable=tuple(new.unreadable),
    )
    settings = replace(model.settings, false_alarm_rate=false_alarm_rate, unsure_rate=unsure_rate)
    return replace(model, calibrations=after, settings=settings), change


@dataclass(frozen=True, eq=False)
class Candidate:
    """A new image that may count: its score for a category, of a scan with one modality for that alone."""

    name: str
    category: str | None
    only_modality: str  # "" where all are available
    is_known: bool
    score: AddedScore
    signature: Signature | None


def candidate(model: FittedModel, opened: Opened, mark: str) -> Candidate:
    """What a decoded image scores, and for which category."""
    (encoded,) = encode_and_recognise(model, [opened])
    (score,), (peak,) = scores_and_peaks(model.detector, encoded.features, encoded.frame.input_size)
    available = encoded.features.available if unimodal_of(model.detector.needs) else ()
    return Candidate(
        name=opened.sample.name,
        category=encoded.recognised.category or None,
        only_modality=available[0] if len(available) == 1 else "",
        is_known=encoded.recognised.is_known,
        score=AddedScore(mark, file_name(opened.sample.name), score, peak),
        signature=signature(opened.image),
    )


def pooled(
    old: Calibration,
    category: str | None,
    fresh: Mapping[tuple[str | None, str], Sequence[AddedScore]],
    keep: bool,
) -> Calibration:
    """A category's calibration with its new scores, those of scans with one modality apart."""
    found = old.with_added(fresh.get((category, ""), ()), keep)
    unimodal = dict(old.unimodal)
    for (name, modality), scores in fresh.items():
        if name == category and modality:
            known = old.unimodal.get(modality)
            unimodal[modality] = (known or replace(old, unimodal={})).with_added(scores, keep and known is not None)
    return replace(found, unimodal=unimodal)


def unreadable_in_words(failures: Sequence[Failure]) -> str:
    """What an error message says of images that could not be read."""
    if not failures:
        return ""
    more = f" and {len(failures) - NAMED} more" if len(failures) > NAMED else ""
    return f", and {len(failures)} that cannot be read: {', '.join(one.file for one in failures[:NAMED])}{more}"


def all_added(calibration: Calibration) -> list[AddedScore]:
    """The images that have been added to a calibration, those of one modality alone included."""
    return [*calibration.added, *(one for own in calibration.unimodal.values() for one in own.added)]


def counted_already(model: FittedModel) -> frozenset[str]:
    """The fingerprints of the images whose scores the calibrations rest on, as far as they are not fitted on."""
    return fingerprints_added(model.calibrations) | model.held_out_fingerprints


def fingerprints_added(calibrations: Mapping[str | None, Calibration]) -> frozenset[str]:
    """Those of the images that have been added to any calibration."""
    return frozenset(one.fingerprint for calibration in calibrations.values() for one in all_added(calibration))


def check_known(unknown: Sequence[str], new: int) -> None:
    """Raise DatasetError where most of the `new` images show parts that the model does not know."""
    if 2 * len(unknown) > new:
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        raise DatasetError(
            "good pictures of parts that the model learned",
            f"{len(unknown)} of {new} unlike any of them: {', '.join(unknown[:NAMED])}{more}",
            "give pictures of its parts, or fit again with these if they do belong to it",
        )


def file_name(name: str) -> str:
    """The last part of a path: a saved model holds no places of the machine."""
    return name.replace("\\", "/").rpartition("/")[2]
