from __future__ import annotations

import numpy as np

from blemish.numeric.affine import inverse, joined


def mapped(matrix: np.ndarray, x: float, y: float) -> np.ndarray:
    return np.asarray(matrix[:, :2] @ [x, y] + matrix[:, 2])


def test_joined_maps_are_one_after_the_other_and_an_inverse_undoes_its_map() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        after, before = random.normal(size=(2, 2, 3))
        x, y = random.normal(size=2)
        np.testing.assert_allclose(mapped(joined(after, before), x, y), mapped(after, *mapped(before, x, y)))
        np.testing.assert_allclose(mapped(inverse(before), *mapped(before, x, y)), (x, y), atol=1e-9)
        np.testing.assert_allclose(joined(inverse(after), after), np.eye(3)[:2], atol=1e-9)
