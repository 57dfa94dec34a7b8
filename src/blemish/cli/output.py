"""An output folder that is filled out of sight and appears when it is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blemish.errors import OutputError


@contextmanager
def staged(out: Path, folders: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield a hidden folder inside `out`; what lies in it moves into `out` when the block ends well.

    Whatever ends the block early (an error, Ctrl-C) removes the hidden folder, and `out` stays as it was; after a hard
    kill only the hidden folder is left. Files of the same name are replaced, one rename each, other content of `out`
    is untouched. `folders` are the sub-folders that will be replaced as a whole: one that is there already must be the
    work of an earlier run (a `results.jsonl` stands beside it), otherwise OutputError.
    """
    made = not out.exists()
    stage = out / f".partial-{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        refuse_foreign_folders(out, folders)
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir()
        yield stage
        publish(stage, out)
    except OSError as error:
        raise OutputError(
            f"an output folder that can be written at {out}",
            error.strerror or str(error),
            "free some room, mend the permissions, or name another folder with -o",
        ) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if made and out.is_dir() and not any(out.iterdir()):
            out.rmdir()


def refuse_foreign_folders(out: Path, folders: tuple[str, ...]) -> None:
    """Raise OutputError when a sub-folder that is to be replaced holds something that no earlier run wrote."""
    if (out / "results.jsonl").exists():
        return
    for name in folders:
        if (out / name).is_dir() and any((out / name).iterdir()):
            raise OutputError(
                "an output folder that is new, or of an earlier run",
                f"{out / name}, which holds files of another origin",
                "name another folder with -o",
            )


def refuse_full_folder(out: Path) -> None:
    """Raise OutputError when `out` is anything but a new or empty folder."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists():
        got = "a folder with something in it" if out.is_dir() else "a file"
        raise OutputError(f"a new or empty folder at {out}", got, "name another folder")


def publish(stage: Path, out: Path) -> None:
    """Move everything from `stage` into `out`; what it replaces goes into `stage`, which is about to be removed."""
    for path in sorted(stage.iterdir(), key=lambda p: (p.is_file(), p.name)):  # folders first: rows may point at them
        target = out / path.name
        if path.is_dir() and target.exists():
            target.rename(stage / f"old-{path.name}")
        os.replace(path, target)
