"""One run at a time in a folder: a locked file that names its process; the system unlocks it when the process dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from blemish.errors import OutputError
from blemish.utils.atomic import output_errors
from blemish.utils.paths import shown

LOCK = ".lock"


@contextmanager
def exclusive(folder: str | Path, option: str = "-o") -> Iterator[None]:
    """Keep other runs out of `folder` until the block ends. Raises OutputError where one is at work.

    `option` names the folder on the command line.

    The folder is made if need be, and is gone afterwards if nothing came into it.
    """
    from filelock import FileLock, Timeout

    folder = Path(folder)
    made, file = not folder.exists(), folder / LOCK
    lock = FileLock(file, timeout=0)
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise OutputError(
                f"no other run at work in {shown(folder)}",
                f"that of process {_holder(file)}",
                f"wait for its end, or name another folder with {option}",
            ) from error
    try:
        with suppress(OSError):  # Windows lets nobody write a locked file
            file.write_text(str(os.getpid()))
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file; its lock file stays
            file.unlink(missing_ok=True)  # before it is unlocked, lest it be another run's by then
        lock.release()
        with suppress(OSError):
            if made and not any(folder.iterdir()):
                folder.rmdir()


def _holder(file: Path) -> str:
    """The number of the process that holds a lock, as far as it can be read."""
    try:
        return file.read_text(errors="replace")[:32] or "unknown"
    except OSError:
        return "unknown"
