"""What a program prints to: terminals and logs of any encoding, and readers that leave."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO


def replace_unencodable() -> None:
    """What the encoding of stdout or stderr cannot hold, as many a file's name, is written as "?" from now on."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None for a program without a console
            stream.reconfigure(errors="replace")


def discard(stream: TextIO) -> None:
    """Let nothing more of a stream be written: its reader left, as `head` does, and Python writes once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
