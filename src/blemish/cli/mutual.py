"""`blemish inspect --no-model`: pictures of unknown state that judge one another, into the same folder of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blemish.errors import SettingsError
from blemish.utils.paths import expanded

if TYPE_CHECKING:
    from blemish.cli.inspection import Inspection, Predictor
    from blemish.cli.result_folder import Wanted
    from blemish.encoders.base import Encoder
    from blemish.model.mutual_inspection import MutualInspection
    from blemish.model.mutual_settings import MutualSettings
    from blemish.types import Sample


@dataclass(frozen=True, kw_only=True)
class MutualOptions:
    """What the command line says of an inspection without a model; None is what is not said."""

    encoder: str | None = None
    image_size: int | None = None
    expected_defects: float | None = None
    false_alarm_rate: float | None = None
    unsure_rate: float | None = None

    @property
    def given(self) -> dict[str, Any]:
        """Those that are said, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def refuse_with_model(self) -> None:
        """Raise SettingsError for an option that only an inspection without a model has."""
        alone = [name for name in self.given if name != "encoder"]
        if alone:
            option = f"--{alone[0].replace('_', '-')}"
            raise SettingsError(f"{option} together with --no-model", option, f"leave {option} out: the model knows it")


def inspect_without_model(
    out: Path,
    paths: Sequence[str],
    options: MutualOptions,
    *,
    category: str | None,
    wanted: Wanted,
    pages: bool,
    device: str,
    reasons: Mapping[str, Any],
) -> Inspection:
    """Have the pictures at `paths` judge one another and write everything into `out`.

    `reasons` is how regions are described, None for what is not said. All of it is computed anew by every run; rows of
    an earlier one stay where pictures and settings are the same.
    """
    from blemish.cli.console import say
    from blemish.cli.inspection import Job, predict_into
    from blemish.cli.progress import progress_bar
    from blemish.cli.result_folder import Origin, refuse_other_origin, result_folder
    from blemish.data.data_warnings import collected_warnings
    from blemish.data.folder import find_inspection
    from blemish.data.path_lists import expand_lists
    from blemish.model.mutual_inspection import STATEMENT, inspect_mutually
    from blemish.model.mutual_settings import MutualSettings

    if wanted.append:
        raise SettingsError("--no-model without --append", "both", "give all pictures at once: each judges the others")
    settings = MutualSettings.of({**options.given, "device": device})
    with collected_warnings() as warnings:
        found = find_inspection(expand_lists(list(paths)), pages=pages)
        encoder = settings.build_encoder()
        origin = Origin(model=identity_of_set(settings, encoder, found.samples), category=category, **reasons)
        with result_folder(out):  # an OUT that cannot be written or is in use is refused before anything is compared
            if not wanted.restart:
                refuse_other_origin(out, origin)
        with progress_bar("reading pictures", 100) as progress:
            judged = inspect_mutually(found.samples, category, progress, **{**options.given, "encoder": encoder})
        say(STATEMENT)
        judged = judged.with_reasons(**{name: value for name, value in reasons.items() if value is not None})
        for line in limits_in_words(judged):
            say(line)
        job = Job(
            samples=judged.images.samples,
            title=title_of(paths[0]),
            origin=origin,
            wanted=wanted,
            contents=found.contents,
            warnings=warnings,
        )
        return predict_into(out, set_as_predictor(judged), job)


def title_of(path: str) -> str:
    """The heading of the report: the name of the first folder or picture that was given."""
    place = expanded(path)
    return f"{place.resolve().name if place.exists() else 'Pictures'}, judged without a model"


def identity_of_set(settings: MutualSettings, encoder: Encoder, samples: Sequence[Sample]) -> str:
    """A hash of all that decides the scores: settings but the device, the encoder, and every picture."""
    from blemish.cli.result_folder import identity_of
    from blemish.encoders.identity import identity
    from blemish.utils.hashing import text_sha256

    pictures = [f"{sample.name} {identity_of(sample)}" for sample in samples]
    decisive = {name: value for name, value in settings.to_dict().items() if name != "device"}
    return text_sha256("\n".join([repr(decisive), identity(encoder), *pictures]))


def set_as_predictor(judged: MutualInspection) -> Predictor:
    """Pictures that judged one another, as an inspection and its report see them."""
    from blemish.cli.inspection import Predictor
    from blemish.model.mutual_inspection import STATEMENT
    from blemish.report import CalibrationFacts

    return Predictor(
        stream=judged.stream,
        facts=facts_of(judged),
        calibration=[
            CalibrationFacts(
                category=category,
                scores=calibration.scores[:0],
                threshold=calibration.threshold,
                false_alarm_rate=calibration.false_alarm_rate,
                evidence=0,
                obtained=f"It was taken from {calibration.words}",
            )
            for category, calibration in judged.calibrations.items()
        ],
        full_scale=judged.full_scale,
        statements=[STATEMENT],
    )


def facts_of(judged: MutualInspection) -> Mapping[str, object]:
    """The method's names and settings, for a report."""
    settings = judged.settings
    unsure = max(one.unsure_rate for one in judged.calibrations.values())
    facts: dict[str, object] = {
        "method": "musc (no model)",
        "encoder": judged.encoder.name,
        "image size": f"{settings.image_size} px",
        "defects expected": f"{100 * settings.expected_defects:g} %",
        "false alarms accepted": f"{100 * settings.false_alarm_rate:g} %",
        "good parts that may be unsure": f"{100 * unsure:g} %",
    }
    if len(judged) > settings.group_size:
        facts["judged in groups of at most"] = f"{settings.group_size} pictures"
    if categories := [category for category in judged.calibrations if category]:
        facts["categories"] = categories
    return facts


def limits_in_words(judged: MutualInspection) -> list[str]:
    """One line on each category's limit."""
    lines = []
    for category, calibration in judged.calibrations.items():
        name = f"{category}: " if category else ""
        limit = f" Defective above {calibration.threshold:.4g}, unsure above {calibration.unsure_threshold:.4g}."
        lines.append(f"{name}Limit from {calibration.words}{limit if calibration.is_conclusive else ''}")
    return lines
