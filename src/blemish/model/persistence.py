"""A fitted model as the data that a model folder holds, and back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blemish.data.full_scale import FullScale
from blemish.detectors import factory
from blemish.detectors.base import Detector, add_prefix, strip_prefix
from blemish.detectors.settings import Configurable
from blemish.encoders.base import Encoder
from blemish.encoders.factory import absolute_name
from blemish.encoders.identity import feature_settings
from blemish.errors import ModelError, SettingsError, WeightsError
from blemish.model.category_recognition import CategoryRecognisers
from blemish.model.fitted import FittedModel
from blemish.model.model_folder import SavedModel, load_model, save_model
from blemish.model.outliers import Outlier
from blemish.model.reference_images import ReferenceImages
from blemish.model.settings import ModelSettings
from blemish.model.standing_out import StandingOut
from blemish.preprocessing.framing import build_framing
from blemish.registry import ENCODERS, joined_names
from blemish.scoring.uncalibrated import calibration_from
from blemish.types import ScanGeometry
from blemish.utils.paths import expanded


def save(folder: str | Path, model: FittedModel) -> Path:
    """Write the model to `folder`, in place of an older one; returns the full path.

    Raises SettingsError for a detector that has no state to save, OutputError where it cannot be written.
    """
    return save_model(folder, saved_of(model, Path(folder)))


def load(
    folder: str | Path,
    device: str = "auto",
    encoder: str | Path | Encoder | None = None,
    detector: Detector | None = None,
) -> FittedModel:
    """The model in a folder; see `Inspector.load`."""
    saved = load_model(folder)
    try:
        return fitted_of(saved, Path(folder), device, encoder, detector)
    except (KeyError, TypeError, AttributeError, RuntimeError, IndexError) as error:
        raise ModelError(f"a complete model in '{folder}'", repr(error), "fit the model again") from error


def saved_of(model: FittedModel, folder: Path) -> SavedModel:
    """All that a fitted model holds, as data for `folder`."""
    import torch

    import blemish

    check_savable(model.detector)
    settings, encoder = model.settings, model.encoder
    tensors = add_prefix(model.detector.state(), "detector")
    arrays = add_prefix(model.recogniser.state(), "recogniser")
    for number, framing in enumerate(model.framings.values()):
        arrays |= add_prefix(framing.state(), f"framing.{number}")
    arrays |= {f"ignored.{n}": model.ignored[name] for n, name in enumerate(model.framings) if name in model.ignored}
    tensors |= {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    references: dict[str, Any] = {}
    for name, kept in model.references.items():
        number = list(model.framings).index(name)
        references[str(number)], images = kept.to_state()
        tensors |= add_prefix(images, f"references.{number}")
    saved = {
        "blemish": blemish.__version__,
        "encoder": {
            "name": encoder.name,
            "layers": list(encoder.layers),
            "weights": encoder.weights_sha256,
            "settings": feature_settings(encoder),
            "precision": settings.precision,
            **revisions_of(encoder),
            **folders_beside(encoder.name, folder),
        },
        "detector": {
            "name": settings.detector_name,
            "settings": as_json(model.detector.settings),
            **({"custom": True} if settings.is_custom else {}),
        },
        "framing": {"name": settings.framing, "settings": next(iter(model.framings.values())).settings},
        "image_size": settings.image_size,
        "false_alarm_rate": settings.false_alarm_rate,
        "unsure_rate": settings.unsure_rate,
        "seed": settings.seed,
        "bit_depth": settings.bit_depth,
        "units": settings.units,
        **({} if settings.geometry is None else {"geometry": settings.geometry.to_dict()}),
        "full_scale": model.full_scale.to_dict(),
        "categories": list(model.calibrations),
        "fingerprints": sorted(model.fingerprints),
        "held_out_fingerprints": sorted(model.held_out_fingerprints),
        **({"repeat_fingerprints": sorted(model.repeat_fingerprints)} if model.repeat_fingerprints else {}),
        "outliers": [one.to_dict() for one in model.outliers],
        "standing_out": [one.to_dict() for one in model.standing_out],
        "repeats": model.repeats,
        "references": references,
    }
    if model.ignored:
        saved["ignored_share"] = {name: float(area.mean()) for name, area in model.ignored.items()}
    if model.detector.needs.prompts is not None:
        saved["text_encoder"] = settings.text_encoder
    calibration = [{"category": name} | one.to_dict() for name, one in model.calibrations.items()]
    return SavedModel(saved, tensors, calibration, model.thumbnails)


def fitted_of(
    saved: SavedModel, folder: Path, device: str, encoder: str | Path | Encoder | None, detector: Detector | None
) -> FittedModel:
    """The fitted model that `saved_of` took apart. Raises WeightsError where the encoder is another."""
    settings = settings_of(saved.settings, folder, device, encoder, detector)
    built = settings.build_encoder()
    check_weights(built, saved.settings["encoder"])
    names = saved.settings["categories"]
    framing = saved.settings["framing"]["settings"]
    framings = {
        name or "": build_framing(settings.framing, **framing).load_state(
            {key: tensor.numpy() for key, tensor in strip_prefix(saved.tensors, f"framing.{number}").items()}
        )
        for number, name in enumerate(names)
    }
    ignored = {
        name or "": saved.tensors[f"ignored.{number}"].numpy()
        for number, name in enumerate(names)
        if (name or "") in saved.settings.get("ignored_share", {})
    }
    recogniser = {name: tensor.numpy() for name, tensor in strip_prefix(saved.tensors, "recogniser").items()}
    return FittedModel(
        settings=settings,
        encoder=built,
        detector=settings.detector.load_state(strip_prefix(saved.tensors, "detector")),
        full_scale=FullScale.from_dict(saved.settings["full_scale"]),
        framings=framings,
        recognition_framing=settings.recognition_framing(built, len(framings), bool(ignored)),
        recogniser=CategoryRecognisers().load_state(recogniser),
        calibrations={entry["category"]: calibration_from(entry) for entry in saved.calibration},
        fingerprints=frozenset(saved.settings["fingerprints"]),
        held_out_fingerprints=frozenset(saved.settings.get("held_out_fingerprints", ())),  # earlier versions have none
        repeat_fingerprints=frozenset(saved.settings.get("repeat_fingerprints", ())),
        outliers=tuple(Outlier(**one) for one in saved.settings["outliers"]),
        standing_out=tuple(StandingOut(**one) for one in saved.settings.get("standing_out", ())),  # not in earlier ones
        repeats=saved.settings["repeats"],
        thumbnails=saved.thumbnails,
        ignored=ignored,
        references={
            names[int(number)] or "": ReferenceImages.from_state(
                facts, strip_prefix(saved.tensors, f"references.{number}")
            )
            for number, facts in saved.settings.get("references", {}).items()  # not in earlier ones
        },
    )


def settings_of(
    saved: Mapping[str, Any],
    folder: Path,
    device: str,
    encoder: str | Path | Encoder | None,
    detector: Detector | None,
) -> ModelSettings:
    """The settings of a saved model, with another `encoder` or a `detector` object where they are given."""
    precision = saved["encoder"]["precision"]
    if encoder is None:
        encoder = encoder_at(saved["encoder"], folder)
    return ModelSettings(
        encoder=absolute_name(encoder) if isinstance(encoder, (str, Path)) else encoder,
        detector=detector_of(saved["detector"], detector),
        detector_name=saved["detector"]["name"],
        image_size=saved["image_size"],
        framing=saved["framing"]["name"],
        false_alarm_rate=saved["false_alarm_rate"],
        unsure_rate=saved.get("unsure_rate", 0.0),  # models of earlier versions have none
        device=device,
        seed=saved["seed"],
        layers=saved["encoder"]["layers"],
        text_encoder=saved.get("text_encoder", "auto"),
        precision=tuple(precision) if isinstance(precision, list) else precision,
        bit_depth=saved["bit_depth"],
        units=saved.get("units"),
        geometry=ScanGeometry.from_dict(saved["geometry"]) if saved.get("geometry") else None,
    )


def detector_of(saved: Mapping[str, Any], given: Detector | None) -> Detector:
    """The unfitted detector that a model was saved with. Raises SettingsError unless the `given` one is its like."""
    name, settings = saved["name"], saved["settings"]
    if given is None:
        if saved.get("custom"):
            raise SettingsError(
                f"the detector object {name!r} that the model was fitted with",
                "none",
                f"give one of the same settings: Inspector.load(folder, detector={name}(...))",
            )
        return factory.build(name, settings)
    if isinstance(given, Configurable):
        settings = given.current_settings(settings)
    if saved.get("custom") and type(given).__name__ != name:
        raise SettingsError(f"a detector of the class {name!r}", repr(type(given).__name__), "give the one fitted with")
    if as_json(given.settings) != settings:
        raise SettingsError(f"a detector with the settings {settings}", f"{given.settings}", "give the same settings")
    return type(given)(**given.settings)  # a new one: the object given stays as it is


def check_savable(detector: Detector) -> None:
    """Raise SettingsError for a detector whose fitted state cannot be saved."""
    missing = [name for name in ("state", "load_state") if not callable(getattr(detector, name, None))]
    if missing:
        raise SettingsError(
            f"a detector with state() and load_state(), to save it; {type(detector).__name__!r} has learned in memory",
            f"none named {' and '.join(missing)}",
            "add them (see CONTRIBUTING.md), or use the model without saving it",
        )


def as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they come back from JSON. Raises SettingsError where it cannot hold them."""
    try:
        found: dict[str, Any] = json.loads(json.dumps(dict(settings)))
    except (TypeError, ValueError) as error:
        raise SettingsError("settings of a detector that JSON can hold", str(error), "use plain values") from error
    return found


def check_weights(encoder: Encoder, saved: Mapping[str, Any]) -> None:
    """Raise WeightsError where an encoder's weights, or settings beside them, are not those a model was fitted with.

    Settings that either of them does not state are not compared: models of earlier versions have none.
    """
    get = [
        f"hf download {ENCODERS[name].hub if name in ENCODERS else name} --revision {revision} --local-dir FOLDER"
        for name, revision in saved.get("revisions", {}).items()
    ]
    back = f"get them ({'; '.join(get)}) and name their folder as the encoder, or fit again with these" if get else ""
    if encoder.weights_sha256 != saved["weights"]:
        raise WeightsError(
            f"the weights of {saved['name']!r} that the model learned with (sha256 {saved['weights'][:12]}…)",
            f"others (sha256 {encoder.weights_sha256[:12]}…)",
            back or "install the weights it learned with, or fit again with these",
        )
    own = feature_settings(encoder)
    given = saved.get("settings", {})
    others = [name for name in given if name in own and own[name] != given[name]]
    if others:
        raise WeightsError(
            f"the encoder {saved['name']!r} as the model learned with it: {in_words(given, others)}",
            f"the same weights with {in_words(own, others)}",
            back or "bring back the config.json and preprocessor_config.json it learned with, or fit again with these",
        )


def in_words(settings: Mapping[str, Any], names: Sequence[str]) -> str:
    """What an error message says of the feature settings of these `names`; of a hash its beginning."""
    return ", ".join(
        f"{name} {value[:12] + '…' if isinstance(value, str) else value}"
        for name, value in ((name, settings[name]) for name in names)
    )


def revisions_of(encoder: Encoder) -> dict[str, Any]:
    """The commits that an encoder's weights from a hub are of, by name; empty where none are."""
    parts: tuple[Any, ...] = getattr(encoder, "parts", (encoder, getattr(encoder, "images", encoder)))
    found = {part.name: part.revision for part in parts if getattr(part, "revision", "")}
    return {"revisions": found} if found else {}


def folders_beside(encoder: str, folder: Path) -> dict[str, Any]:
    """Where the folders of an encoder lie, seen from the model's: both may be moved together. Empty for names."""
    found = {}
    for name in joined_names(encoder):
        if name not in ENCODERS and os.path.isabs(name):
            try:
                found[name] = os.path.relpath(name, expanded(folder).resolve())
            except ValueError:  # on another drive
                continue
    return {"beside": found} if found else {}


def encoder_at(saved: Mapping[str, Any], folder: Path) -> str:
    """The saved encoder's name, its folders where they lie now: where they lay, or else where they lie from `folder`.

    Raises WeightsError where they lie at neither place.
    """
    name: str = saved["name"]
    for place, relative in saved.get("beside", {}).items():
        here = expanded(folder).resolve() / relative
        if not Path(place).exists():
            if not here.exists():
                raise WeightsError(
                    f"the encoder's folder at '{place}' or '{os.path.normpath(here)}'",
                    "no such folder",
                    "say where it is: --encoder FOLDER, or Inspector.load(model, encoder=folder)",
                )
            name = name.replace(place, str(here.resolve()))
    return name
