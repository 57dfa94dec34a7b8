"""The table of formats in the documentation is the one in the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from blemish.data.files import CLOUD_SUFFIXES
from blemish.data.points import FORMATS
from blemish.data.points_files import is_depth_name

DOCS = Path(__file__).parents[2] / "docs" / "scans.md"


@pytest.mark.parametrize("one", FORMATS, ids=lambda one: one.name)
def test_a_format_is_documented(one: object) -> None:
    line = f"| {one.name} | {', '.join(one.suffixes)} | {one.holds} | {one.needs} |"  # type: ignore[attr-defined]
    assert line in DOCS.read_text(encoding="utf-8").splitlines()


def test_every_suffix_is_found_in_folders() -> None:
    suffixes = {suffix for one in FORMATS for suffix in one.suffixes}
    assert all(is_depth_name(f"part{suffix}") for suffix in suffixes)
    assert suffixes >= CLOUD_SUFFIXES
