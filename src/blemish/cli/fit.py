"""`blemish fit`: learn what good parts look like, save a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blemish.cli.options import (
    AssumeGood,
    BitDepth,
    Cache,
    Category,
    DepthScale,
    DetectorName,
    Device,
    DeviceName,
    EncoderName,
    FalseAlarmRate,
    Grid,
    Ignore,
    ImageSize,
    Intrinsics,
    MmPerStep,
    Pages,
    Precision,
    Settings,
    TextEncoderName,
    Units,
    UnsureRate,
    given_path,
)
from blemish.errors import SettingsError
from blemish.utils.validation import LARGEST_SEED

if TYPE_CHECKING:
    from blemish.model.inspector import Inspector


def fit(
    *,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[GOOD]",
            help="Good pictures, folders of them, a dataset; @FILE: a list of such paths; -: from stdin.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="MODEL", help="The folder that the model goes into.", parser=given_path),
    ],
    detector: DetectorName = "auto",
    encoder: EncoderName = "auto",
    image_size: ImageSize = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Learn and inspect in half the time; finds somewhat fewer small defects.")
    ] = False,
    shots: Annotated[
        int | None, typer.Option("--shots", metavar="K", min=1, help="Learn from K pictures of each category alone.")
    ] = None,
    seed: Annotated[
        int,
        typer.Option("--seed", metavar="S", min=0, max=LARGEST_SEED, help="Decides the shots and all randomness."),
    ] = 0,
    false_alarm_rate: FalseAlarmRate = 0.05,
    unsure_rate: UnsureRate = None,
    category: Category = None,
    device: DeviceName = Device.auto,
    settings: Settings = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="Set aside pictures that are probably defective; they are listed.")
    ] = False,
    text_encoder: TextEncoderName = "auto",
    cache: Cache = None,
    precision: Precision = None,
    bit_depth: BitDepth = None,
    units: Units = None,
    intrinsics: Intrinsics = None,
    depth_scale: DepthScale = None,
    mm_per_pixel: MmPerStep = None,
    grid: Grid = None,
    assume_good: AssumeGood = False,
    ignore: Ignore = None,
    pages: Pages = False,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="PROMPTS",
            help="What `blemish fit-prompts` learned on other products, for anomalyclip.",
            parser=given_path,
        ),
    ] = None,
    zero_shot: Annotated[
        str | None,
        typer.Option("--zero-shot", metavar="PRODUCT", help="Learn from what the part is called, without a picture."),
    ] = None,
) -> None:
    """Learn from good pictures and save a model.

    GOOD is a folder of good pictures at any depth, a category folder (train/good inside), or a dataset with several
    categories, which makes one model for all of them. Pictures that repeat one another count once. Without GOOD,
    --zero-shot makes a model from the part's name; it ranks parts, and has no limit before `blemish calibrate`.
    """
    from blemish.cli.console import say, say_where
    from blemish.cli.progress import progress_bar
    from blemish.cli.scan_options import refuse_for_pictures, scan_geometry, stated_of_points
    from blemish.cli.settings import parse_ignored, parse_settings
    from blemish.cli.summaries import model_in_words, set_aside_in_words, standing_out_in_words
    from blemish.data import draw_shots
    from blemish.data.data_warnings import collected_warnings, summary
    from blemish.data.folder import find_normal
    from blemish.data.path_lists import expand_lists
    from blemish.model.model_folder import refuse_foreign
    from blemish.utils.atomic import check_writable

    check_one_source(paths, zero_shot)
    refuse_foreign(model)  # before anything is learned
    check_writable(model)
    earlier = earlier_model_in_words(model)
    if fast:
        image_size = fast_image_size(detector, image_size, zero_shot)
    if zero_shot is not None:
        of_pictures = {"--ignore": ignore, "--product": category, "--shots": shots, "--clean": clean}
        refuse_with_zero_shot(of_pictures | {"--cache": cache, "--assume-good": assume_good, "--pages": pages})
    chosen = parse_settings(settings or [])
    refuse_options_as_settings(chosen)
    ignored = parse_ignored(ignore or [])
    geometry = scan_geometry(intrinsics, depth_scale, mm_per_pixel, grid)
    with collected_warnings() as warnings:
        found = None
        if paths:
            found = find_normal(expand_lists(paths), assume_good=assume_good, pages=pages, category=category)
        samples = draw_shots(found.samples, shots, seed) if found else []

        from blemish.model.inspector import Inspector

        inspector = Inspector(
            encoder=encoder,
            detector=language_detector(prompts) if zero_shot is not None and detector == "auto" else detector,
            image_size=image_size,
            false_alarm_rate=false_alarm_rate,
            unsure_rate=unsure_rate,
            device=device.value,
            seed=seed,
            text_encoder=str(prompts.absolute()) if prompts else text_encoder,
            precision=precision.value if precision else "auto",
            bit_depth=bit_depth,
            units=units,
            geometry=geometry,
            **chosen,
        )
        check_readers(inspector, prompts, text_encoder)
        of_points = stated_of_points(units, intrinsics, depth_scale, mm_per_pixel, grid)
        refuse_for_pictures(of_points, inspector.detector.needs.modalities, samples)
        if zero_shot is not None:
            inspector.fit_zero_shot(zero_shot)
        else:
            with progress_bar("learning", len(samples)) as progress:
                inspector.fit(
                    samples,
                    category=category,
                    progress=progress,
                    clean=clean,
                    cache=cache,
                    assume_good=assume_good,
                    ignore=ignored,
                )
    inspector.save(model)
    for line in [*(found.contents.words() if found else ()), *summary(warnings)]:
        say(line, err=True)
    aside = set_aside_in_words(inspector) if clean else ()
    for line in [*model_in_words(inspector), *aside, *standing_out_in_words(inspector)]:
        say(line)
    say_where("Saved", model)
    if earlier:
        say(earlier)


def earlier_model_in_words(folder: Path) -> str:
    """Which model is in `folder` and will be replaced; empty where there is none."""
    from datetime import datetime

    from blemish.errors import ModelError
    from blemish.model.model_folder import SETTINGS, read_settings

    try:
        saved = (folder / SETTINGS).stat().st_mtime
    except OSError:
        return ""
    words = f"It replaces the model of {datetime.fromtimestamp(saved):%Y-%m-%d %H:%M}"
    try:
        found = read_settings(folder)
        return f"{words}, {found['detector']['name']} on {found['encoder']['name']}"
    except (ModelError, LookupError):
        return f"{words}, which could not be read"


def fast_image_size(detector: str, image_size: int | None, zero_shot: str | None) -> int:
    """The pixels of --fast. Raises SettingsError for a detector that has no such setting, or another size beside it."""
    from blemish.detectors.hybrid import FAST_IMAGE_SIZE

    if detector not in ("auto", "hybrid") or zero_shot is not None:
        what = "--zero-shot" if zero_shot is not None else f"the detector {detector}"
        raise SettingsError("--fast with the default detector", what, "name a smaller --image-size instead")
    if image_size is not None:
        raise SettingsError("--fast or --image-size", "both", "leave one out")
    return FAST_IMAGE_SIZE


def language_detector(prompts: Path | None) -> str:
    """What "auto" stands for where no picture is given."""
    return "winclip" if prompts is None else "anomalyclip"


def check_one_source(paths: Sequence[str] | None, zero_shot: str | None) -> None:
    """Raise SettingsError unless either good pictures or a product's name are given."""
    if bool(paths) == (zero_shot is not None):
        raise SettingsError(
            "good pictures, or --zero-shot with the name of a product",
            "both" if paths else "neither",
            "give one of them; with good pictures the name goes to --product",
        )


def refuse_options_as_settings(settings: Mapping[str, object]) -> None:
    """Raise SettingsError for one of the detector's `settings` that is an option of the command, whatever it names."""
    own = ("text_encoder", "precision", "bit_depth", "units")
    options = {name: f"--{name.replace('_', '-')}" for name in own} | {"geometry": "--intrinsics"}
    for name, option in options.items():
        if name in settings:
            raise SettingsError(f"{option} as an option of its own", f"--set {name}=…", f"use {option}")


def refuse_with_zero_shot(options: Mapping[str, object]) -> None:
    """Raise SettingsError for an option about pictures that is given; `options` are their values by name."""
    for option, value in options.items():
        if value not in (None, False, []):
            cure = "--zero-shot names the product" if option == "--product" else "no picture is read"
            raise SettingsError(f"{option} with good pictures", f"{option} with --zero-shot", f"leave it out: {cure}")


def check_readers(inspector: Inspector, prompts: Path | None, text_encoder: str) -> None:
    """Raise SettingsError for learned prompts or a text encoder that the chosen detector does not read."""
    needs, name = inspector.detector.needs, inspector.detector_name
    if prompts is not None and needs.prompts != "learned":
        raise SettingsError(
            "--prompts for a detector that reads them",
            f"--prompts with the detector {name}",
            "add --detector anomalyclip, or leave --prompts out",
        )
    if text_encoder == "auto":
        return
    if prompts is not None:
        raise SettingsError("--prompts or --text-encoder", "both", "leave --text-encoder out: the prompts are embedded")
    if needs.prompts is None or (needs.alignment is not None and needs.prompts != "learned"):
        reads = "reads no sentences" if needs.prompts is None else "reads sentences with its own encoder (--encoder)"
        raise SettingsError(
            "--text-encoder for a detector that takes one",
            f"--text-encoder with the detector {name}",
            f"leave it out: {name} {reads}",
        )
