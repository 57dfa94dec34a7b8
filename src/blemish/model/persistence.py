"""What of a fitted inspector goes into a saved model, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from blemish.detectors import factory
from blemish.detectors.base import part_of, under
from blemish.errors import WeightsError
from blemish.model.category_recognition import Recognisers
from blemish.model.model_folder import Model
from blemish.model.outliers import SetAside
from blemish.preprocessing.framing import build_framing
from blemish.scoring.calibration import Calibration

if TYPE_CHECKING:
    from blemish.model.inspector import Inspector


def model_of(inspector: Inspector) -> Model:
    """Everything that a fitted inspector has learned, as data."""
    import torch

    import blemish

    tensors = under("detector", inspector.detector_.state())
    arrays = under("recogniser", inspector.recogniser_.state())
    for number, framing in enumerate(inspector.framings_.values()):
        arrays |= under(f"framing.{number}", framing.state())
    tensors |= {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    encoder = inspector.encoder_
    settings = {
        "blemish": blemish.__version__,
        "encoder": {"name": inspector.encoder_name, "layers": list(encoder.layers), "weights": encoder.weights},
        "detector": {"name": inspector.detector_name, "settings": inspector.detector_.settings},
        "framing": {
            "name": inspector.framing,
            "settings": next(iter(inspector.framings_.values())).settings,
        },
        "image_size": inspector.image_size,
        "false_alarm_rate": inspector.false_alarm_rate,
        "seed": inspector.seed,
        "categories": list(inspector.calibrations),
        "learned": sorted(inspector.learned_),
        "set_aside": [one.to_dict() for one in inspector.set_aside_],
    }
    if inspector.detector_.needs.text is not None:
        settings["text_encoder"] = inspector.text_encoder
    calibration = [{"category": name} | c.to_dict() for name, c in inspector.calibrations.items()]
    return Model(settings, tensors, calibration, inspector.thumbnails_)


def arguments_of(model: Model) -> dict[str, Any]:
    """The keyword arguments of the inspector that a model came from, but for its device and the detector's settings."""
    settings = model.settings
    return {
        "encoder": settings["encoder"]["name"],
        "detector": settings["detector"]["name"],
        "image_size": settings["image_size"],
        "false_alarm_rate": settings["false_alarm_rate"],
        "seed": settings["seed"],
        "layers": settings["encoder"]["layers"],
        "framing": settings["framing"]["name"],
        "text_encoder": settings.get("text_encoder", "auto"),
    }


def restore(inspector: Inspector, model: Model) -> None:
    """Give an inspector of `arguments_of(model)` what was learned. Raises WeightsError where the encoder is another."""
    settings = model.settings
    saved = settings["encoder"]
    inspector.detector = factory.build(inspector.detector_name, settings["detector"]["settings"])
    inspector.encoder_ = inspector.built_encoder()
    if inspector.encoder_.weights != saved["weights"]:
        raise WeightsError(
            f"the weights of {saved['name']!r} that the model learned with (sha256 {saved['weights'][:12]}…)",
            f"others (sha256 {inspector.encoder_.weights[:12]}…)",
            "install the weights it learned with, or fit again with these",
        )
    inspector.framings_ = {
        name or "": build_framing(inspector.framing, **settings["framing"]["settings"]).load_state(
            {key: t.numpy() for key, t in part_of(model.tensors, f"framing.{number}").items()}
        )
        for number, name in enumerate(settings["categories"])
    }
    inspector.glance_ = inspector.look.glance(inspector.encoder_, len(inspector.framings_))
    inspector.recogniser_ = Recognisers().load_state(
        {name: t.numpy() for name, t in part_of(model.tensors, "recogniser").items()}
    )
    inspector.detector_ = inspector.detector.load_state(part_of(model.tensors, "detector"))
    inspector.calibrations = {entry["category"]: Calibration.from_dict(entry) for entry in model.calibration}
    inspector.learned_ = set(settings["learned"])
    inspector.set_aside_ = tuple(SetAside(**one) for one in settings.get("set_aside", ()))
    inspector.thumbnails_ = model.thumbnails
