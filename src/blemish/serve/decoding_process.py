"""A process that decodes pictures for the service: a fault in an image decoder ends this process, and not the service.

It imports what decoding needs and no more. A request is `REQUEST` and the file's content on its standard input, an
answer `ANSWER`, a head in JSON and the array's bytes on its standard output; nothing is pickled. It ends with its
input, so that it outlives the service by no more than the picture at hand.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from blemish.errors import BlemishError

if TYPE_CHECKING:
    import numpy as np

REQUEST = struct.Struct("<QQ")  # most pixels of the picture, bytes of its file, which follow
ANSWER = struct.Struct("<I")  # bytes of the head, which follows; then those of the array, if it names one
READY = b"\x01"  # what comes before the first answer
GRACE = 1.0  # seconds over its time limit after which a process ends itself, should nobody have ended it


def main(time_limit: float, memory: int) -> None:
    """Answer requests until standard input ends.

    A picture takes at most `time_limit` seconds, and `memory` bytes beyond what the process has when it is ready.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # a stop of the service is the service's matter
        signal.signal(number, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints is no answer
    import blemish.data.images  # noqa: F401 - the signals are settled while this takes its time

    warnings.simplefilter("ignore")
    limit_resources(memory)
    answers.write(READY)
    with suppress(BrokenPipeError, struct.error):  # the service is gone
        while head := sys.stdin.buffer.read(REQUEST.size):
            most_pixels, size = REQUEST.unpack(head)
            content = sys.stdin.buffer.read(size)
            limit_time(time_limit + GRACE)
            found, levels = answer_to(content, most_pixels)
            limit_time(0)
            text = json.dumps(found).encode()
            write(answers, ANSWER.pack(len(text)) + text)
            if levels is not None:
                write(answers, levels.reshape(-1).view("u1"))


def answer_to(content: bytes, most_pixels: int) -> tuple[dict[str, Any], np.ndarray | None]:
    """The head of an answer and the levels of a picture, or the error's kind and its three facts."""
    from blemish.data.images import load_image, load_levels

    try:
        levels = load_levels(content, most_pixels)
        if not is_picture(levels.dtype, levels.shape):
            load_image(levels)  # says what is wrong with it
    except (BlemishError, MemoryError) as error:
        if isinstance(error, BlemishError) and not isinstance(error.__cause__, MemoryError):
            return {"error": type(error).__name__, "facts": [error.expected, error.got, error.do]}, None
        return {"error": MemoryError.__name__, "facts": []}, None
    return {"dtype": levels.dtype.str, "shape": levels.shape}, levels


def is_picture(dtype: np.dtype[Any], shape: Sequence[int]) -> bool:
    """Whether an array can be a picture's levels: numbers, `(H, W)` or `(H, W, C)` of 1, 3 or 4 channels."""
    is_shape = len(shape) in (2, 3) and min(shape) > 0 and tuple(shape[2:]) in ((), (1,), (3,), (4,))
    return is_shape and dtype.kind in "biuf"  # bool, integers, floats


def limit_resources(memory: int) -> None:
    """Bound this process's memory where the system can; have it end first where memory runs out, and leave no dump."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open("/proc/self/statm", encoding="ascii") as file:
            most = int(file.read().split()[0]) * resource.getpagesize() + memory
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")


def limit_time(seconds: float) -> None:
    """Have the system end this process after so many seconds, whatever it does then; 0: not any more."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def write(file: BinaryIO, data: Any) -> None:
    """Write all of `data` to an unbuffered file."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
