"""What the command line says about how scans were measured, as a `ScanGeometry`."""

from __future__ import annotations

import re
from math import isclose
from typing import TYPE_CHECKING

from blemish.errors import SettingsError
from blemish.types import POINTS, RGB, UNITS, ScanGeometry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blemish.model.inspector import Inspector
    from blemish.types import Sample


def scan_geometry(
    intrinsics: str | None = None,
    depth_scale: float | None = None,
    mm_per_pixel: str | None = None,
    grid: str | None = None,
) -> ScanGeometry | None:
    """The geometry that options state, None where none is given. Raises SettingsError."""
    if (intrinsics, depth_scale, mm_per_pixel, grid) == (None,) * 4:
        return None
    from blemish.data.camera import read_camera

    return ScanGeometry(
        camera=None if intrinsics is None else read_camera(intrinsics),
        depth_scale=depth_scale,
        mm_per_pixel=None if mm_per_pixel is None else parse_steps(mm_per_pixel),
        grid=None if grid is None else parse_grid(grid),
    )


def parse_steps(text: str) -> tuple[float, float, float]:
    """ "0.1,0.1,0.01" as numbers. Raises SettingsError."""
    try:
        x, y, z = map(float, text.split(","))
    except ValueError as error:
        raise SettingsError(
            "--mm-per-pixel as x,y,z: the millimetres of a column, a row and a level", repr(text), "write three numbers"
        ) from error
    return x, y, z


def parse_pixel(text: str | None) -> tuple[float | None, str | None]:
    """What `blemish inspect --mm-per-pixel` states: the size of a pixel, and the steps of height maps, if it has three.

    The size is that of a column where a row is as much. Raises SettingsError.
    """
    if text is None:
        return None, None
    if "," in text:
        x, y, _ = parse_steps(text)
        return (x if x == y else None), text
    try:
        return float(text), None
    except ValueError as error:
        raise SettingsError(
            "--mm-per-pixel as one number, or as x,y,z of height maps", repr(text), "correct it"
        ) from error


def refuse_without_model(stated: Mapping[str, object]) -> None:
    """Raise SettingsError for what is stated about points where there is no model, which judges pictures alone."""
    for option, value in stated.items():
        if value is not None:
            raise SettingsError(f"{option} with a model", "--no-model", "leave it out: points are not looked at")


def stated_of_points(
    units: str | None, intrinsics: str | None, depth_scale: float | None, mm_per_pixel: str | None, grid: str | None
) -> dict[str, object]:
    """What `refuse_for_pictures` looks at, of a command all of whose options of this kind are about points."""
    return {
        "--units": units,
        "--intrinsics": intrinsics,
        "--depth-scale": depth_scale,
        "--mm-per-pixel": mm_per_pixel,
        "--grid": grid,
    }


def refuse_for_pictures(stated: Mapping[str, object], modalities: Sequence[str], samples: Sequence[Sample]) -> None:
    """Raise SettingsError for what is `stated` about points where none are looked at.

    A model of pictures alone reads points, too, where their file's colours are the picture.
    """
    if POINTS in modalities or not samples or any(sample.image is None for sample in samples):
        return
    for option, value in stated.items():
        if value is not None:
            raise SettingsError(
                f"{option} with a detector of pictures and points",
                f"{option} with one that looks at pictures alone",
                f"leave {option} out, or fit with a detector of scans, such as --detector cfm",
            )


def measured_in_words(inspector: Inspector, samples: Sequence[Sample]) -> list[str]:
    """How a model takes the points of `samples` to have been measured; nothing where nothing was stated at all."""
    settings = inspector.model_.settings
    if not any(sample.points is not None for sample in samples) or inspector.model_.modalities == (RGB,):
        return []
    stated = stated_in_words(settings.units, settings.geometry)
    return [f"Points are taken as the model learned them: {stated}"] if stated else []


def stated_in_words(units: str | None, geometry: ScanGeometry | None) -> str:
    """How points are stated to have been measured; "" where nothing is."""
    return "; ".join(filter(None, [f"in {units}" if units else "", geometry.words() if geometry else ""]))


def parse_grid(text: str) -> tuple[int, int]:
    """ "640x480" as width and height. Raises SettingsError."""
    match = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", text.strip().lower())
    if match is None:
        raise SettingsError("--grid as WIDTHxHEIGHT, such as 640x480", repr(text), "correct it")
    return int(match[1]), int(match[2])


def check_stated(inspector: Inspector, units: str | None, geometry: ScanGeometry | None) -> None:
    """Raise SettingsError where options contradict what a model learned with."""
    settings = inspector.model_.settings
    if None not in (units, settings.units) and units != settings.units:
        raise SettingsError(
            f"points in {settings.units}, as the model learned", f"--units {units}", "leave it out, or fit a new model"
        )
    if geometry is None or settings.geometry is None:
        return
    kinds = [
        (own.camera is not None or own.depth_scale is not None, own.mm_per_pixel is not None)
        for own in (geometry, settings.geometry)
    ]
    is_other = sorted(kinds) == [(False, True), (True, False)]
    if not is_other:  # what is not stated now is as the model learned it
        learned = metres_a_level(settings.units, settings.geometry)
        level = metres_a_level(units or settings.units, geometry.or_else(settings.geometry))
        is_other = learned is not None and level is not None and not isclose(level, learned)
    if is_other or geometry.contradictions(settings.geometry):
        raise SettingsError(
            f"scans measured as those that the model learned ({stated_in_words(settings.units, settings.geometry)})",
            stated_in_words(units, geometry),
            "leave it out, or fit a new model for the other camera",
        )


def metres_a_level(units: str | None, geometry: ScanGeometry) -> float | None:
    """What one level of a depth image is, in metres; None where that is not stated."""
    if geometry.camera is None or (units is None and geometry.depth_scale is None):
        return None
    return (1.0 if geometry.depth_scale is None else geometry.depth_scale) * UNITS[units or "m"]
