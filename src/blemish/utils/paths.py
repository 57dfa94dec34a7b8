"""Paths: as text for people, with "~" expanded, and whether a folder can take new files."""

from __future__ import annotations

import os
from pathlib import Path

from blemish.errors import DatasetError


def shown(path: Path | str) -> str:
    """A path as text that can always be printed, whatever bytes its name holds."""
    return os.fsencode(path).decode("utf-8", "replace")


def expanded(path: Path | str) -> Path:
    """A path with "~" expanded, and as it is where there is no such user or home: unlike `Path.expanduser`, which
    raises RuntimeError then."""
    return Path(os.path.expanduser(path))


def check_empty(folder: Path) -> None:
    """Raise DatasetError unless files can be written into `folder`, new or empty, without mixing with others."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        name = f"'{shown(folder)}'"
        got = f"{name} with something in it" if folder.is_dir() else f"the file {name}"
        raise DatasetError("a new or empty folder", got, "name another one")
