"""Five ways in which a model fails silently, each measured on normal images and synthetic anomalies alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blemish.data.loading import ImageInputs
from blemish.diagnosis.domain_gap import domain_gap
from blemish.diagnosis.identity_mapping import identity_mapping
from blemish.diagnosis.material import collect
from blemish.diagnosis.overfitting import overfitting
from blemish.diagnosis.prompt_separation import prompts
from blemish.diagnosis.scaling import scaling
from blemish.diagnosis.signs import Diagnosis, Thresholds
from blemish.errors import NotFittedError, SettingsError
from blemish.types import POINTS

if TYPE_CHECKING:
    from blemish.detectors.base import Progress
    from blemish.model.inspector import Inspector


def diagnose(
    inspector: Inspector,
    images: ImageInputs = (),
    category: str | None = None,
    seed: int = 0,
    thresholds: Thresholds | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Measure the five signs of failure of a fitted inspector.

    `images` are normal ones: those it was fitted on, others, or better some of both; no labelled defect is needed. What
    they do not allow is said to be not measured, and why. Images of no given `category` are recognised. Raises
    DatasetError for images that are known to be defective, or a folder without any, NotFittedError for an inspector
    that was not fitted, SettingsError for a model of points.
    """
    if not inspector.is_fitted:
        raise NotFittedError("a fitted inspector to diagnose", "one that has not learned", "call fit or load first")
    if POINTS in inspector.modalities:
        raise SettingsError("a model of pictures alone", "one of pictures and points", "diagnose another model")
    thresholds = thresholds or Thresholds()
    material = collect(inspector, images, category, seed, progress)
    identity = identity_mapping(material, thresholds)
    signs = (
        identity,
        overfitting(material, identity, thresholds),
        domain_gap(material, thresholds),
        scaling(material, thresholds),
        prompts(material, thresholds),
    )
    return Diagnosis(signs, tuple(material.words()), material.scores(), tuple(material.failures))
