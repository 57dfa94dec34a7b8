"""Scaling: time and memory of inspection that grow with the number of training images.

Measured with all patches that the detector stores, with a half and with a quarter of them.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from blemish.diagnosis.advice import advice_for
from blemish.diagnosis.material import Material
from blemish.diagnosis.signs import Measure, Sign, Thresholds
from blemish.errors import DataWarning
from blemish.utils.indices import evenly_spaced

if TYPE_CHECKING:
    import torch

    from blemish.detectors.base import Detector
    from blemish.model.fitted import FittedModel
    from blemish.types import ImageOrScan

NAME = "growth"
SHARES = (0.25, 0.5, 1.0)  # of the stored patches that the time is measured with
REPEATS = 3  # measurements, of which the fastest counts


def scaling(material: Material, thresholds: Thresholds) -> Sign:
    """How time and memory depend on what is stored of the training images.

    Not measured of a user's own detector that cannot be saved: what it stores cannot be seen.
    """
    model = material.model
    is_savable = all(callable(getattr(model.detector, name, None)) for name in ("state", "load_state"))
    why = "" if is_savable else "the detector has no state() and load_state()"
    state = model.detector.state() if is_savable else {}
    rows = {name: len(tensor) for name, tensor in state.items() if is_bank(name)}
    stored = sum(state[name].nbytes for name in rows) / 1e6
    inspected = [*material.held_out, *material.training]
    image = inspected[0].image if inspected else model.thumbnails
    category = inspected[0].prediction.category if inspected else next(iter(model.calibrations))
    spent = detector_milliseconds(model, image, category, SHARES if rows else SHARES[-1:])
    growing = max(0.0, 2 * (spent[-1] - spent[-2])) if rows else 0.0
    whole = [one.prediction.seconds for one in inspected] or [seconds_of(material, image, category)]
    facts: dict[str, object] = {
        "milliseconds a picture, all in all": 1000 * float(np.median(whole)),
        "milliseconds of these in the detector": spent[-1],
    }
    if is_savable:
        facts |= {
            "megabytes of all that was learned": sum(tensor.nbytes for tensor in state.values()) / 1e6,
            "patches stored": sum(rows.values()),
            "patches stored for each picture learned": sum(rows.values()) / max(len(model.fingerprints), 1),
        }
    return Sign(
        NAME,
        "Time and memory rise with every good picture that is learned, until inspection no longer keeps up.",
        (
            Measure(
                "milliseconds a picture that grow with the patches stored",
                growing if is_savable else None,
                thresholds.milliseconds,
                why=why,
            ),
            Measure(
                "megabytes that grow with the patches stored",
                stored if is_savable else None,
                thresholds.megabytes,
                why=why,
            ),
        ),
        advice_for(NAME, model.detector),
        facts=facts | (facts_of_growth(spent) if rows else {}),
    )


def seconds_of(material: Material, image: ImageOrScan, category: str | None) -> float:
    """Seconds to inspect an image, whose own size is of no importance here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return material.inspector.inspect(image, category).seconds


def facts_of_growth(spent: Sequence[float]) -> dict[str, object]:
    """The milliseconds at each of SHARES in words, and the exponent of time over stored patches."""
    facts: dict[str, object] = {
        f"milliseconds in the detector with {100 * share:g} % of the patches": one
        for share, one in zip(SHARES, spent, strict=True)
    }
    return facts | {
        "growth of the time with the patches, as a power": math.log2(max(spent[-1], 1e-9) / max(spent[-2], 1e-9))
    }


def is_bank(name: str) -> bool:
    """Whether a tensor of a detector's state holds stored patches, a row each: `bank`, `….bank`, `bank/CATEGORY`."""
    return name.partition("/")[0].rpartition(".")[2] == "bank"


def detector_milliseconds(
    model: FittedModel, image: np.ndarray, category: str | None, shares: Sequence[float]
) -> list[float]:
    """How long the detector takes for an image's features with these shares of its stored patches; the best of some."""
    frame = model.framing_of(category).frame(image)
    features = model.encoder.encode(frame.encoder_input[None]).with_categories([category or ""])
    spent = []
    for share in shares:
        detector = model.detector if share == 1 else with_fewer_patches(model.detector, share)
        times = []
        for _ in range(1 + REPEATS):  # the first call prepares what later ones reuse
            started = time.perf_counter()
            detector.score(features).patches.cpu()  # an accelerator has not scored them before it is asked
            times.append(1000 * (time.perf_counter() - started))
        spent.append(min(times[1:]))
    return spent


def with_fewer_patches(detector: Detector, share: float) -> Detector:
    """A copy of the detector with a share of its stored patches, evenly taken."""
    state = {
        name: evenly_thinned(tensor, share) if is_bank(name) else tensor for name, tensor in detector.state().items()
    }
    return type(detector)(**detector.settings).load_state(state)


def evenly_thinned(rows: torch.Tensor, share: float) -> torch.Tensor:
    """A share of the rows `(N, …)`, at least one."""
    return rows[evenly_spaced(len(rows), max(1, round(share * len(rows))))]
