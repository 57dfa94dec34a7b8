"""Which files below a folder are images."""

from __future__ import annotations

import os
from pathlib import Path

from blemish.errors import DatasetError

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2"}
)


def shown(path: Path | str) -> str:
    """A path as text that can always be printed, whatever bytes its name holds."""
    return os.fsencode(path).decode("utf-8", "replace")


def is_image_name(name: str) -> bool:
    """True for a name with an image's suffix (any case) that is not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def find_images(folder: Path | str) -> list[Path]:
    """All image files below `folder`, at any depth, sorted by path.

    Hidden files and folders are skipped. Links are followed, each real folder is read once, so links in a loop end and
    a folder reached on two ways counts once. A broken link with an image's name is listed, so that it is
    reported as unreadable and not silently lost.

    Raises DatasetError when `folder` does not exist, is not a folder, or cannot be read.
    """
    folder = existing_folder(folder)
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    folders: list[Path] = [folder]
    links: list[Path] = []
    while folders or links:
        # Real folders go first: where a link points into the same tree, images keep their own path.
        current = folders.pop() if folders else links.pop(0)
        entries, identity = _entries(current), os.stat(current)
        if (identity.st_dev, identity.st_ino) in seen:
            continue
        seen.add((identity.st_dev, identity.st_ino))
        for entry in entries:
            if _is(entry, "dir"):
                (links if entry.is_symlink() else folders).append(Path(entry.path))
            elif is_image_name(entry.name) and (_is(entry, "file") or _is_broken(entry)):
                found.append(Path(entry.path))
    return sorted(found)


def subfolders(folder: Path) -> list[Path]:
    """The folders directly in `folder`, hidden ones left out, sorted by name."""
    return sorted(Path(entry.path) for entry in _entries(folder) if _is(entry, "dir"))


def existing_folder(folder: Path | str) -> Path:
    """`folder` as a Path, "~" expanded; DatasetError when it is no folder."""
    path = Path(os.path.expanduser(folder))
    if not os.path.exists(path):
        raise DatasetError(f"a folder of pictures at '{shown(path)}'", "nothing there", "check the path")
    if not os.path.isdir(path):
        raise DatasetError(f"a folder of pictures at '{shown(path)}'", "a file", "give the folder that holds it")
    return path


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise DatasetError(
            f"a readable folder at '{shown(folder)}'", error.strerror or str(error), "check its permissions"
        ) from error


def _is(entry: os.DirEntry[str], kind: str) -> bool:
    try:
        return entry.is_dir() if kind == "dir" else entry.is_file()
    except OSError:  # a link that points at itself
        return False


def _is_broken(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)
