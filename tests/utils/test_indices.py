"""Groups in the order of their first members; indices that reach from the first to the last."""

from __future__ import annotations

import pytest

from blemish.utils.indices import evenly_spaced, group_indices


def test_groups_keep_the_order_of_their_first_appearance() -> None:
    assert list(group_indices(["b", "a", "b", "", "a"]).items()) == [("b", [0, 2]), ("a", [1, 4]), ("", [3])]
    assert group_indices([]) == {}


@pytest.mark.parametrize(
    ("count", "most", "expected"), [(0, 3, []), (1, 3, [0]), (3, 5, [0, 1, 2]), (10, 4, [0, 3, 6, 9]), (10, 1, [0])]
)
def test_evenly_spaced_indices(count: int, most: int, expected: list[int]) -> None:
    assert evenly_spaced(count, most) == expected
