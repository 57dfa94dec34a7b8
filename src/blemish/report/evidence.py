"""What the good images behind a threshold can and cannot support, as numbers and as honest sentences.

With n independent good images and a threshold at their k-th largest score, the true share of good parts above it
follows Beta(k, n + 1 − k) whatever the scores' distribution (order statistics; Wilks 1941). With k = 0, the threshold
lying above all of them, the share follows Beta(1, n) at worst.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blemish.scoring.describe import count_in_words

NOT_KNOWN = "How many defects a limit misses cannot be known from good pictures alone."


@dataclass(frozen=True)
class CalibrationFacts:
    """Where one category's threshold comes from.

    `scores` `(n,)` are scores of good images the detector did not learn from; `threshold` the image threshold;
    `false_alarm_rate` the target, in 0…1; `evidence` the number of distinct good parts behind the scores (fewer than
    `scores` when augmentations were scored too); `obtained` says how, as a whole sentence with its full stop;
    `unlabelled` is the number of images of unknown state behind it as well.
    """

    category: str | None
    scores: np.ndarray
    threshold: float
    false_alarm_rate: float
    evidence: int
    obtained: str = ""
    unlabelled: int = 0


def rate_interval(facts: CalibrationFacts, confidence: float = 0.9) -> tuple[float, float]:
    """Between which false-alarm rates the true one lies with `confidence`, given the evidence, both in 0…1.

    Scores of augmentations of one part are not independent: their share above the threshold is taken, their number not.
    """
    n = max(0, facts.evidence)
    if n == 0 or len(facts.scores) == 0:
        return 0.0, 1.0
    from scipy.special import betaincinv

    share = float((np.asarray(facts.scores) >= facts.threshold).mean())
    above = min(n, round(share * n))
    if above == 0:
        return 0.0, float(betaincinv(1, n, confidence))
    tail = (1 - confidence) / 2
    return float(betaincinv(above, n + 1 - above, tail)), float(betaincinv(above, n + 1 - above, 1 - tail))


def images_needed(rate: float) -> int:
    """How many good images it takes at least until one score in them can lie at the target rate: 19 for 5 %."""
    return max(1, int(np.ceil(1 / rate - 1e-9)) - 1) if rate > 0 else 0


def evidence_in_words(facts: CalibrationFacts) -> list[str]:
    """Sentences: what the threshold rests on, what to expect of it, and what would make it firmer."""
    if not len(facts.scores):  # there is no limit yet
        return [facts.obtained]
    target = percent(facts.false_alarm_rate)
    rests = facts.obtained or f"It rests on {count_in_words(facts.evidence, 'good picture')}."
    sentences = [f"The limit aims at {target} false alarms. {rests}"]
    if facts.unlabelled:
        return [
            *sentences,
            "Unsorted pictures are not counted but described, as a mixture of good and defective ones: the rate holds "
            "as far as most of them show good parts, and parts and lighting stay the same.",
        ]
    low, high = rate_interval(facts)
    needed = images_needed(facts.false_alarm_rate)
    if facts.evidence < needed:
        sentences.append(
            f"That is too few to show a rate of {target}: it takes at least {needed} good pictures. "
            f"The limit is extrapolated; the true rate of false alarms may lie anywhere up to {percent(high)}. "
            "Trust the order of the scores more than the verdict, and renew the limit with more good pictures."
        )
    else:
        span = f"between {percent(low)} and {percent(high)}" if low > 0 else f"below {percent(high)}"
        sentences.append(
            f"With 90 % confidence the true rate of false alarms lies {span}, if parts and lighting stay the same."
        )
    return sentences


def percent(rate: float) -> str:
    """A rate in 0…1 as "5 %", "0.5 %", "12 %"."""
    value = 100 * rate
    return f"{value:.2g} %" if value < 10 else f"{value:.0f} %"
