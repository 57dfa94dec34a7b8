"""`--set key=value` as Python values: whole numbers, fractions, true/false/null, lists, or else text; `--ignore`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from blemish.errors import SettingsError

OPTIONS = frozenset(
    {"encoder", "detector", "image_size", "false_alarm_rate", "unsure_rate", "device", "seed", "category", "shots"}
)
_NEXT_PAIR = re.compile(r",(?=\s*[A-Za-z_][\w-]*=)")  # a comma inside a list is followed by no name and "="


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`["depth=4,top=3", "mlp=true"]` → `{"depth": 4, "top": 3, "mlp": True}`; a key named twice is a SettingsError."""
    settings: dict[str, Any] = {}
    for pair in _single_pairs(pairs):
        key, sign, text = pair.partition("=")
        key = key.strip().replace("-", "_")
        if not sign or not key.isidentifier():
            raise SettingsError("--set key=value", repr(pair), "write for example: --set depth=4")
        if key in OPTIONS:
            raise SettingsError(f"{key} as an option of its own", f"--set {pair}", f"use --{key.replace('_', '-')}")
        if key in settings:
            raise SettingsError("every setting once", f"--set {key}=… twice", "keep one of them")
        settings[key] = parse_value(text.strip())
    return settings


def parse_ignored(texts: Sequence[str]) -> dict[str | None, list[str]]:
    """`["10%,5%,20%,8%", "bolt=mask.png"]` → what to ignore by product; under None what to ignore of all."""
    found: dict[str | None, list[str]] = {}
    for text in texts:
        name, sign, area = text.partition("=")
        if sign and not Path(text).exists():
            found.setdefault(name.strip(), []).append(area.strip())
        else:
            found.setdefault(None, []).append(text)
    return found


def _single_pairs(texts: Sequence[str]) -> Iterator[str]:
    """The pairs of each text one by one; a value that is JSON keeps all its commas."""
    for text in texts:
        if isinstance(parse_value(text.partition("=")[2].strip()), str):
            yield from _NEXT_PAIR.split(text)
        else:
            yield text


def parse_value(text: str) -> Any:
    """A JSON value where the text is one (in any capitals for true, false, none), the text itself otherwise."""
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return json.loads(text, parse_constant=str)
    except ValueError:
        return text
