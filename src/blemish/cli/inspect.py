"""`blemish inspect`: score images with a saved model, write results, overlays and a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blemish.cli.options import (
    SOME_UNREADABLE,
    Category,
    DepthScale,
    Device,
    DeviceName,
    Grid,
    InspectedPaths,
    Intrinsics,
    ModelFolder,
    Out,
    Pages,
    Units,
)
from blemish.errors import SettingsError

if TYPE_CHECKING:
    from blemish.cli.inspection import Inspection
    from blemish.cli.result_folder import Wanted
    from blemish.types import ScanGeometry

NOT_ALL_GOOD = 1  # exit code


def inspect(
    model: ModelFolder,
    out: Out,
    paths: InspectedPaths = None,
    no_model: Annotated[
        bool,
        typer.Option(
            "--no-model", help="Inspect without a model: the pictures judge one another. MODEL is then the first PATH."
        ),
    ] = False,
    category: Category = None,
    maps: Annotated[
        bool, typer.Option("--maps", help="Write every score map to maps/ as a float32 .npy of the picture's size.")
    ] = False,
    no_overlays: Annotated[bool, typer.Option("--no-overlays", help="Draw no overlays.")] = False,
    fail_on_defect: Annotated[
        bool, typer.Option("--fail-on-defect", help="End with exit code 1 unless every picture is good.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Remove the results that are in OUT already, and inspect all anew.")
    ] = False,
    append: Annotated[
        bool, typer.Option("--append", help="Keep the results of other pictures that are in OUT already.")
    ] = False,
    false_discovery_rate: Annotated[
        float | None,
        typer.Option(
            "--false-discovery-rate",
            metavar="Q",
            help="Mark as alarms as many pictures as possible of which about a share Q is good; column alarm.",
        ),
    ] = None,
    pages: Pages = False,
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder",
            metavar="NAME|FOLDER",
            help="Where the weights of the model's encoder lie now, if they have moved; with --no-model: which to use.",
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", metavar="N", min=1, help="With --no-model: short side in pixels."),
    ] = None,
    expected_defects: Annotated[
        float | None,
        typer.Option(
            "--expected-defects", metavar="D", help="With --no-model: the share of defective pictures; 0.1 if unset."
        ),
    ] = None,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(
            "--false-alarm-rate",
            metavar="F",
            help="With --no-model: the share of good parts that may be called defective; 0.05 if unset.",
        ),
    ] = None,
    unsure_rate: Annotated[
        float | None,
        typer.Option(
            "--unsure-rate",
            metavar="U",
            help="With --no-model: the further share of good parts that may be left to a person.",
        ),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option("--language", metavar="NAME", help="What regions are described in, such as de; en if unset."),
    ] = None,
    mm_per_pixel: Annotated[
        str | None,
        typer.Option(
            "--mm-per-pixel",
            metavar="MM|X,Y,Z",
            help="The size of a pixel, to state the size of regions in mm; or the millimetres of a column, a row and a "
            "level of height maps.",
        ),
    ] = None,
    defect_names: Annotated[
        str | None,
        typer.Option(
            "--defect-names",
            metavar="WORDS",
            help="Call regions by these names of defects where one fits, such as scratch,dent,stain.",
        ),
    ] = None,
    names_encoder: Annotated[
        str | None,
        typer.Option(
            "--names-encoder",
            metavar="NAME|FOLDER",
            help="With --defect-names: the encoder that reads words; the first that loads if unset.",
        ),
    ] = None,
    vlm: Annotated[
        str | None,
        typer.Option(
            "--vlm",
            metavar="NAME|FOLDER",
            help="A vision-language model on this machine that may word the reasons; slow, off if unset.",
        ),
    ] = None,
    units: Units = None,
    intrinsics: Intrinsics = None,
    depth_scale: DepthScale = None,
    grid: Grid = None,
    device: DeviceName = Device.auto,
) -> None:
    """Inspect pictures with a model; writes results.jsonl, results.csv, overlays/ and report.html into OUT.

    Results are written while they come. The same command again goes on where the last one stopped: pictures that this
    model has inspected already, and that have not changed, are skipped. Where OUT holds results of other pictures, say
    --append, which keeps them, or --restart, which removes them.

    A picture and the points measured with it are one scan: part7.png beside part7.ply, or the two named together. How
    scans were measured (--units, --intrinsics, …) is in the model, and needs to be stated only where it is not.

    With --no-model no good picture is needed: blemish inspect --no-model FOLDER -o OUT. Most of the pictures must be
    good; a defect that many of them share looks normal.

    Exit code 0: all inspected; 1: --fail-on-defect, and a picture is not good (defective, unsure or an unknown part);
    2: wrong usage; 3: some pictures could not be read (they are named, all others are done; this goes before 1).
    """
    from blemish.cli.console import say
    from blemish.cli.mutual import MutualOptions, inspect_without_model
    from blemish.cli.result_folder import Wanted, check_choice, result_folder
    from blemish.cli.results import mark_alarms
    from blemish.cli.scan_options import parse_pixel, refuse_without_model, scan_geometry
    from blemish.scoring.describe import count_in_words
    from blemish.scoring.false_discovery import benjamini_hochberg
    from blemish.types import check_units

    check_choice(restart, append)
    if false_discovery_rate is not None:
        benjamini_hochberg([], false_discovery_rate)  # refuses an impossible rate before anything is read
    wanted = Wanted(overlays=not no_overlays, maps=maps, restart=restart, append=append)
    options = MutualOptions(
        encoder=encoder,
        image_size=image_size,
        expected_defects=expected_defects,
        false_alarm_rate=false_alarm_rate,
        unsure_rate=unsure_rate,
    )
    check_units(units)  # only scans are measured by them, but a mistake is one whatever comes
    pixel, steps = parse_pixel(mm_per_pixel)
    geometry = scan_geometry(intrinsics, depth_scale, steps, grid)
    reasons = {
        "language": language,
        "mm_per_pixel": pixel,
        "defect_names": None if defect_names is None else defect_names.split(",") if defect_names.strip() else [],
        "names_encoder": names_encoder,
        "vlm": vlm,
    }
    check_reasons(reasons)
    if no_model:
        refuse_without_model({"--units": units, "how scans were measured": geometry})
        done = inspect_without_model(
            out,
            [str(model), *(paths or ())],
            options,
            category=category,
            wanted=wanted,
            pages=pages,
            device=device.value,
            reasons=reasons,
        )
    else:
        options.refuse_with_model()
        done = inspect_by_model(
            out,
            model,
            paths or (),
            category=category,
            wanted=wanted,
            pages=pages,
            device=device.value,
            encoder=encoder,
            reasons=reasons,
            units=units,
            geometry=geometry,
        )
    done.say(out)
    if false_discovery_rate is not None:
        with result_folder(out):
            alarms = mark_alarms(out, false_discovery_rate)
        say(f"{count_in_words(alarms, 'alarm')} of which at most {100 * false_discovery_rate:g} % should be good parts")
    if done.failures:
        raise typer.Exit(SOME_UNREADABLE)
    if fail_on_defect and not done.all_good:
        raise typer.Exit(NOT_ALL_GOOD)


def check_reasons(reasons: Mapping[str, Any]) -> None:
    """Raise SettingsError for a way to describe regions that there is none of, before anything is read."""
    from blemish.model.defect_names import checked_names
    from blemish.model.reasons import ReasonSettings
    from blemish.model.vlm import find_vlm

    ReasonSettings(**{name: reasons[name] for name in ("language", "mm_per_pixel") if reasons[name] is not None})
    if reasons["defect_names"] is not None:
        checked_names(reasons["defect_names"])
    elif reasons["names_encoder"] is not None:
        raise SettingsError("--names-encoder together with --defect-names", "the encoder alone", "add --defect-names")
    if reasons["vlm"] is not None:
        find_vlm(reasons["vlm"])


def inspect_by_model(
    out: Path,
    model: Path,
    paths: Sequence[str],
    *,
    category: str | None,
    wanted: Wanted,
    pages: bool,
    device: str,
    encoder: str | None,
    reasons: Mapping[str, Any],
    units: str | None = None,
    geometry: ScanGeometry | None = None,
) -> Inspection:
    """Inspect the pictures at `paths` with a saved model and write everything into `out`.

    `reasons` is how regions are described: what `Inspector.with_reasons` takes, None for what is not said.
    """
    from blemish.cli.console import say
    from blemish.cli.inspection import Job, inspect_into
    from blemish.cli.result_folder import Origin
    from blemish.cli.scan_options import check_stated, measured_in_words, refuse_for_pictures
    from blemish.data.data_warnings import collected_warnings
    from blemish.data.folder import find_inspection
    from blemish.data.path_lists import expand_lists
    from blemish.model.inspector import Inspector
    from blemish.model.model_folder import read_settings
    from blemish.types import ScanGeometry

    if not paths:
        raise SettingsError(
            "pictures to inspect after the model", "the model alone", "name them, or give --no-model to inspect without"
        )
    with collected_warnings() as warnings:
        found = find_inspection(expand_lists(list(paths)), pages=pages)
        state = read_settings(model)["settings_sha256"]  # before it is loaded: it may be replaced meanwhile
        inspector = Inspector.load(model, device=device, encoder=encoder)
        inspector.model_.check_category(category)
        check_stated(inspector, units, geometry)
        own = geometry or ScanGeometry()  # its steps of pixels say how large regions are, too
        of_points = {"--units": units, "--intrinsics": own.camera, "--depth-scale": own.depth_scale, "--grid": own.grid}
        refuse_for_pictures(of_points, inspector.model_.modalities, found.samples)
        for line in measured_in_words(inspector, found.samples):
            say(line, err=True)
        inspector = inspector.with_reasons(**{name: value for name, value in reasons.items() if value is not None})
        job = Job(
            samples=[sample.measured_by(units, geometry) for sample in found.samples],
            title=model.name,
            origin=Origin(
                model=state,
                category=category,
                units=units,
                geometry=geometry,
                **reasons,
            ),
            wanted=wanted,
            contents=found.contents,
            warnings=warnings,
        )
        return inspect_into(out, inspector, job)
