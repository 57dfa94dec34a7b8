"""Held-out scores of normal images → p-value, threshold, and what both rest on.

With n such scores the p-value of a new score s is p = (1 + #{s_i ≥ s}) / (n + 1) and the threshold at a target
false-alarm rate F the matching order statistic (conformal prediction; Vovk, Gammerman & Shafer, Algorithmic Learning in
a Random World, 2005, §2). That is exact, whatever the distribution, only for split conformal prediction: held-out
images that nothing was fitted on. Scores from folds come from detectors that knew fewer images than the final one
(there is no jackknife+ or CV+ correction; Barber et al., 2021), and framing and category recognition are fitted on all
images: there the rate is approximate. After outliers were removed it holds for parts like those that remained.

Order statistics are silent below 1/(n + 1). With n < 1/F − 1 the tail therefore comes from a model of log scores
(tail_model.py), whose priors were fitted on further good images of products (benchmarks/tail_prior.py). No torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from blemish.errors import DatasetError, ModelError, SettingsError
from blemish.scoring.describe import count_in_words
from blemish.scoring.tail_model import TailModel, TailPrior, log_scores
from blemish.scoring.unlabelled import TabulatedTail, UnlabelledFit, fit_unlabelled
from blemish.types import Verdict

# Of log scores, by where held-out scores come from (benchmarks/tail_prior.py).
LEFT_OUT = TailPrior(std=0.05, weight=4.0, bias_std=0.05)  # images that a detector was not fitted on
COPIES = TailPrior(std=0.075, weight=8.0, bias_std=0.125)  # perturbed copies: new parts differ from them by product
# Share of normal parts beyond the false alarms that a person may be asked about; more where less is known.
UNSURE_RATE, COPIES_UNSURE_RATE = 0.03, 0.1


@dataclass(frozen=True)
class CalibrationSource:
    """Where the held-out scores of a calibration come from.

    `images` normal images were given to `fit`, which gained `held_out` scores from them by detectors that had not seen
    the image, in `folds` fits (0: none was needed). `copies`: these are mean scores of slightly perturbed copies of
    images that the detector was fitted on. `correction` is the factor that they were multiplied by. `added` scores come
    from further normal images given to `calibrate`. `score_exponent`, `score_spread`: see `Needs` in detectors/base.py.
    """

    images: int
    held_out: int
    folds: int = 0
    copies: bool = False
    correction: float = 1.0
    score_exponent: int = 1
    score_spread: float = 1.0
    added: int = 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CalibrationSource:
        """From the fields by name; models of earlier versions say `inflation` and whether scores are `squared`."""
        given = dict(values)
        if "inflation" in given:
            given["correction"] = given.pop("inflation")
        if "squared" in given:
            given["score_exponent"] = 2 if given.pop("squared") else 1
        return cls(**given)

    @property
    def parts(self) -> int:
        """How many different normal images stand behind the scores; copies of one image count once."""
        return (self.images if self.copies else self.held_out) + self.added

    @property
    def words(self) -> str:
        """One sentence for reports."""
        new = count_in_words(self.added, "good picture")
        if not self.held_out:
            return f"Limit from {new} that the model did not learn from."
        and_new = f", and from {new} that it did not learn from" if self.added else ""
        good = count_in_words(self.images, "good picture")
        if self.copies:
            return (
                f"Limit from slightly changed copies of {good}, "
                f"raised {self.correction:.3g}×, as copies look more familiar than new parts do{and_new}."
            )
        some = good if self.held_out == self.images else f"{self.held_out} of {good}"
        if self.folds:
            lowered = "" if self.correction == 1 else f", times {self.correction:.2f} for the picture it knew less"
            return (
                f"Limit from {some}, each scored by a model that had not seen it "
                f"({self.folds} rounds){lowered}{and_new}."
            )
        return f"Limit from {some}{f' and {new}' if self.added else ''} that the model did not learn from."


@dataclass(frozen=True)
class AddedScore:
    """What a normal image given to `calibrate` scored: its `fingerprint` and `file` name say which one it was."""

    fingerprint: str
    file: str
    score: float
    peak: float


@dataclass(frozen=True, eq=False)
class UnlabelledScores:
    """Scores and map peaks `(n,)` of images of unknown state, and the share of defective ones expected among them."""

    scores: np.ndarray
    peaks: np.ndarray
    expected_defects: float

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; numbers keep every bit."""
        return {
            "scores": self.scores.tolist(),
            "peaks": self.peaks.tolist(),
            "expected_defects": self.expected_defects,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> UnlabelledScores:
        """Take back what `to_dict` gave."""
        scores, peaks = (np.asarray(values[name], dtype=np.float64) for name in ("scores", "peaks"))
        return cls(scores, peaks, float(values["expected_defects"]))


@dataclass(frozen=True, eq=False)
class Calibration:
    """Held-out scores of one category, and two accepted rates. `scores` and `peaks` are sorted, both (n,).

    `false_alarm_rate` is the share of normal parts that may be called defective, `unsure_rate` the further share that
    may be called unsure. `scores` are image scores; `peaks` the largest value of each held-out image's map. `added` are
    those among them that `calibrate` brought. `unimodal` holds the calibrations of scans with one modality only, "rgb"
    or "points", whose scores follow another distribution. `unlabelled` are scores of images of unknown state: with the
    held-out ones they say how normal images score (unlabelled.py). `defect_gains` `(m,)`, sorted, are how much the
    logarithms of held-out images' scores grew with a small synthetic defect. `fixed_thresholds` are a threshold and an
    unsure threshold that a person set: then the rates are what the held-out scores estimate for them, and
    `accepted_rate` is the false-alarm rate that was accepted before, by which they estimate it.
    """

    scores: np.ndarray
    peaks: np.ndarray
    false_alarm_rate: float
    source: CalibrationSource = field(default_factory=lambda: CalibrationSource(0, 0))
    unimodal: Mapping[str, Calibration] = field(default_factory=dict)
    added: tuple[AddedScore, ...] = ()
    unsure_rate: float = 0.0
    unlabelled: UnlabelledScores | None = None
    defect_gains: np.ndarray = field(default_factory=lambda: np.zeros(0))
    fixed_thresholds: tuple[float, float] | None = None
    accepted_rate: float | None = None

    @classmethod
    def of(
        cls,
        scores: ArrayLike,
        peaks: ArrayLike,
        false_alarm_rate: float,
        source: CalibrationSource,
        added: Sequence[AddedScore] = (),
        unsure_rate: float = 0.0,
    ) -> Calibration:
        """From held-out scores and map peaks in any order, `added` ones among them.

        Raises SettingsError for an impossible rate or no scores.
        """
        check_rates(false_alarm_rate, unsure_rate)
        values = np.sort(np.asarray(scores, dtype=np.float64))
        if not len(values) or not np.isfinite(values).all():
            raise SettingsError(
                "at least one finite score of a good part", f"{values[:5].tolist()}", "give more good pictures"
            )
        sorted_peaks = np.sort(np.asarray(peaks, dtype=np.float64))
        return cls(
            values, sorted_peaks, float(false_alarm_rate), source, added=tuple(added), unsure_rate=float(unsure_rate)
        )

    @property
    def threshold(self) -> float:
        """The image score above which a part is defective; normal parts exceed it with `false_alarm_rate`."""
        if self.fixed_thresholds is not None:
            return self.fixed_thresholds[0]
        return self._bound(self.scores, self._image_tail, self.false_alarm_rate)

    @property
    def unsure_threshold(self) -> float:
        """The image score up to which a part is good; `threshold` where no share of unsure ones is accepted.

        Order statistics come in steps of 1/(n + 1): both thresholds may be the same one, such as the largest of 19 to
        23 scores at rates of 5 % and 3 %. Then this one lies between it and the next, where the sum of the rates lies
        between theirs. Unlike an order statistic that is not exact for any distribution: a new score exceeds it with
        the sum of the rates where scores are uniform, more rarely where their density falls as in a tail (Jensen's
        inequality), and never more than one step more often than it exceeds `threshold`.
        """
        if self.fixed_thresholds is not None:
            return self.fixed_thresholds[1]
        count, rate = len(self.scores), self.false_alarm_rate + self.unsure_rate
        found = self._bound(self.scores, self._image_tail, rate)
        rank, step = rank_from_top(count, rate), math.floor(rank_from_top(count, self.false_alarm_rate))
        if self._image_tail is not None or self.unsure_rate == 0 or math.floor(rank) > step:
            return found
        return found - (rank - step) * (found - float(self.scores[max(0, count - step - 1)]))

    @property
    def peak_threshold(self) -> float:
        """The map value that a region must reach somewhere: what normal parts' maps peak above equally rarely."""
        return self._bound(self.peaks, self._peak_tail, self.false_alarm_rate) if len(self.peaks) else self.threshold

    @property
    def region_threshold(self) -> float:
        """The map value above which a pixel belongs to a region: where a normal part's map typically peaks.

        Lower than what a region must reach, so that a defect is outlined whole and not only its core.
        """
        return float(np.median(self.peaks)) if len(self.peaks) else self.threshold

    @property
    def has_tail(self) -> bool:
        """Whether p-values come from a model of the scores' tail, not from the order of the scores."""
        return self._image_tail is not None

    def verdict(self, score: float, is_known: bool = True) -> Verdict:
        """See `verdict_of`."""
        return verdict_of(score, self.threshold, self.unsure_threshold, is_known)

    def _bound(self, scores: np.ndarray, tail: TailModel | TabulatedTail | None, rate: float) -> float:
        """What a new one of `scores` (n,), sorted, exceeds with probability `rate`: by `tail`, else by their order."""
        if tail is not None:
            return tail.bound(rate)
        above = math.floor(rank_from_top(len(scores), rate))
        return float(scores[max(0, len(scores) - above)])

    @cached_property
    def _image_tail(self) -> TailModel | TabulatedTail | None:
        """The distribution of a normal image's score; None where the order of scores reaches down to the rate."""
        return self._held_out_tail(self.scores) if self._unlabelled_fit is None else self._unlabelled_fit.tail

    @cached_property
    def _peak_tail(self) -> TailModel | TabulatedTail | None:
        """The same of the largest value of its map. That images fit together is checked by their scores alone."""
        given = self.unlabelled
        if given is None:
            return self._held_out_tail(self.peaks)
        return fit_unlabelled(given.peaks, self.peaks, self.prior, given.expected_defects, is_checked=False).tail

    @cached_property
    def _unlabelled_fit(self) -> UnlabelledFit | None:
        given = self.unlabelled
        if given is None:
            return None
        return fit_unlabelled(given.scores, self.scores, self.prior, given.expected_defects)

    def _held_out_tail(self, scores: np.ndarray) -> TailModel | None:
        rate = self.false_alarm_rate if self.accepted_rate is None else self.accepted_rate
        suffices = order_statistics_suffice(len(scores), rate)
        return None if suffices else TailModel.of(scores, self.prior)

    @property
    def prior(self) -> TailPrior:
        """Of log scores. Those that `calibrate` added are of new images: they have no bias against them."""
        prior = (COPIES if self.source.copies else LEFT_OUT).scaled(
            self.source.score_exponent * self.source.score_spread
        )
        return replace(prior, bias_std=prior.bias_std * (1 - min(1.0, self.source.added / len(self.scores))))

    @property
    def estimated_defects(self) -> float | None:
        """The share of the `unlabelled` images that is estimated to be defective; None where there are none."""
        return None if self._unlabelled_fit is None else self._unlabelled_fit.defects

    @property
    def words(self) -> str:
        """What the threshold rests on, and what is known of the defects that it lets pass, in a sentence each."""
        if self.unlabelled is None:
            return f"{self.source.words}{self._sensitivity_in_words}"
        count = len(self.unlabelled.scores)
        return (
            f"{self.source.words.removesuffix('.')}, and from {count_in_words(count, 'picture')} of unknown state, "
            f"of which about {round(100 * (self.estimated_defects or 0))} % look defective."
        )

    @property
    def _sensitivity_in_words(self) -> str:
        """How many of the small synthetic defects would score above the threshold; nothing where none were made up."""
        if not len(self.defect_gains):
            return ""
        return f" Of {len(self.defect_gains)} small made-up defects it would find {self.defects_found}."

    @property
    def defects_found(self) -> int:
        """How many of the small synthetic defects (`defect_gains`) would score above the threshold."""
        margin = float(log_scores(self.threshold) - log_scores(self.scores).mean())
        return int((self.defect_gains > margin).sum())

    def for_modalities(self, available: Sequence[str]) -> Calibration:
        """The calibration of images that have the modalities `available`."""
        return self.unimodal.get(available[0], self) if len(available) == 1 else self

    def p_value(self, score: float) -> float:
        """The share of normal parts, in (0, 1], that score at least `score`; ≤ `false_alarm_rate` iff over the
        threshold."""
        if self._image_tail is not None:
            return self._image_tail.probability(score)
        count = len(self.scores)
        return float((1 + count - np.searchsorted(self.scores, score, side="left")) / (count + 1))

    def at(self, false_alarm_rate: float, unsure_rate: float | None = None) -> Calibration:
        """The same held-out scores at other accepted rates; an `unsure_rate` of None is what their source suggests."""
        suggested = COPIES_UNSURE_RATE if self.source.copies and self.unlabelled is None else UNSURE_RATE
        unsure = unsure_rate_or(suggested, unsure_rate, false_alarm_rate)
        check_rates(false_alarm_rate, unsure)
        unimodal = {modality: own.at(false_alarm_rate, unsure) for modality, own in self.unimodal.items()}
        return replace(
            self,
            false_alarm_rate=float(false_alarm_rate),
            unsure_rate=float(unsure),
            unimodal=unimodal,
            fixed_thresholds=None,
            accepted_rate=None,
        )

    def with_thresholds(self, threshold: float, unsure_threshold: float) -> Calibration:
        """The same held-out scores with thresholds set by a person; `at` goes back to those of accepted rates.

        The rates become what normal parts are estimated to exceed these thresholds with, as far as the held-out scores
        can tell: by order statistics that is at least 1/(n + 1). Those of one modality keep theirs. Raises
        SettingsError unless 0 ≤ `unsure_threshold` ≤ `threshold` and a normal image can score below it.
        """
        if not (math.isfinite(threshold) and 0 <= unsure_threshold <= threshold):
            raise SettingsError(
                "a lower limit between 0 and the upper one", f"{unsure_threshold!r} and {threshold!r}", "move them"
            )
        beyond = self.p_value(math.nextafter(threshold, math.inf))
        in_all = self.p_value(math.nextafter(unsure_threshold, math.inf))
        if not 0 < beyond < 1:
            raise SettingsError(
                "a limit that some good parts score below", f"{threshold!r}, which all of them exceed", "raise it"
            )
        unsure = min(max(0.0, in_all - beyond), math.nextafter(1 - beyond, 0))
        fixed = float(threshold), float(unsure_threshold)
        accepted = self.false_alarm_rate if self.accepted_rate is None else self.accepted_rate
        return replace(
            self, false_alarm_rate=beyond, unsure_rate=unsure, fixed_thresholds=fixed, accepted_rate=accepted
        )

    def with_added(self, new: Sequence[AddedScore], keep: bool = True) -> Calibration:
        """These held-out scores pooled with `new` ones; an image that was added before counts once.

        With `keep` False the new scores take the place of all others. Scores of perturbed copies are stand-ins: they
        leave as soon as as many images have been added as were copied. Raises DatasetError where they and the
        `unlabelled` ones, which stay, contradict each other.
        """
        known = {one.fingerprint for one in self.added} if keep else set()
        fresh = list({one.fingerprint: one for one in new if one.fingerprint not in known}.values())
        if not fresh:
            return self
        added = [*(self.added if keep else ()), *fresh]
        scores, peaks = [one.score for one in added], [one.peak for one in added]
        own = self.source
        source = CalibrationSource(
            0, 0, added=len(added), score_exponent=own.score_exponent, score_spread=own.score_spread
        )
        if keep and self.source.held_out and not (self.source.copies and len(added) >= self.source.held_out):
            scores = [*self.scores, *(one.score for one in fresh)]
            peaks = [*self.peaks, *(one.peak for one in fresh)]
            source = replace(self.source, added=len(added))
        pooled = Calibration.of(scores, peaks, self.false_alarm_rate, source, added, self.unsure_rate)
        unlabelled = self.unlabelled if keep else None
        found = replace(pooled, unimodal=self.unimodal, unlabelled=unlabelled, defect_gains=self.defect_gains)
        if unlabelled is not None:
            try:
                _ = found.threshold
            except DatasetError as error:
                count = count_in_words(len(unlabelled.scores), "picture")
                raise DatasetError(
                    f"good pictures that agree with the {count} of unknown state given before",
                    error.got,
                    "let these alone count (--replace), or give good pictures taken as those were",
                ) from error
        return found

    def with_unlabelled(self, scores: ArrayLike, peaks: ArrayLike, expected_defects: float) -> Calibration:
        """Joined with scores and map peaks `(n,)` of images of unknown state, in place of such ones given before.

        Raises DatasetError where they contradict what is assumed of them (see unlabelled.py).
        """
        given = UnlabelledScores(np.asarray(scores, float), np.asarray(peaks, float), float(expected_defects))
        found = replace(self, unlabelled=given)
        _ = found.threshold, found.peak_threshold  # raises
        return found

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; numbers keep every bit."""
        return {
            "false_alarm_rate": self.false_alarm_rate,
            "unsure_rate": self.unsure_rate,
            "threshold": self.threshold,
            "unsure_threshold": self.unsure_threshold,
            "map_threshold": self.region_threshold,
            "scores": self.scores.tolist(),
            "peaks": self.peaks.tolist(),
            "source": asdict(self.source),
            **({"added": [asdict(one) for one in self.added]} if self.added else {}),
            **({} if self.unlabelled is None else {"unlabelled": self.unlabelled.to_dict()}),
            **({"defect_gains": self.defect_gains.tolist()} if len(self.defect_gains) else {}),
            **({} if self.fixed_thresholds is None else {"fixed_thresholds": list(self.fixed_thresholds)}),
            **({} if self.accepted_rate is None else {"accepted_rate": self.accepted_rate}),
            **(
                {"unimodal": {modality: own.to_dict() for modality, own in self.unimodal.items()}}
                if self.unimodal
                else {}
            ),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Take back what `to_dict` gave. Raises ModelError when something is missing."""
        try:
            source = CalibrationSource.from_dict(values["source"])
            added = [AddedScore(**one) for one in values.get("added", ())]
            unsure_rate = values.get("unsure_rate", 0.0)  # models of earlier versions have none
            found = cls.of(values["scores"], values["peaks"], values["false_alarm_rate"], source, added, unsure_rate)
            unimodal = {modality: cls.from_dict(own) for modality, own in values.get("unimodal", {}).items()}
            unlabelled = UnlabelledScores.from_dict(values["unlabelled"]) if "unlabelled" in values else None
            gains = np.asarray(values.get("defect_gains", ()), dtype=np.float64)
            fixed = tuple(map(float, values["fixed_thresholds"])) if "fixed_thresholds" in values else None
            if fixed is not None and len(fixed) != 2:
                raise ValueError(f"{len(fixed)} fixed thresholds")
            by_hand = None if fixed is None else (fixed[0], fixed[1])
            accepted = None if by_hand is None else values.get("accepted_rate")  # earlier versions have none
            return replace(
                found,
                unimodal=unimodal,
                unlabelled=unlabelled,
                defect_gains=gains,
                fixed_thresholds=by_hand,
                accepted_rate=None if accepted is None else float(accepted),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(
                "a calibration with scores, peaks, rate and source", repr(error), "fit the model again"
            ) from error


def verdict_of(score: float, threshold: float, unsure_threshold: float, is_known: bool = True) -> Verdict:
    """The one place that decides: an unknown part is never judged good, whatever it scores, nor is a score of NaN."""
    if not is_known:
        return "unknown"
    if not score <= threshold:
        return "defective"
    return "good" if score <= unsure_threshold else "unsure"


def unsure_rate_or(suggested: float, given: float | None, false_alarm_rate: float) -> float:
    """The `given` unsure rate, else the one `suggested`, as far as the false-alarm rate leaves room for it."""
    return min(suggested, (1 - false_alarm_rate) / 2) if given is None else given


def check_rate(rate: float) -> float:
    """`rate` itself when it lies strictly between 0 and 1, else SettingsError."""
    if not 0 < rate < 1:
        raise SettingsError("a false-alarm rate between 0 and 1, such as 0.05", repr(rate), _as_a_share(rate))
    return rate


def _as_a_share(rate: float) -> str:
    """What to do about a rate out of range: who gives 5 means 5 %."""
    return f"for {rate:g} % give {rate / 100:g}" if 1 <= rate < 100 else "give the share of the good parts"


def check_rates(false_alarm_rate: float, unsure_rate: float | None) -> None:
    """Raise SettingsError unless both accepted rates, and their sum, are rates; an `unsure_rate` may be left open."""
    check_rate(false_alarm_rate)
    if unsure_rate is not None and not 0 <= unsure_rate < 1 - false_alarm_rate:
        raise SettingsError(
            "an unsure rate of 0 or more that leaves some parts good, such as 0.03",
            repr(unsure_rate),
            _as_a_share(unsure_rate),
        )


def rank_from_top(count: int, rate: float) -> float:
    """Which of `count` scores, counted from the largest as 1, a new one exceeds with probability `rate`; in parts."""
    return rate * (count + 1) * (1 + 1e-12)


def order_statistics_suffice(count: int, rate: float) -> bool:
    """Whether `count` scores reach down to `rate` on their own: 1/(n + 1) ≤ rate."""
    return rank_from_top(count, rate) >= 1
