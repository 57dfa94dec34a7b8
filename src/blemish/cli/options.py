"""Options that several commands share; the names to choose from come from the registry."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from blemish.registry import DETECTORS, ENCODERS


class Device(StrEnum):
    """Where the encoder runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


ModelFolder = Annotated[Path, typer.Argument(metavar="MODEL", help="A folder that `blemish fit` made.")]
Out = Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="The folder that the results go into.")]
EncoderName = Annotated[
    str, typer.Option("--encoder", metavar="NAME|FOLDER", help=f"auto, a folder, or one of: {', '.join(ENCODERS)}.")
]
DetectorName = Annotated[
    str, typer.Option("--detector", metavar="NAME", help=f"auto, or one of: {', '.join(DETECTORS)}.")
]
DetectorNames = Annotated[
    list[str], typer.Option("--detector", metavar="D ...", help=f"auto, or some of: {', '.join(DETECTORS)}.")
]
ImageSize = Annotated[
    int | None,
    typer.Option("--image-size", metavar="N", min=1, help="Short side in pixels; the detector's own if unset."),
]
Category = Annotated[str | None, typer.Option("--category", metavar="NAME", help="The kind of part, if you know it.")]
DeviceName = Annotated[Device, typer.Option("--device", help="Where the encoder runs.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE ...", help="A setting of the detector, such as depth=4; may be repeated."),
]
TextEncoderName = Annotated[
    str,
    typer.Option(
        "--text-encoder", metavar="NAME|FOLDER", help="What reads sentences, for detectors that learn from them."
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option("--cache", metavar="DIR", help="Keep features here, in float16, for learning from the same pictures."),
]
FalseAlarmRate = Annotated[
    float, typer.Option("--false-alarm-rate", metavar="F", help="The share of good parts that may be called defective.")
]

_SEVERAL = {
    "--shots": re.compile(r"(\d+|all)(,(\d+|all))*"),
    "--seeds": re.compile(r"\d+(,\d+)*"),
    "--set": re.compile(r"[A-Za-z_][\w-]*=.*", re.DOTALL),
    "--detector": re.compile("|".join(map(re.escape, ["auto", *DETECTORS]))),
    "--encoder": re.compile("|".join(map(re.escape, ["auto", "all", *ENCODERS]))),
    "--category": re.compile(r"(?!-)(?!\.{1,2}$)[^/\\]+"),
}


class SeveralValues(TyperCommand):
    """A command whose repeatable options also take several values at once: `--shots 1 4` is `--shots 1 --shots 4`.

    That reading is open where paths come first, as in the usage line; before the paths an option takes one value.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        repeatable = {name for p in self.params if getattr(p, "multiple", False) for name in p.opts}
        return super().parse_args(ctx, spread(args, repeatable))


def spread(args: list[str], repeatable: set[str]) -> list[str]:
    """Repeat an option's name before each further value that follows it."""
    if not args or args[0].startswith("-"):
        return args
    out: list[str] = []
    option, values = "", 0
    for arg in args:
        if arg.startswith("-") and arg != "-":
            option, values = arg, 0
        elif option in repeatable and option in _SEVERAL:
            values += 1
            if values > 1:
                if _SEVERAL[option].fullmatch(arg):
                    out.append(option)
                else:
                    option = ""
        out.append(arg)
    return out
