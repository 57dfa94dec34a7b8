"""Measured points as a shaded relief (hillshade): the bare shape under a lamp at the upper left.

Horn: Hill shading and the reflectance map, Proceedings of the IEEE 69(1), 1981; here on normals of the organised cloud.
"""

from __future__ import annotations

import numpy as np

from blemish.errors import ImageError

# Chosen by eye, as all of its colours.
_LAMP = np.array([-0.55, -0.55, -0.63])  # towards the lamp, from the surface; x right, y down, z away from the camera
_FAR, _NEAR = np.array([176.0, 180.0, 186.0]), np.array([255.0, 246.0, 232.0])
_HOLE = (24, 27, 32)


def shaded_relief(points: np.ndarray) -> np.ndarray:
    """An organised cloud `(H, W, 3)` in any unit as an image `(H, W, 3)` uint8; nearer places are a little warmer.

    Where nothing was measured (NaN, infinite, or all zero) the relief is dark. Raises ImageError for other shapes.
    """
    points = np.asarray(points)
    if points.ndim != 3 or points.shape[2] != 3 or 0 in points.shape:
        raise ImageError("points (H, W, 3)", f"{points.shape}", "give an organised cloud")
    points = points.astype(np.float64)
    known = np.isfinite(points).all(-1) & points.any(-1)
    relief = np.empty(points.shape, np.uint8)
    relief[:] = _HOLE
    if not known.any():
        return relief
    points[~known] = np.nan
    facing = _normals(points) @ (_LAMP / np.linalg.norm(_LAMP))  # (H, W), cosine of the angle to the lamp
    shade = np.clip(0.18 + 0.95 * np.nan_to_num(np.clip(facing, 0, 1), nan=0.3), 0, 1)
    depth = points[..., 2]
    near, far = np.percentile(depth[known], [1, 99])
    height = np.clip((far - depth) / max(far - near, 1e-9), 0, 1)[..., None]  # (H, W, 1), NaN in holes
    colour = (_FAR + height * (_NEAR - _FAR)) * shade[..., None]  # (H, W, 3)
    relief[known] = np.round(colour[known]).astype(np.uint8)
    return relief


def _normals(points: np.ndarray) -> np.ndarray:
    """Unit normals `(H, W, 3)` towards the camera, by differences with whichever neighbours were measured."""
    across, down = _slope(points, 1), _slope(points, 0)
    normals = np.cross(across, down)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    normals = normals / np.where(length > 0, length, np.nan)
    return np.where(normals[..., 2:] > 0, -normals, normals)


def _slope(points: np.ndarray, axis: int) -> np.ndarray:
    """Differences `(H, W, 3)` along an axis: central where both neighbours were measured, else one-sided, else NaN."""
    step = np.full_like(points, np.nan)
    if points.shape[axis] < 2:
        return step
    ahead = np.moveaxis(np.diff(points, axis=axis), axis, 0)
    out = np.moveaxis(step, axis, 0)
    out[:-1] = ahead
    both = np.isfinite(out[1:]) & np.isfinite(ahead)
    out[1:] = np.where(both, (out[1:] + ahead) / 2, np.where(np.isfinite(ahead), ahead, out[1:]))
    return step
