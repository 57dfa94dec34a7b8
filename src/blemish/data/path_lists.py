"""Lists of paths in a file or on standard input, for commands that take more pictures than a command line holds."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Sequence
from typing import BinaryIO

from blemish.data.files import shown
from blemish.errors import DatasetError

STDIN = "-"


def expand_lists(arguments: Sequence[str], stdin: BinaryIO | None = None) -> list[str]:
    """Paths in which "@list.txt" and "-" stand for the paths that a file or standard input lists, in their order.

    One path a line, or ended by a zero byte, as `find -print0` writes them; empty lines are skipped. Lists in UTF-16,
    as PowerShell's ">" writes them, are known by their byte order mark. Relative paths are relative to the current
    folder. A file whose own name begins with "@" is that file.

    Raises DatasetError for a list that cannot be read or names nothing, and for standard input asked for twice.
    """
    if list(arguments).count(STDIN) > 1:
        raise DatasetError("standard input ('-') once", f"{list(arguments).count(STDIN)} times", "name it once")
    paths: list[str] = []
    for argument in arguments:
        if argument == STDIN:
            paths += _listed((sys.stdin.buffer if stdin is None else stdin).read(), "standard input")
        elif argument.startswith("@") and not os.path.lexists(argument):
            paths += _listed(_content(argument[1:]), f"'{shown(argument[1:])}'")
        else:
            paths.append(argument)
    return paths


def _content(file: str) -> bytes:
    try:
        with open(os.path.expanduser(file), "rb") as opened:
            return opened.read()
    except OSError as error:
        raise DatasetError(
            f"a list of paths in '{shown(file)}'", error.strerror or str(error), "check the path of the list"
        ) from error


def _listed(content: bytes, where: str) -> list[str]:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        content = content.decode("utf-16", "replace").encode()
    content = content.removeprefix(codecs.BOM_UTF8)  # as Windows editors write it
    lines = content.split(b"\0") if b"\0" in content else [line.rstrip(b"\r") for line in content.split(b"\n")]
    paths = [os.fsdecode(line) for line in lines if line.strip()]
    if not paths:
        raise DatasetError(f"paths in {where}, one a line", "none", "write them there")
    return paths
