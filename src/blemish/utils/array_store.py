"""Arrays that are written once and read any number of times: in memory up to a bound, beyond it in a temporary file."""

from __future__ import annotations

import math
import tempfile
from typing import IO, Self

import numpy as np

from blemish.utils.atomic import output_errors


class ArrayStore:
    """Keeps arrays under numbers, in the order of `add`; a context manager, at whose end they are gone.

    Arrays stay in memory while they take `memory` bytes together at most; further ones go to a file without a name in
    the folder for temporary files. Raises OutputError where that cannot be written.
    """

    def __init__(self, memory: int) -> None:
        self.memory, self.used = memory, 0
        self._kept: list[np.ndarray | tuple[int, np.dtype[np.generic], tuple[int, ...]]] = []
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, number: int) -> np.ndarray:
        """The array that was added as the `number`th, counted from 0."""
        found = self._kept[number]
        if isinstance(found, np.ndarray):
            return found
        start, dtype, shape = found
        assert self._file is not None  # something lies in it
        self._file.seek(start)
        return np.fromfile(self._file, dtype, math.prod(shape)).reshape(shape)

    def add(self, array: np.ndarray) -> int:
        """Keep an array of any shape; returns its number."""
        if self.used + array.nbytes <= self.memory:
            self.used += array.nbytes
            self._kept.append(array)
        else:
            self._kept.append(self._written(np.ascontiguousarray(array)))
        return len(self._kept) - 1

    def close(self) -> None:
        """Give memory and disk back."""
        self._kept.clear()
        self.used = 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def _written(self, array: np.ndarray) -> tuple[int, np.dtype[np.generic], tuple[int, ...]]:
        with output_errors(tempfile.gettempdir()):
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="blemish-")  # noqa: SIM115  # `close` closes it
            start = self._file.seek(0, 2)
            array.tofile(self._file)
        return start, array.dtype, array.shape
