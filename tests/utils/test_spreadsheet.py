from __future__ import annotations

import json
from typing import Any

import pytest

from blemish.utils.spreadsheet import cell


@pytest.mark.parametrize("text", ["=1+1", "+1", "-2.png", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"])
def test_no_text_becomes_a_formula(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["a=1", "", " =1", "part-2.png", -1.5, 3, None])
def test_other_text_and_numbers_stay(value: Any) -> None:
    assert cell(value) == value
    assert type(cell(value)) is type(value)


@pytest.mark.parametrize("value", [True, [], [{"box": [1, 2, 3, 4]}], {"rgb": 0.5}])
def test_flags_and_lists_are_json(value: Any) -> None:
    assert json.loads(cell(value)) == value
