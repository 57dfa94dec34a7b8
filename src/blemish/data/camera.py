"""Cameras of depth images: read from the files that people have, and the points that one pixel of depth stands for.

Read are JSON and YAML files with fx, fy, cx, cy (or ppx, ppy, as RealSense's tools write them), OpenCV's and ROS'
camera_matrix, Open3D's intrinsic_matrix, HALCON's area_scan_division; and "fx,fy,cx,cy" as text. Points are in the
camera's frame: x to the right, y down, z the depth along the optical axis. Pixel centres lie at whole numbers.

Distortion: Brown, "Close-range camera calibration" (Photogrammetric Engineering 1971), as OpenCV numbers it; and the
division model of Fitzgibbon, "Simultaneous linear estimation of multiple view geometry and lens distortion" (CVPR
2001).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from blemish.errors import BlemishError, ImageError, SettingsError
from blemish.types import Camera
from blemish.utils.paths import expanded, shown

_KINDS = (
    "fx, fy, cx, cy; camera_matrix (OpenCV, ROS); intrinsic_matrix (Open3D); ppx, ppy (RealSense); "
    "area_scan_division (HALCON)"
)
_FORMS = "fx,fy,cx,cy in pixels, or a JSON or YAML file of them"
_LARGEST_FILE = 1 << 20  # bytes of a camera file
_MATRICES = ("camera_matrix", "intrinsic_matrix", "cameraMatrix", "K", "k")
_DISTORTIONS = ("distortion_coefficients", "dist_coeffs", "distCoeffs", "dist", "coeffs", "D", "d")
_WIDTHS, _HEIGHTS = ("width", "image_width"), ("height", "image_height")
_UNDISTORTED = ("", "none", "brown_conrady", "modified_brown_conrady", "plumb_bob", "rational_polynomial")
_ROUNDS = 50  # of Newton's method at most, which takes distortion away; lenses of 120 degrees need about 10
_RADII = 4096  # distances from the axis at which it is asked whether a lens bends directions back
_SETTLED = 1e-12  # largest step that ends it: nothing beside a pixel's direction of 1e-3 or so


def read_camera(given: str | Path) -> Camera:
    """The camera that "fx,fy,cx,cy" states, or a JSON or YAML file does. Raises SettingsError, which names the file."""
    text = str(given).strip()
    if not text:
        raise SettingsError(
            f"intrinsics as {_FORMS}", "an empty text", "write them (is a variable of your script unset?)"
        )
    numbers = text.split(",")
    if len(numbers) > 1 and not os.path.exists(expanded(text)):
        return _from_numbers(text, numbers)
    path = expanded(text)
    facts = _read_facts(path)
    try:
        found = _cameras_in(facts)
    except BlemishError as error:
        raise SettingsError(f"a camera in '{shown(path)}'; {error.expected}", error.got, error.do) from error
    except (TypeError, ValueError, KeyError, ArithmeticError) as error:
        raise SettingsError(f"a camera in '{shown(path)}'", f"a value that is none ({error})", "correct it") from error
    if len(found) != 1:
        raise SettingsError(
            f"one camera in '{shown(path)}' ({_KINDS})",
            f"{len(found)}: {', '.join(found)}" if found else "none",
            "keep the depth camera alone in the file"
            if found
            else "give the camera's own file, or --intrinsics fx,fy,cx,cy",
        )
    return next(iter(found.values()))


def camera_for(camera: Camera, height: int, width: int, name: str) -> Camera:
    """The camera as it sees at `height` x `width` pixels. Raises ImageError where that is no scaled copy of its own."""
    if camera.width is None or camera.height is None or (camera.width, camera.height) == (width, height):
        return camera
    across, down = width / camera.width, height / camera.height
    if abs(across - down) * max(camera.width, camera.height) > 1:
        raise ImageError(
            f"depth of the camera's {camera.width}x{camera.height} pixels, or scaled, in '{name}'",
            f"{width}x{height}",
            "give the intrinsics of the images as they were saved (a crop moves cx and cy)",
        )
    return replace(
        camera,
        fx=camera.fx * across,
        fy=camera.fy * down,
        cx=(camera.cx + 0.5) * across - 0.5,
        cy=(camera.cy + 0.5) * down - 0.5,
        width=width,
        height=height,
    )


@lru_cache(maxsize=2)
def directions(camera: Camera, height: int, width: int) -> np.ndarray:
    """x / z and y / z of what each pixel sees, `(height, width, 2)` float64, read-only: all depth images share it.

    Raises SettingsError for a distortion that no direction has in some pixel.
    """
    found = _directions(camera, height, width)
    found.flags.writeable = False
    return found


def _directions(camera: Camera, height: int, width: int) -> np.ndarray:
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))  # (height, width)
    seen = np.stack([(columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy], axis=-1)  # (h, w, 2)
    if camera.division:
        bent = camera.division * (seen**2).sum(axis=-1, keepdims=True)  # beyond ±1 pixels lie farther in, or behind
        return _checked_directions(seen / (1 + bent), bool((np.abs(bent) < 1).all()))
    if not any(camera.distortion):
        return seen
    straight = seen
    with np.errstate(all="ignore"):
        for _ in range(_ROUNDS):
            (xx, xy), (yx, yy) = _slopes(straight, camera.distortion)
            off_x, off_y = np.moveaxis(distorted(straight, camera.distortion) - seen, -1, 0)  # (h, w) each
            area = xx * yy - xy * yx
            step = np.stack([yy * off_x - xy * off_y, xx * off_y - yx * off_x], axis=-1) / area[..., None]
            straight = straight - step
            if not np.abs(step).max() > _SETTLED:
                break
        error = np.abs(distorted(straight, camera.distortion) - seen).max()
        is_bent_back = (np.linalg.norm(straight, axis=-1) > _farthest(camera.distortion, straight)).any()
    return _checked_directions(straight, bool(error * max(camera.fx, camera.fy) < 1e-3) and not is_bent_back)


def distorted(straight: np.ndarray, coefficients: Sequence[float]) -> np.ndarray:
    """Directions `(…, 2)` as a lens of OpenCV's coefficients k1, k2, p1, p2, k3, k4, k5, k6 bends them."""
    k1, k2, p1, p2, k3, k4, k5, k6 = (*coefficients, *(0.0,) * (8 - len(coefficients)))
    x, y = straight[..., 0], straight[..., 1]
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    bent_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    bent_y = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return np.stack([bent_x, bent_y], axis=-1)


def _slopes(
    straight: np.ndarray, coefficients: Sequence[float]
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """How `distorted` x and y of directions `(…, 2)` change with x and with y: ((dx/dx, dx/dy), (dy/dx, dy/dy))."""
    k1, k2, p1, p2, k3, k4, k5, k6 = (*coefficients, *(0.0,) * (8 - len(coefficients)))
    x, y = straight[..., 0], straight[..., 1]
    r2 = x * x + y * y
    above, below = 1 + r2 * (k1 + r2 * (k2 + r2 * k3)), 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    rise = (k1 + r2 * (2 * k2 + r2 * 3 * k3)) * below - above * (k4 + r2 * (2 * k5 + r2 * 3 * k6))
    radial, bend = above / below, 2 * rise / (below * below)
    both = x * y * bend + 2 * p1 * x + 2 * p2 * y
    return (radial + x * x * bend + 2 * p1 * y + 6 * p2 * x, both), (
        both,
        radial + y * y * bend + 6 * p1 * y + 2 * p2 * x,
    )


def _farthest(coefficients: Sequence[float], straight: np.ndarray) -> float:
    """The distance from the axis, in directions, up to which a lens bends those farther out farther out.

    Beyond it polynomials turn back, and what no lens sees would lie in the image. Looked for as far as `straight`
    `(…, 2)` go.
    """
    lengths = np.linalg.norm(straight, axis=-1)
    reach = float(np.max(lengths, initial=0.0, where=np.isfinite(lengths)))
    away = np.linspace(0, reach, _RADII)
    k1, k2, _, _, *others = (*coefficients, *(0.0,) * (8 - len(coefficients)))
    bent = distorted(np.stack([away, np.zeros(_RADII)], axis=-1), (k1, k2, 0.0, 0.0, *others))[:, 0]
    back = np.flatnonzero(~(np.diff(bent) > 0))
    return float(away[back[0]]) if len(back) else math.inf


def unprojected(depth: np.ndarray, camera: Camera, name: str) -> np.ndarray:
    """The points `(H, W, 3)` float64 at `depth` `(H, W)`, in its unit."""
    height, width = depth.shape
    sides = directions(camera_for(camera, height, width, name), height, width)  # (H, W, 2)
    return np.concatenate([sides * depth[..., None], depth[..., None]], axis=-1)


def projected(points: np.ndarray, camera: Camera, height: int, width: int, name: str) -> np.ndarray:
    """Which of the `points` `(N, 3)` each pixel sees, `(height, width)` int64: the nearest of those in it, -1 for none.

    For clouds that have lost their grid, seen from the camera's place. Points behind it and outside are not seen.
    """
    camera = camera_for(camera, height, width, name)
    numbers = np.flatnonzero(np.isfinite(points).all(axis=-1) & (points[:, 2] > 0))
    x, y, z = points[numbers].astype(np.float64).T  # (n,) each
    seen = _seen(np.stack([x / z, y / z], axis=-1), camera)  # (n, 2)
    with np.errstate(all="ignore"):
        columns, rows = np.rint(seen[:, 0] * camera.fx + camera.cx), np.rint(seen[:, 1] * camera.fy + camera.cy)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    order = np.flatnonzero(inside)[np.argsort(-z[inside], kind="stable")]  # the nearest is written last
    grid = np.full((height, width), -1, np.int64)
    grid[rows[order].astype(np.int64), columns[order].astype(np.int64)] = numbers[order]
    return grid


def _seen(straight: np.ndarray, camera: Camera) -> np.ndarray:
    """Directions `(n, 2)` as the lens bends them, NaN for those that it cannot see."""
    if camera.division:  # the inverse of s = d / (1 + κ |d|²)
        with np.errstate(invalid="ignore"):  # NaN, farther out than the lens sees
            root = np.sqrt(1 - 4 * camera.division * (straight**2).sum(axis=-1, keepdims=True))
        return np.asarray(2 * straight / (1 + root))
    if not any(camera.distortion):
        return straight
    with np.errstate(all="ignore"):
        is_seen = np.linalg.norm(straight, axis=-1, keepdims=True) <= _farthest(camera.distortion, straight)
        return np.where(is_seen, distorted(straight, camera.distortion), np.nan)


def _checked_directions(found: np.ndarray, is_right: bool) -> np.ndarray:
    if not is_right or not np.isfinite(found).all():
        raise SettingsError(
            "a lens distortion that can be taken out in every pixel",
            "coefficients that bend some pixels past one another",
            "check them, and that the intrinsics are in pixels",
        )
    return found


def _from_numbers(text: str, numbers: Sequence[str]) -> Camera:
    try:
        fx, fy, cx, cy = map(float, numbers)
    except ValueError as error:
        raise SettingsError(f"intrinsics as {_FORMS}", repr(text), "write four numbers") from error
    return Camera(fx=fx, fy=fy, cx=cx, cy=cy)


def _read_facts(path: Path) -> Any:
    """What a JSON or YAML file holds."""
    name = shown(path)
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise SettingsError(f"a camera in '{name}'", "a file of more than 1 MB", "give the file of intrinsics")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(
            f"intrinsics as fx,fy,cx,cy, or a JSON or YAML file at '{name}'",
            error.strerror or str(error),
            "check the path",
        ) from error
    except ValueError as error:
        raise SettingsError(f"JSON or YAML in '{name}'", "bytes that are no text", "give the camera's file") from error
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    import yaml  # here: the light runtime has none

    text = re.sub(r"^%YAML.*$|!!opencv-matrix", "", text, flags=re.MULTILINE)  # OpenCV's FileStorage
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingsError(f"JSON or YAML in '{name}'", " ".join(str(error).split())[:200], "correct it") from error


def _cameras_in(facts: Any) -> dict[str, Camera]:
    """The cameras of a file by their key: one at its top, else those one level deeper."""
    if not isinstance(facts, Mapping):
        return {}
    camera = _camera_of(facts)
    if camera is not None:
        return {"camera": camera}
    deeper = {str(key): _camera_of(value) for key, value in facts.items() if isinstance(value, Mapping)}
    return {key: camera for key, camera in deeper.items() if camera is not None}


def _camera_of(facts: Mapping[str, Any]) -> Camera | None:
    """The camera that a mapping describes in one of the known shapes, None where it describes none."""
    width, height = _whole(_first(facts, _WIDTHS)), _whole(_first(facts, _HEIGHTS))
    if "focus" in facts or "camera_type" in facts:
        return replace(_of_halcon(facts), width=width, height=height)
    bent = _distortion(facts)
    matrix = _first(facts, _MATRICES)
    if matrix is not None:
        fx, fy, cx, cy = _of_matrix(matrix)
        return Camera(fx=fx, fy=fy, cx=cx, cy=cy, distortion=bent, width=width, height=height)
    centre = ("cx", "cy") if "cx" in facts else ("ppx", "ppy")
    names = ("fx", "fy", *centre)
    if not any(name in facts for name in ("fx", "fy")):
        return None
    if lacking := [name for name in names if name not in facts]:
        raise SettingsError("fx, fy, cx, cy in pixels", f"none called {', '.join(lacking)}", "add it to the file")
    fx, fy, cx, cy = (float(facts[name]) for name in names)
    return Camera(fx=fx, fy=fy, cx=cx, cy=cy, distortion=bent, width=width, height=height)


def _of_halcon(facts: Mapping[str, Any]) -> Camera:
    """HALCON's area_scan_division: focus, sx and sy in metres, kappa in 1/m²."""
    kind = str(facts.get("camera_type", "area_scan_division"))
    if kind != "area_scan_division":
        raise SettingsError("a camera of the type area_scan_division", repr(kind), "give its intrinsics in pixels")
    focus, kappa, sx, sy = (float(facts[name]) for name in ("focus", "kappa", "sx", "sy"))
    return Camera(
        fx=focus / sx,
        fy=focus / sy,
        cx=float(facts["cx"]),
        cy=float(facts["cy"]),
        division=kappa * focus**2,
    )


def _of_matrix(matrix: Any) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy of a matrix of nine numbers by rows, or by columns, as Open3D writes it."""
    values = np.asarray(matrix["data"] if isinstance(matrix, Mapping) else matrix, dtype=np.float64).reshape(-1)
    if values.shape != (9,):
        raise SettingsError("a camera matrix of 3 x 3 numbers", f"{values.size}", "correct the file")
    rows = values.reshape(3, 3)
    if not np.array_equal(rows[2], (0, 0, 1)):
        rows = rows.T
    if not np.array_equal(rows[2], (0, 0, 1)) or rows[1, 0] or rows[0, 1]:
        raise SettingsError("a camera matrix [fx 0 cx; 0 fy cy; 0 0 1]", f"{values.tolist()}", "correct the file")
    return float(rows[0, 0]), float(rows[1, 1]), float(rows[0, 2]), float(rows[1, 2])


def _distortion(facts: Mapping[str, Any]) -> tuple[float, ...]:
    """The coefficients that a mapping states. Raises SettingsError for a model that is not known, unless all are 0."""
    stated = _first(facts, _DISTORTIONS)
    if stated is None:
        return ()
    values = np.asarray(stated["data"] if isinstance(stated, Mapping) else stated, dtype=np.float64).reshape(-1)
    if not values.any():
        return ()
    model = re.sub(r"\W+", "_", str(facts.get("model", facts.get("distortion_model", ""))).lower().split(".")[-1])
    if model not in _UNDISTORTED or len(values) > 8:
        raise SettingsError(
            "distortion by Brown and Conrady, up to 8 coefficients",
            f"the model {model!r}" if model not in _UNDISTORTED else f"{len(values)} coefficients",
            "undistort the depth images first, and give intrinsics without distortion",
        )
    return tuple(values.tolist())


def _first(facts: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((facts[name] for name in names if name in facts), None)


def _whole(value: Any) -> int | None:
    number = None if value is None else float(value)
    return int(number) if number is not None and math.isfinite(number) and number >= 1 else None
