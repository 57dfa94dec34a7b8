"""Over-fitting: normal images that the detector was not fitted on look as anomalous as synthetic anomalies.

Measured by where their scores lie between those of training images (0) and those of synthetic anomalies (1), and by
their false alarms. Between the two, because a memory bank scores what it holds 0: by a ratio of scores to those of
training images, every bank would count as over-fitted.
"""

from __future__ import annotations

import numpy as np

from blemish.diagnosis.advice import advice_for
from blemish.diagnosis.material import Material
from blemish.diagnosis.signs import InspectedImage, Measure, Sign, Thresholds
from blemish.types import ALARMS

NAME = "over-fitting"
CHANCE = 0.01  # probability at which more false alarms than the target are no accident


def overfitting(material: Material, identity: Sign, thresholds: Thresholds) -> Sign:
    """Whether held-out normal images look like training images. Not measurable where `identity` warns."""
    gap, why = generalisation_gap(material, identity)
    alarms = [one.prediction.verdict in ALARMS for one in material.known]
    target = material.inspector.false_alarm_rate
    most = most_alarms_by_chance(len(alarms), target)
    shown: tuple[tuple[str, InspectedImage], ...] = ()
    if material.known:
        highest = max(material.known, key=material.relative_score)
        shown = (("The new good part that looks strangest", highest),)
    medians = {f"median score, {name}": float(np.median(v)) for name, v in material.scores().items()}
    return Sign(
        NAME,
        "The model knows the pictures it learned from, not the part: new good parts look strange to it.",
        (
            Measure(
                "new good parts on the way from learned pictures (0) to made-up defects (1)",
                gap,
                thresholds.generalisation_gap,
                why=why,
            ),
            Measure(
                f"false alarms among new good parts ({100 * target:g} % accepted)",
                float(np.mean(alarms)) if alarms else None,
                most / max(len(alarms), 1),
                why="" if alarms else "no new good picture of a known part",
            ),
        ),
        advice_for(NAME, material.model.detector),
        shown,
        medians | {"new good parts looked at": len(alarms)},
    )


def generalisation_gap(material: Material, identity: Sign) -> tuple[float | None, str]:
    """Where the median held-out score lies between that of training images (0) and of synthetic anomalies (1); or None
    and why it is unknown."""
    scores = material.scores()
    if identity.finding == "warn":
        return None, "defects score like good parts, which comes first"
    if "good, learned" not in scores:
        return None, "no picture given that the model learned from"
    if "good, not learned" not in scores:
        return None, "no good picture known that the model did not learn from"
    training, held_out, altered = (float(np.median(values)) for values in scores.values())
    if altered <= training:
        return None, "made-up defects score no higher than learned pictures"
    return (held_out - training) / (altered - training), ""


def most_alarms_by_chance(count: int, rate: float) -> int:
    """The most false alarms among `count` normal images that chance explains where `rate` is the true rate."""
    from scipy.special import bdtrc

    return max(k for k in range(count + 1) if k == 0 or bdtrc(k - 1, count, rate) >= CHANCE)
