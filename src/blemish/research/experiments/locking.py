"""One run at a time in a folder: a locked file that names its process; the system unlocks it when the process dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blemish.data.files import shown
from blemish.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows: runs are not kept apart
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other runs out of `folder` until the block ends. Raises OutputError where one is at work.

    The folder is made if need be, and is gone afterwards if nothing came into it.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _locked(folder / LOCK)
    except OSError as error:
        raise OutputError(
            f"a folder that can be written at {shown(folder)}",
            error.strerror or str(error),
            "mend the permissions, or name another folder with -o",
        ) from error
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)  # before it is closed, lest it be another run's by then
        os.close(lock)
        if made and not any(folder.iterdir()):
            folder.rmdir()


def _locked(path: Path) -> int:
    """The file at `path`, open and locked, with this process's number in it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not fcntl or _is(file, path):
                os.truncate(path, 0)
                os.write(file, str(os.getpid()).encode())
                return file
        except BlockingIOError as error:
            holder = os.read(file, 32).decode(errors="replace") or "unknown"
            os.close(file)
            raise OutputError(
                f"no other run at work in {shown(path.parent)}",
                f"that of process {holder}",
                "wait for its end, or name another folder with -o",
            ) from error
        except OSError:
            os.close(file)
            raise
        os.close(file)  # its run ended, and removed it, between the opening and the locking


def _is(file: int, path: Path) -> bool:
    """Whether an open file is what lies at `path`."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
