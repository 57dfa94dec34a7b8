"""Files by their content: a picture's name is the sha256 of its bytes, and a part's map a small file beside it.

A picture is on the disk, whole, before any row of the database names it; one that no row names is garbage.
"""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from blemish.serve.errors import UnknownError
from blemish.utils.atomic import write_bytes

MAP_SIDE = 256  # pixels of a stored map's longer side; maps are as coarse as the patches of an encoder
_HASH = re.compile(r"[0-9a-f]{64}")


def sha256_of(content: bytes) -> str:
    """The name of a picture."""
    return hashlib.sha256(content).hexdigest()


class Pictures:
    """The pictures and maps of a data folder."""

    def __init__(self, folder: Path) -> None:
        self._pictures, self._maps = folder / "pictures", folder / "maps"

    def path(self, sha256: str) -> Path:
        """Where a picture lies, or would lie. Raises UnknownError for what is no hash."""
        if not _HASH.fullmatch(sha256):
            raise UnknownError("a picture's sha256", repr(sha256[:80]), "take it from a part's record")
        return self._pictures / sha256[:2] / sha256

    def add(self, content: bytes) -> str:
        """Bring a picture to the disk unless it is there; its hash."""
        sha256 = sha256_of(content)
        self.ensure(sha256, content)
        return sha256

    def ensure(self, sha256: str, content: bytes) -> None:
        """Bring the picture of a hash to the disk unless it is there.

        Called in the transaction that names the picture, so that one which was deleted since `add` is there again.
        """
        path = self.path(sha256)
        if not path.is_file():
            write_bytes(path, content)

    def read(self, sha256: str) -> bytes:
        """A picture's bytes. Raises UnknownError where it is gone."""
        try:
            return self.path(sha256).read_bytes()
        except OSError as error:
            raise UnknownError("a picture that is kept", "one that is gone", "see the limits of retention") from error

    def _map_path(self, part: str) -> Path:
        return self._maps / part[:2] / f"{part}.npy"

    def add_map(self, part: str, anomaly_map: np.ndarray) -> None:
        """Keep a map `(H, W)` of a part, at `MAP_SIDE` pixels at most and half precision."""
        height, width = anomaly_map.shape
        scale = min(1.0, MAP_SIDE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = Image.fromarray(anomaly_map.astype(np.float32)).resize(size, Image.Resampling.BOX)
        file = io.BytesIO()
        np.save(file, np.asarray(small).astype(np.float16), allow_pickle=False)
        write_bytes(self._map_path(part), file.getvalue(), durable=False)

    def map(self, part: str, size: tuple[int, int]) -> np.ndarray:
        """The map of a part at a picture's `size` (height, width), float32. Raises UnknownError where it is gone."""
        try:
            small = np.load(self._map_path(part), allow_pickle=False).astype(np.float32)
        except (OSError, ValueError, EOFError) as error:  # EOFError: an empty file, after a loss of power
            raise UnknownError("a part whose heat is kept", "one where it is gone", "inspect it again") from error
        large = Image.fromarray(small).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return np.asarray(large)

    def size(self, sha256: str, part: str) -> int:
        """How many bytes a part's picture and its map take; 0 for what is gone."""
        return sum(_size(path) for path in (self.path(sha256), self._map_path(part)))

    def delete(self, sha256: str) -> None:
        """Remove a picture; one that is gone already is no error."""
        self.path(sha256).unlink(missing_ok=True)

    def delete_map(self, part: str) -> None:
        """Remove a part's map; one that is gone already is no error."""
        self._map_path(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
