"""Identity mapping: the detector reconstructs anomalies as well as normal patches, so that its map stays flat.

Measured where a synthetic spot was pasted: the map there against the map at the same place of the untouched image. The
name is that of You et al., "A Unified Model for Multi-class Anomaly Detection" (UniAD), NeurIPS 2022, which calls it
the identical shortcut.
"""

from __future__ import annotations

import numpy as np

from blemish.diagnosis.advice import advice_for
from blemish.diagnosis.material import TINY, Material
from blemish.diagnosis.signs import InspectedImage, Measure, Sign, Thresholds
from blemish.metrics import auroc
from blemish.utils.indices import evenly_spaced

NAME = "identity mapping"
MOST_PIXELS = 500  # of a spot that are compared: further ones add nothing to the AUROC
LARGEST_RATIO = 1e6  # where the untouched place scores 0


def identity_mapping(material: Material, thresholds: Thresholds) -> Sign:
    """Whether the map rises where a synthetic spot was pasted."""
    why = "" if material.pairs else "no good picture of a known part"
    localisation = contrast = None
    shown: tuple[tuple[str, InspectedImage], ...] = ()
    if material.pairs:
        values = [spot_values(*pair, material.power) for pair in material.pairs]
        localisation = localisation_of(values)
        ratios = [float(np.median(altered) / max(float(np.median(before)), TINY)) for before, altered in values]
        contrast = min(float(np.median(ratios)), LARGEST_RATIO)
        faintest = int(np.argmin(ratios))
        words = f"The spot that shows least: {ratios[faintest]:.2f}× its place untouched"
        shown = ((words, material.pairs[faintest][1]),)
    return Sign(
        NAME,
        "The detector passes defects on as it passes good patches, so its map does not rise where a defect lies.",
        (
            Measure(
                "map inside made-up spots above the same places untouched (AUROC)",
                localisation,
                thresholds.localisation,
                True,
                why,
            ),
            Measure(
                "map inside made-up spots, times the same places untouched", contrast, thresholds.contrast, True, why
            ),
        ),
        advice_for(NAME, material.model.detector),
        shown,
    )


def localisation_of(values: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """AUROC of all map values inside spots against those of the same places untouched."""
    untouched = np.concatenate([before for before, _ in values])
    altered = np.concatenate([after for _, after in values])
    return auroc(np.concatenate([untouched, altered]), np.repeat([0, 1], len(untouched)))


def spot_values(untouched: InspectedImage, altered: InspectedImage, power: float) -> tuple[np.ndarray, np.ndarray]:
    """Map values `(n,)` inside the spot, evenly thinned out, of the untouched and of the altered image."""
    places = np.flatnonzero(np.asarray(altered.mask))
    places = places[evenly_spaced(len(places), MOST_PIXELS)]
    return (
        untouched.prediction.map.ravel()[places].astype(np.float64) ** power,
        altered.prediction.map.ravel()[places].astype(np.float64) ** power,
    )
