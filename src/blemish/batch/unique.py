"""Whether any of very many texts came twice, in bounded memory: their hashes, on disk once there are many."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

_HELD = 1 << 18  # hashes in memory, 16 bytes each, before they go to disk
_BUCKETS = 64  # files: each is sorted by itself, so that memory holds a 64th of all hashes


class UniqueTexts:
    """Takes up texts and finds those that came more than once; a context manager, with files inside `folder`.

    128 bits of BLAKE2b stand for a text: among 10⁹ texts two different ones are taken for equal once in 10²¹ runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: list[bytes] = []
        self._files: list[BinaryIO] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files:
            file.close()
            Path(file.name).unlink(missing_ok=True)

    @staticmethod
    def digest(text: str) -> bytes:
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def add(self, texts: Iterable[str]) -> None:
        self._held += map(self.digest, texts)
        if len(self._held) >= _HELD:
            self._spill()

    def repeated(self) -> set[bytes]:
        """The digests of all texts that were added more than once."""
        if not self._files:
            return _repeated(b"".join(self._held))
        self._spill()
        found: set[bytes] = set()
        for file in self._files:
            file.flush()
            found |= _repeated(Path(file.name).read_bytes())
        return found

    def _spill(self) -> None:
        """Append what is held to the buckets' files, by the first bits of each digest."""
        if not self._files:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._files = [(self.folder / f"ids-{i:02}").open("wb") for i in range(_BUCKETS)]
        digests = np.frombuffer(b"".join(self._held), dtype=np.uint8).reshape(-1, 16)  # (n, 16)
        bucket = digests[:, 0] % _BUCKETS  # (n,)
        for i, file in enumerate(self._files):
            file.write(digests[bucket == i].tobytes())
        self._held = []


def _repeated(content: bytes) -> set[bytes]:
    """The digests, of 16 bytes each, that `content` holds more than once."""
    halves = np.frombuffer(content, dtype=np.uint64).reshape(-1, 2)  # (n, 2)
    ordered = halves[np.lexsort((halves[:, 1], halves[:, 0]))]
    again = (ordered[1:] == ordered[:-1]).all(axis=1)  # (n - 1,)
    return {row.tobytes() for row in ordered[1:][again]}
