"""A model from a product's name alone: sentences about it are fitted, no image of it is seen."""

from __future__ import annotations

from dataclasses import replace

from blemish.data.full_scale import FullScale
from blemish.detectors.base import ZeroShot
from blemish.encoders.precision import precision_of
from blemish.encoders.text.prompts import check_product
from blemish.errors import SettingsError
from blemish.model.category_recognition import CategoryRecognisers
from blemish.model.fitted import FittedModel
from blemish.model.fitting import embedded_prompts, unfitted
from blemish.model.model_folder import thumbnail_sheet
from blemish.model.settings import SHARED_FRAMINGS, ModelSettings, check_compatible
from blemish.scoring.uncalibrated import Uncalibrated


def fit_zero_shot(settings: ModelSettings, product: str) -> FittedModel:
    """The model of one product by its name; see `Inspector.fit_zero_shot` for what it raises."""
    check_product(product)
    detector = unfitted(settings.detector)
    if not isinstance(detector, ZeroShot):
        raise SettingsError(
            "a detector that can be fitted by a product's name",
            repr(settings.detector_name),
            "choose winclip, or give good pictures",
        )
    if settings.framing not in SHARED_FRAMINGS:
        raise SettingsError("the framing 'plain', as no picture is known", repr(settings.framing), "leave it out")
    encoder = settings.build_encoder()
    check_compatible(detector.needs, encoder, settings.framing, settings.detector_name)
    prompts, text_encoder = embedded_prompts([product], settings, encoder)
    assert prompts is not None  # what is fitted by sentences needs some
    calibration = Uncalibrated.at_rates(settings.false_alarm_rate, settings.unsure_rate, detector.needs.score_exponent)
    return FittedModel(
        settings=replace(settings, text_encoder=text_encoder, precision=precision_of(encoder)),
        encoder=encoder,
        detector=detector.fit_zero_shot(prompts),
        full_scale=FullScale() if settings.bit_depth is None else FullScale(bits=settings.bit_depth, stated=True),
        framings={product: settings.build_framing(encoder)},
        recognition_framing=None,
        recogniser=CategoryRecognisers.of_anything(product, encoder.dims[0]),
        calibrations={product: calibration},
        fingerprints=frozenset(),
        outliers=(),
        standing_out=(),
        repeats=0,
        thumbnails=thumbnail_sheet([]),
    )
