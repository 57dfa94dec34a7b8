"""Options and an exit code that several commands share; the names to choose from come from the registry."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from blemish.errors import SettingsError
from blemish.registry import DETECTORS, ENCODERS
from blemish.utils.paths import expanded

SOME_UNREADABLE = 3  # exit code of a command that went on without files that cannot be read


class Device(StrEnum):
    """Where the encoder runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class PrecisionName(StrEnum):
    """The number format that the encoder computes in."""

    fp32 = "fp32"
    bf16 = "bf16"


class CellEngine(StrEnum):
    """What independent pieces of work, such as the runs of an evaluation, are done by."""

    serial = "serial"
    local = "local"
    ray = "ray"


def given_path(text: str | Path) -> Path:
    """A path as it was typed, "~" expanded; an empty one (an unset variable of a shell) is a SettingsError."""
    if isinstance(text, Path):  # an option's default
        return text
    if not text.strip():
        raise SettingsError("a path", "an empty one", "check the variable that should hold it")
    return expanded(text)


ModelFolder = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A folder that `blemish fit` made.", parser=given_path)
]
Out = Annotated[
    Path,
    typer.Option("-o", "--output", metavar="OUT", help="The folder that the results go into.", parser=given_path),
]
# Text: @LIST and - are no paths, and an empty path, which `Path` takes for the current folder, is refused.
InspectedPaths = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PATH", help="Pictures, folders of pictures, a dataset; @FILE: a list of such paths; -: one from stdin."
    ),
]
NormalPaths = Annotated[
    list[str],
    typer.Argument(
        metavar="GOOD", help="Good pictures, folders of them, a dataset; @FILE: a list of such paths; -: from stdin."
    ),
]
Pages = Annotated[
    bool, typer.Option("--pages", help="Read every page of files that hold several, not the first alone.")
]
AssumeGood = Annotated[
    bool, typer.Option("--assume-good", help="Take all pictures for good, whatever the names of their folders say.")
]
ModelEncoder = Annotated[
    str | None,
    typer.Option(
        "--encoder", metavar="NAME|FOLDER", help="Where the weights of the model's encoder lie now, if they have moved."
    ),
]
Precision = Annotated[
    PrecisionName | None,
    typer.Option("--precision", help="The number format to compute in; the model's own if unset."),
]
BitDepth = Annotated[
    int | None,
    typer.Option(
        "--bit-depth", metavar="N", help="Bits that the camera fills in files of 16 bits; found out if unset."
    ),
]
Units = Annotated[
    str | None,
    typer.Option(
        "--units",
        metavar="UNIT",
        help="What measured points are in: m, cm, mm, um, in; metres, if they can be, if unset.",
    ),
]
Intrinsics = Annotated[
    str | None,
    typer.Option(
        "--intrinsics",
        metavar="FILE|FX,FY,CX,CY",
        help="The camera of depth pictures, in pixels: four numbers, or a JSON or YAML file of OpenCV, ROS, Open3D, "
        "RealSense or HALCON.",
    ),
]
DepthScale = Annotated[
    float | None,
    typer.Option(
        "--depth-scale",
        metavar="S",
        help="What one level of depth pictures is, in the unit of --units; metres if unset.",
    ),
]
MmPerStep = Annotated[
    str | None,
    typer.Option(
        "--mm-per-pixel", metavar="X,Y,Z", help="The millimetres of a column, a row and a level of height maps."
    ),
]
Grid = Annotated[
    str | None,
    typer.Option("--grid", metavar="WxH", help="The size of the scan in clouds of points that do not state it."),
]
EncoderName = Annotated[
    str, typer.Option("--encoder", metavar="NAME|FOLDER", help=f"auto, a folder, or one of: {', '.join(ENCODERS)}.")
]
DetectorName = Annotated[
    str, typer.Option("--detector", metavar="NAME", help=f"auto, or one of: {', '.join(DETECTORS)}.")
]
DetectorNames = Annotated[
    list[str], typer.Option("--detector", metavar="D,D", help=f"auto, or some of: {', '.join(DETECTORS)}.")
]
ImageSize = Annotated[
    int | None,
    typer.Option("--image-size", metavar="N", min=1, help="Short side in pixels; the detector's own if unset."),
]
Category = Annotated[
    str | None,
    typer.Option("--category", "--product", metavar="NAME", help="What the part is called, if you know it."),
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore",
        metavar="[NAME=]MASK|X,Y,W,H",
        help="What not to judge: a mask, white there, or a box in pixels or percent, such as 10%,5%,20%,8%; of the "
        "product NAME alone where it is given; may be repeated.",
    ),
]
DeviceName = Annotated[Device, typer.Option("--device", help="Where the encoder runs.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE,…", help="Settings of the detector, such as depth=4; may be repeated."),
]
ExperimentSettings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE,…", help="Further options of the experiment; may be repeated."),
]
PretrainingSettings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE,…", help="Settings of how the network learns; may be repeated."),
]
TextEncoderName = Annotated[
    str,
    typer.Option(
        "--text-encoder", metavar="NAME|FOLDER", help="What reads sentences, for detectors that learn from them."
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="Keep features here, in float16, for learning from the same pictures.",
        parser=given_path,
    ),
]
FalseAlarmRate = Annotated[
    float, typer.Option("--false-alarm-rate", metavar="F", help="The share of good parts that may be called defective.")
]
UnsureRate = Annotated[
    float | None,
    typer.Option(
        "--unsure-rate",
        metavar="U",
        help="The further share of good parts that may be left to a person; 0.03 if unset, 0.1 for one picture.",
    ),
]
CellEngineName = Annotated[
    CellEngine,
    typer.Option("--engine", help="serial: one run after the other; local: processes; ray: tasks of a Ray cluster."),
]
CellWorkers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", min=1, help="With --engine local: processes; half the cores if unset."),
]
