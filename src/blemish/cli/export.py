"""`blemish export`: a fitted model as a bundle that inspects without torch."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from blemish.cli.options import given_path
from blemish.errors import SettingsError


class Format(StrEnum):
    """Graph formats, by the engine that runs them."""

    onnx = "onnx"
    openvino = "openvino"


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder of `blemish fit`.", parser=given_path)],
    out: Annotated[
        Path, typer.Option("-o", "--output", metavar="BUNDLE", help="The folder of the bundle.", parser=given_path)
    ],
    format: Annotated[
        Format, typer.Option("--format", help="onnx runs everywhere; openvino on Intel and AMD.")
    ] = Format.onnx,
    int8: Annotated[
        bool, typer.Option("--int8", help="Linear layers of a transformer in 8 bits: a smaller file.")
    ] = False,
    opset: Annotated[int, typer.Option("--opset", metavar="18|21", help="Of ONNX; 18 is read by older engines.")] = 18,
    category: Annotated[
        str | None, typer.Option("--category", metavar="NAME", help="Of a model of several; a bundle holds one.")
    ] = None,
    picture: Annotated[
        list[str] | None,
        typer.Option("--picture", metavar="WxH", help="A size of the pictures, where the good ones had several."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Export although results differ by more than the limits.")
    ] = False,
) -> None:
    """Export a model as a bundle: graphs, thresholds and preprocessing in one folder, for blemish-runtime.

    The bundle is compared with the model on its good pictures and on made-up defects, and refused where it would answer
    differently.
    """
    from blemish import Inspector
    from blemish.cli.console import say, say_where
    from blemish.cli.progress import progress_bar
    from blemish.export.bundle import ExportSettings, export_bundle

    settings = ExportSettings(
        format=format.value,
        opset=opset,
        int8=int8,
        category=category,
        pictures=tuple(size_in(text) for text in picture or ()),
        force=force,
    )
    fitted = Inspector.load(model, device="cpu").model_
    with progress_bar("exporting", None) as progress:
        parity = export_bundle(fitted, out, settings, progress)
    say(parity.words)
    say_where("Bundle", out)


def size_in(text: str) -> tuple[int, int]:
    """Width and height in "640x480". Raises SettingsError for anything else."""
    match = re.fullmatch(r"([1-9]\d{0,5})[x×]([1-9]\d{0,5})", text.strip().lower())
    if match is None:
        raise SettingsError("a size in pixels such as 640x480", repr(text), "give width x height")
    return int(match[1]), int(match[2])
