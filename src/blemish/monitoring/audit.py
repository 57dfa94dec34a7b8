"""Which parts a person reviews, and which of those may say how good parts score.

Alarms are all reviewed, passes hardly ever. Good parts that were reviewed because they raised an alarm are those with
the highest scores: a limit that is calibrated with them rises, and with it what counts as an alarm, without bound.

So a number in [0, 1), the part's draw, is computed from its id and a secret: the same at each repeat, and independent
of its picture, score and verdict. A pass is put up for review if its draw is below the audit share. Of all parts
reviewed, alarms included, those with a draw below the share are a random sample of all parts, each with the same
probability; those of them that are good are a random sample of all good parts, as split conformal prediction asks for.
That is thinning: alarms, reviewed with probability 1, are kept with the probability with which passes are.
False alarms with other draws never count for the limit, so they may be learned from without any correction.

Horvitz & Thompson ("A generalization of sampling without replacement from a finite universe", Journal of the American
Statistical Association, 1952) use all reviewed parts, weighted by the inverse of the probability with which they were
put up for review. Of alarms another share has been answered than of passes: their weights are raised by the inverse of
these shares, as in Oh & Scheuren ("Weighting adjustment for unit nonresponse", Incomplete Data in Sample Surveys,
1983). The estimate, that of the rate of false alarms, is shown beside the limits. Limits do not rest on it: it is right
only while those that are answered are like the others of their kind, and equal weights are what a calibration's
predictive distribution of few scores is made for.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from blemish.types import Verdict

Label = Literal["good", "defective", "unsure"]


def audit_draw(part_id: str, secret: bytes) -> float:
    """A number in [0, 1) that nobody without the `secret` can foresee, the same for each repeat of an id."""
    digest = hmac.new(secret, part_id.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) * 2.0**-53


@dataclass(frozen=True)
class ReviewedPart:
    """A part that was put up for review: its draw, the audit share at its time, and what a person said, if anything."""

    part_id: str
    score: float
    draw: float
    share: float
    verdict: Verdict
    label: Label | None = None
    in_bank: bool = False

    @property
    def is_alarm(self) -> bool:
        """Whether it was put up for review whatever its draw."""
        return self.verdict != "good"

    @property
    def weight(self) -> float:
        """For how many parts it stands: the inverse of the probability with which it was put up for review.

        0 for a pass outside the random sample, which somebody reviewed of their own accord: it stands for none.
        """
        if self.is_alarm:
            return 1.0
        return 1 / self.share if self.draw < self.share else 0.0


@dataclass(frozen=True)
class AuditSample:
    """The parts that may say how good parts score.

    `counted` are a random sample of all good parts among the first `covered` of the given ones. `waiting` belong to the
    random sample and are not reviewed yet: parts after the first of them do not count, because what is reviewed early
    is not random; `later` are the good ones among those, which count once the first has been reviewed. `share` is that
    of all parts that the sample holds, 0 where nothing was ever drawn.
    """

    counted: tuple[ReviewedPart, ...]
    waiting: tuple[ReviewedPart, ...]
    covered: int
    share: float
    later: tuple[ReviewedPart, ...] = ()


def audit_sample(parts: Sequence[ReviewedPart]) -> AuditSample:
    """The random sample among `parts`, all that were put up for review, in the order of their inspection.

    Where the audit share has changed meanwhile, the smallest one above 0 holds for all, so that no time counts more;
    while it was 0 nothing was drawn, and alarms of that time are no sample. A part that has joined the bank does not
    count.
    """
    share = min((part.share for part in parts if part.share > 0), default=0.0)
    drawn = [(place, part) for place, part in enumerate(parts) if part.draw < min(part.share, share)]
    waiting = [(place, part) for place, part in drawn if part.label is None]
    covered = waiting[0][0] if waiting else len(parts)
    good = [(place, part) for place, part in drawn if part.label == "good" and not part.in_bank]
    return AuditSample(
        tuple(part for place, part in good if place < covered),
        tuple(part for _, part in waiting),
        covered,
        share,
        tuple(part for place, part in good if place >= covered),
    )


def bank_candidates(parts: Iterable[ReviewedPart]) -> list[ReviewedPart]:
    """The false alarms that may be learned from: reviewed as good, and outside the random sample."""
    return [p for p in parts if p.is_alarm and p.label == "good" and p.draw >= p.share and not p.in_bank]


def estimated_rate(parts: Iterable[ReviewedPart], threshold: float) -> float | None:
    """Which share of the good parts a `threshold` rejects, by inverse-probability weights.

    `parts` are all that were put up for review, answered or not, whose scores compare with the threshold, whatever
    their limits were; unknown parts are rejected by any. None without good parts, and where no pass of the random
    sample has been answered, or no alarm though there are some: nothing is known then of the others of that kind.
    """
    drawn = [part for part in parts if part.share > 0]  # alarms of a time without a sample have no passes beside them
    total = rejected = 0.0
    for is_alarm in (False, True):
        kind = [part for part in drawn if part.is_alarm == is_alarm]
        answered = sum(part.weight for part in kind if part.label is not None)
        if not answered:
            if kind or not is_alarm:
                return None
            continue
        raised = sum(part.weight for part in kind) / answered  # so that those answered stand for all of their kind
        for part in kind:
            if part.label == "good":
                total += raised * part.weight
                rejected += raised * part.weight * (part.score > threshold or part.verdict == "unknown")
    return rejected / total if total else None
