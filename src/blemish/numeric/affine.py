"""Affine maps of the plane as `(2, 3)` matrices that map (x, y, 1). numpy only."""

from __future__ import annotations

import numpy as np


def joined(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The map `before`, followed by the map `after`."""
    return np.column_stack([after[:, :2] @ before[:, :2], after[:, :2] @ before[:, 2] + after[:, 2]])


def inverse(matrix: np.ndarray) -> np.ndarray:
    """The map that undoes another, float64. Raises LinAlgError for one that maps the plane onto a line."""
    return np.asarray(np.linalg.inv(np.vstack([np.asarray(matrix, dtype=np.float64), [0, 0, 1]]))[:2])
