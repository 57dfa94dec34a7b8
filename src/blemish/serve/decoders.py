"""Processes that decode pictures for the service, each with a time limit and ended with the service."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np

from blemish.data.readers.base import pixel_limit
from blemish.errors import BlemishError, ImageError, MissingPackageError, SettingsError
from blemish.serve.decoding_process import ANSWER, READY, REQUEST, is_picture, write
from blemish.serve.errors import DecoderError, NoDecoderError
from blemish.utils.signals import ctrl_c_blocked, end_in_words

START_LIMIT = 60.0  # seconds that a process may take to be ready
END_LIMIT = 5.0  # seconds that the system may take to end one
HEAD_LIMIT = 2**16  # bytes of an answer's head
# What an answer may tell of instead of levels.
_ERRORS = {kind.__name__: kind for kind in (ImageError, MissingPackageError, SettingsError)}
# It finds packages where this process finds them. Not `multiprocessing`, whose processes import the main module again.
_PROGRAM = (
    "import sys; limits = sys.argv[1:3]; sys.path[:] = sys.argv[3:]; "
    "from blemish.serve.decoding_process import main; main(float(limits[0]), int(limits[1]))"
)


class Decoders:
    """At most `processes` that decode, started when they are needed; many threads may ask.

    A picture may take `time_limit` seconds and `memory` bytes. What a process sends is checked before it is believed.
    """

    def __init__(self, processes: int, time_limit: float, memory: int) -> None:
        self._time_limit, self._memory = time_limit, memory
        self._room = threading.BoundedSemaphore(processes)
        self._lock = threading.Lock()
        self._idle: list[_Decoder] = []
        self._is_closed = False

    def levels(self, content: bytes, name: str = "") -> np.ndarray:
        """A picture's file as the array that `load_levels` makes of it, bit for bit; `name` is for messages.

        Raises what `load_levels` raises; DecoderError where the process that decodes it dies of it, or takes longer or
        more memory than it may; NoDecoderError where none can be started.
        """
        most_pixels = pixel_limit()
        with self._room:
            decoder = self._taken()
            try:
                return decoder.levels(content, most_pixels, name or "bytes")
            finally:
                self._put_back(decoder)

    def _taken(self) -> _Decoder:
        """A process that waits, or a new one."""
        with self._lock:
            while self._idle:
                decoder = self._idle.pop()
                if decoder.is_alive:
                    return decoder
                decoder.end()
        return _Decoder(self._time_limit, self._memory)

    def _put_back(self, decoder: _Decoder) -> None:
        with self._lock:
            if decoder.is_alive and not self._is_closed:
                self._idle.append(decoder)
                return
        decoder.end()

    def close(self) -> None:
        """End those that wait at once, others when they are done."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for decoder in idle:
            decoder.end()


class _NoAnswerError(Exception):
    """The process has sent what is no answer."""


class _Decoder:
    """One process, used by one thread at a time."""

    def __init__(self, time_limit: float, memory: int) -> None:
        self._time_limit, self._memory = time_limit, memory
        self._is_ready = self._is_late = False
        command = [sys.executable, "-c", _PROGRAM, str(time_limit), str(memory), *sys.path]
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # decoding multiplies no matrices
        try:
            with ctrl_c_blocked():
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment
                )
        except OSError as error:
            raise _not_started(str(error)) from error
        self._input, self._output = cast(io.FileIO, self._process.stdin), cast(io.FileIO, self._process.stdout)

    @property
    def is_alive(self) -> bool:
        """Whether it can be given another picture."""
        return self._is_ready and not self._is_late and self._process.poll() is None

    def levels(self, content: bytes, most_pixels: int, name: str) -> np.ndarray:
        """As `Decoders.levels`; one that has not answered is at its end."""
        if not self._is_ready:
            self._wait_until_ready()
        self._is_ready = False  # whatever is raised before the whole answer is read
        with self._within(self._time_limit):
            try:
                write(self._input, REQUEST.pack(most_pixels, len(content)))
                write(self._input, content)
                head = self._head()
                found = self._error_of(head, name) if "error" in head else self._array(head, most_pixels)
            except (OSError, EOFError, _NoAnswerError) as error:
                raise self._failure(name, error) from error
        self._is_ready = True
        if isinstance(found, BlemishError):
            raise found
        return found

    @contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        """Kill the process unless the block ends in time; reading from it ends then."""
        timer = threading.Timer(seconds, self._kill_late)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    def _wait_until_ready(self) -> None:
        with self._within(START_LIMIT):
            self._is_ready = self._output.read(1) == READY
        if not self._is_ready:
            raise _not_started(self._end())

    def _kill_late(self) -> None:
        self._is_late = True
        self._process.kill()

    def _head(self) -> dict[str, Any]:
        (size,) = ANSWER.unpack(self._read(ANSWER.size))
        if size > HEAD_LIMIT:
            raise _NoAnswerError
        try:
            return dict(json.loads(self._read(size)))
        except (ValueError, TypeError) as error:
            raise _NoAnswerError from error

    def _array(self, head: dict[str, Any], most_pixels: int) -> np.ndarray:
        """The array `(H, W)` or `(H, W, C)` that a head announces."""
        try:
            dtype, shape = np.dtype(str(head["dtype"])), tuple(map(int, head["shape"]))
        except (KeyError, TypeError, ValueError) as error:
            raise _NoAnswerError from error
        if not is_picture(dtype, shape) or math.prod(shape[:2]) > most_pixels:
            raise _NoAnswerError
        levels = np.empty(shape, dtype)
        self._read_into(levels.reshape(-1).view(np.uint8).data)
        return levels

    def _read(self, size: int) -> bytearray:
        read = bytearray(size)
        self._read_into(memoryview(read))
        return read

    def _read_into(self, place: memoryview) -> None:
        while place:
            size = self._output.readinto(place)
            if not size:
                raise EOFError
            place = place[size:]

    def _error_of(self, head: dict[str, Any], name: str) -> BlemishError:
        """The error that a head tells of."""
        if head["error"] == MemoryError.__name__:
            return DecoderError(
                f"a picture in '{name}' that is decoded in {self._memory / 2**20:g} MB of memory",
                "one that needs more",
                "scale it down, or raise --decode-memory",
            )
        try:
            expected, got, do = map(str, head["facts"])
            return _ERRORS[head["error"]](expected, got, do)
        except (KeyError, TypeError, ValueError) as error:
            raise _NoAnswerError from error

    def _failure(self, name: str, error: Exception) -> DecoderError:
        """What is said of a picture that its process did not answer about."""
        if self._is_late:
            return DecoderError(
                f"a picture in '{name}' that is decoded within {self._time_limit:g} s",
                "one that takes longer",
                "save it anew or smaller, or raise --decode-limit",
            )
        end = "it sent what is no answer" if isinstance(error, _NoAnswerError) else self._end()
        return DecoderError(
            f"a picture in '{name}' that can be decoded",
            f"the end of the process that decoded it ({end})",
            "send it again; if it ends so once more, save it anew, in another format",
        )

    def _end(self) -> str:
        """How the process ended, in words."""
        try:
            return end_in_words(self._process.wait(END_LIMIT))
        except subprocess.TimeoutExpired:
            return "it went silent"

    def end(self) -> None:
        """End the process; it holds nothing that could be lost."""
        self._process.kill()
        self._process.wait()
        self._input.close()
        self._output.close()


def _not_started(why: str) -> NoDecoderError:
    return NoDecoderError(
        "a process that decodes pictures", f"none that can be started ({why})", "see what the service printed"
    )
