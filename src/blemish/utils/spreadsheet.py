"""Values as cells of a CSV file that spreadsheets open: no text becomes a formula."""

from __future__ import annotations

import json
from typing import Any

# What makes Excel, LibreOffice or Google Sheets compute a cell (OWASP, "CSV Injection"), wide forms included.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def cell(value: Any) -> Any:
    """Nothing for None, lists and mappings as JSON, true and false in small letters; text never begins a formula.

    Text that would is preceded by an apostrophe, as a person would type it.
    """
    if isinstance(value, bool | list | tuple | dict):
        return json.dumps(value)
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value
