"""Which files below a folder are images, which are not, and which folders were written by blemish itself."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np

from blemish.errors import DatasetError
from blemish.utils.paths import expanded
from blemish.utils.paths import shown as shown

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2"}
)
# Suffixes that are read where a package is installed, and the extra of blemish that brings it.
EXTRA_SUFFIXES = {
    "PIL._avif": ({".avif"}, ""),
    "pillow_heif": ({".heic", ".heif", ".hif"}, "heif"),
    "pydicom": ({".dcm", ".dicom"}, "dicom"),
}
CLOUD_SUFFIXES = frozenset({".ply", ".pcd", ".npz"})  # files of points that are no images
NO_SUFFIX = "no suffix"

# Files that blemish itself writes: a folder with all names of one of these sets holds a model, or results.
_MODELS = (frozenset({"settings.json", "weights.safetensors"}), frozenset({"bundle.json", "parity.json"}))
_OUTPUTS: tuple[frozenset[str], ...] = tuple(
    map(
        frozenset,
        (
            *_MODELS,
            {"results.jsonl"},
            {"report.html", "results.csv"},
            {"report.html", "diagnosis.json"},
            {"report.html", "inspection.json"},
            {"_run.json", "_input.parquet"},
        ),
    )
)
_OWN_FOLDERS = frozenset({"overlays", "maps", "_overlays"})  # in a folder of results
_OWN_FILES = frozenset({"thumbnails.jpg", "thumbnails.png"})  # in a folder of a model

# How files of images begin; .npy and those without a suffix are told by it.
_MAGIC = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x0cjP  ")


@dataclass
class FolderContents:
    """What lies below the folders that were given: images, and what was not looked at.

    `ignored` counts files that are no images by their suffix, `left_out` are folders of models and results, `masks`
    are files that mark the defects of an image beside them, `clouds` files of points.
    """

    images: list[Path] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    left_out: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)
    clouds: list[Path] = field(default_factory=list)

    def add(self, other: FolderContents) -> None:
        """Take up what lies in another folder."""
        self.images += other.images
        self.ignored += other.ignored
        self.left_out += other.left_out
        self.masks += other.masks
        self.clouds += other.clouds

    def words(self) -> list[str]:
        """A sentence on each kind of thing that was not looked at; none where all was."""
        lines = []
        if total := self.ignored.total():
            kinds = ", ".join(f"{suffix} {count}" for suffix, count in self.ignored.most_common())
            were = "other file was" if total == 1 else "other files were"
            lines.append(f"{total} {were} not looked at: {kinds}{self._extras()}")
        if self.masks:
            were = "mask was" if len(self.masks) == 1 else "masks were"
            lines.append(f"{len(self.masks)} {were} left out, first '{shown(self.masks[0])}'")
        if self.left_out:
            count = len(self.left_out)
            were = "folder of a model or of results was" if count == 1 else "folders of models or of results were"
            lines.append(f"{count} {were} left out, first '{shown(self.left_out[0])}'")
        return lines

    def _extras(self) -> str:
        wanted = [extra for suffixes, extra in EXTRA_SUFFIXES.values() if extra and suffixes & self.ignored.keys()]
        return f" (to read them: pip install 'blemish[{','.join(wanted)}]')" if wanted else ""


@cache
def image_suffixes() -> frozenset[str]:
    """The suffixes, in lower case with their dot, of files that can be read with the packages installed."""
    extra = [suffixes for module, (suffixes, _) in EXTRA_SUFFIXES.items() if importlib.util.find_spec(module)]
    return IMAGE_SUFFIXES.union(*extra)


def is_image_name(name: str) -> bool:
    """True for a name with an image's suffix (any case) that is not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in image_suffixes()


def is_image_file(path: Path | str) -> bool:
    """True for a file with an image's suffix, and for .npy files and files without a suffix that hold an image."""
    name = os.path.basename(path)
    suffix = os.path.splitext(name)[1].lower()
    if name.startswith(".") or suffix not in ("", ".npy"):
        return is_image_name(name)
    try:
        with open(path, "rb") as file:
            head = file.read(132)
            if head.startswith(b"\x93NUMPY"):
                file.seek(0)
                return _is_image_shape(*npy_header(file))
    except Exception:  # numpy raises anything for a damaged header
        return False
    if suffix == ".npy":
        return False
    is_riff = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    brand = head[8:12].decode("latin-1") if head[4:8] == b"ftyp" else ""
    is_heif = f".{brand[:4].strip()}" in image_suffixes() or (brand in ("heix", "mif1") and ".heic" in image_suffixes())
    is_dicom = head[128:132] == b"DICM" and ".dcm" in image_suffixes()
    is_bitmap = head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124)
    return head.startswith(_MAGIC) or is_bitmap or is_riff or is_heif or is_dicom


def find_images(folder: Path | str) -> list[Path]:
    """All image files below `folder`, sorted by path; see `list_folder`."""
    return list_folder(folder).images


def list_folder(folder: Path | str) -> FolderContents:
    """What lies below `folder`, at any depth, each list sorted by path.

    Hidden files and folders are skipped. Links are followed, each real folder is read once, so links in a loop end and
    a folder reached on two ways counts once. A broken link with an image's name is listed, so that it is reported as
    unreadable and not silently lost. Folders of models and results below `folder` are left out.

    Raises DatasetError when `folder` does not exist, is not a folder, or cannot be read.
    """
    contents = FolderContents()
    for entry in _walk(folder, contents.left_out):
        is_file = _is(entry, "file")  # asked first: to open a named pipe would wait for its writer
        if (is_file and is_image_file(entry.path)) or (is_image_name(entry.name) and _is_broken(entry)):
            contents.images.append(Path(entry.path))
        elif is_file and os.path.splitext(entry.name)[1].lower() in CLOUD_SUFFIXES:
            contents.clouds.append(Path(entry.path))
        elif is_file:
            contents.ignored[os.path.splitext(entry.name)[1].lower() or NO_SUFFIX] += 1
    contents.images.sort()
    contents.clouds.sort()
    contents.left_out.sort()
    return contents


def find_files(folder: Path | str, is_wanted: Callable[[str], bool]) -> list[Path]:
    """All files below `folder` whose name `is_wanted`, sorted by path, found as `list_folder` finds images."""
    entries = (entry for entry in _walk(folder, []) if is_wanted(entry.name))
    return sorted(Path(entry.path) for entry in entries if _is(entry, "file") or _is_broken(entry))


def files_in(folder: Path) -> list[Path]:
    """The files directly in `folder`, hidden ones left out, sorted by name; none of one that cannot be read."""
    try:
        return [Path(entry.path) for entry in _entries(folder) if _is(entry, "file")]
    except DatasetError:
        return []


def subfolders(folder: Path) -> list[Path]:
    """The folders directly in `folder`, hidden ones left out, sorted by name."""
    return sorted(Path(entry.path) for entry in _entries(folder) if _is(entry, "dir"))


def is_output(folder: Path) -> bool:
    """Whether blemish wrote a model or results into `folder`."""
    return _is_output({entry.name for entry in _entries(folder)})


def is_model(folder: Path) -> bool:
    """Whether a model was saved into `folder`, or exported into it."""
    names = {entry.name for entry in _entries(folder)}
    return any(marks <= names for marks in _MODELS)


def existing_folder(folder: Path | str, wanted: str = "a folder of pictures") -> Path:
    """`folder` as a Path, "~" expanded; DatasetError when it is no folder, or an empty text.

    `wanted` says in the error what may be there.
    """
    path = stated_path(folder)
    try:
        os.stat(path)
    except PermissionError as error:
        do = "give this user the right to read the folders above it"
        raise DatasetError(f"{wanted} at '{shown(path)}'", "permission denied", do) from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise DatasetError(f"{wanted} at '{shown(path)}'", "nothing there", "check the path") from error
    if not os.path.isdir(path):
        raise DatasetError(f"a folder of pictures at '{shown(path)}'", "a file", "give the folder that holds it")
    return path


def stated_path(path: Path | str) -> Path:
    """`path` as a Path, "~" expanded. Raises DatasetError for an empty text, which is no name of the current folder."""
    if not str(path).strip():
        raise DatasetError(
            "the path of a picture or folder", "an empty text", "name it, or '.' (is a variable of your script unset?)"
        )
    return expanded(path)


def _walk(folder: Path | str, left_out: list[Path]) -> list[os.DirEntry[str]]:
    """All entries below `folder` that are no folders; folders that blemish wrote are added to `left_out` instead."""
    root = existing_folder(folder)
    found: list[os.DirEntry[str]] = []
    seen: set[tuple[int, int]] = set()
    folders: list[Path] = [root]
    links: list[Path] = []
    while folders or links:
        # Real folders go first: where a link points into the same tree, images keep their own path.
        current = folders.pop() if folders else links.pop(0)
        entries, identity = _entries(current), _identity(current)
        if identity in seen:
            continue
        seen.add(identity)
        is_own = _is_output({entry.name for entry in entries})
        if is_own and current is not root:
            left_out.append(current)
            continue
        for entry in entries:
            if _is(entry, "dir"):
                if is_own and entry.name in _OWN_FOLDERS:  # results that were written beside the pictures
                    left_out.append(Path(entry.path))
                else:
                    (links if entry.is_symlink() else folders).append(Path(entry.path))
            elif not (is_own and entry.name in _OWN_FILES):
                found.append(entry)
    return found


def _identity(folder: Path) -> tuple[int, int]:
    try:
        found = os.stat(folder)
    except OSError as error:
        raise _unreadable(folder, error) from error
    return found.st_dev, found.st_ino


def _is_output(names: set[str]) -> bool:
    return any(marks <= names for marks in _OUTPUTS)


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and number format that the header of an open .npy file states."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _is_image_shape(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    return dtype.kind in "buif" and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))) and min(shape) > 0


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: Path, error: OSError) -> DatasetError:
    return DatasetError(
        f"a readable folder at '{shown(folder)}'", error.strerror or str(error), "check its permissions"
    )


def _is(entry: os.DirEntry[str], kind: str) -> bool:
    try:
        return entry.is_dir() if kind == "dir" else entry.is_file()
    except OSError:  # a link that points at itself
        return False


def _is_broken(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)
