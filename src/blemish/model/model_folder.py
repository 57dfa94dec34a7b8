"""A saved model: a folder of settings, tensors, calibration and thumbnails; never pickle, and never half-written.

`settings.json` names the format's version and the sha256 of every other file (and of itself, without that line). A
folder is written whole beside its target and renamed (utils/atomic.py): a killed run leaves the model that was there
before, or none. A reader gets the old or the new model: it checks all hashes, and reads again where the folder was
replaced meanwhile.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image

from blemish.errors import ModelError, OutputError
from blemish.utils.atomic import atomic_folder
from blemish.utils.hashing import json_sha256
from blemish.utils.paths import expanded, shown

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 2
WITH_IGNORED_AREAS = 3  # the version of models that ignore an area: a reader that knows 2 alone would judge all of it
SETTINGS, WEIGHTS, CALIBRATION, THUMBNAILS = (
    "settings.json",
    "weights.safetensors",
    "calibration.json",
    "thumbnails.png",
)
FILES = (SETTINGS, WEIGHTS, CALIBRATION, THUMBNAILS)
PATIENCE = 5.0  # seconds that a reader waits for a model that is being replaced
_PAUSE = 0.01  # seconds between two attempts
THUMBNAIL = 124  # pixels, the longer side

Read = TypeVar("Read")


@dataclass(frozen=True, eq=False)
class SavedModel:
    """All that a model folder holds: settings, tensors by name, calibrations, and a sheet of normal images."""

    settings: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    calibration: list[dict[str, Any]]
    thumbnails: np.ndarray  # (H, W, 3) uint8


def save_model(folder: str | Path, model: SavedModel) -> Path:
    """Write `model` to `folder`, in place of a model that is there; returns the folder's full path.

    Files that do not belong to a model and lie in the old folder are kept. Raises OutputError when the target is no
    model folder, or cannot be written.
    """
    target = expanded(folder).resolve()
    refuse_foreign(target)
    with atomic_folder(target, owned=FILES) as partial:
        _write_files(partial, model)
    return target


def load_model(folder: str | Path) -> SavedModel:
    """Read and check what `save_model` wrote.

    Raises ModelError for what is missing, altered, cannot be read, or is of another format.
    """
    return _read_settled(expanded(folder), _read_model)


def read_settings(folder: str | Path) -> dict[str, Any]:
    """`settings.json` of a model folder, checked; loads no torch. Raises ModelError."""
    return _read_settled(expanded(folder), _read_settings)


def _read_settled(path: Path, read: Callable[[Path], Read]) -> Read:
    """What `read` makes of a model folder; again, where the folder was replaced while it read."""
    deadline = time.monotonic() + PATIENCE
    while True:
        before = _identity(path)
        try:
            return read(path)
        except ModelError:
            is_replaced = _identity(path) != before or _is_being_replaced(path)
            if not is_replaced or time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE)


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells one writing of a model from another; None where there is none."""
    try:
        found = (path / SETTINGS).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _is_being_replaced(path: Path) -> bool:
    """Whether the folder was moved away to make room for its successor, which is not there yet."""
    return not path.exists() and any(path.parent.glob(f".{_pattern(path.name)}.*.old"))


def _read_model(path: Path) -> SavedModel:
    settings = _read_settings(path)
    content = {name: _checked_bytes(path / name, expected) for name, expected in settings["sha256"].items()}
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(content[WEIGHTS])
        calibration = json.loads(content[CALIBRATION])["categories"]
        with Image.open(io.BytesIO(content[THUMBNAILS])) as sheet:
            thumbnails = np.array(sheet.convert("RGB"))
    except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
        raise ModelError(f"a readable model in '{shown(path)}'", str(error), "fit the model again") from error
    return SavedModel(settings, tensors, calibration, thumbnails)


def _checked_bytes(file: Path, expected: str) -> bytes:
    """The content of a file, read once, if it has the sha256 `expected`."""
    content = _bytes(file, "copy the whole folder again")
    if hashlib.sha256(content).hexdigest() != expected:
        raise ModelError(
            f"the file {file.name} in '{shown(file.parent)}' as it was saved",
            "another sha256",
            "copy the folder again, or fit again",
        )
    return content


def _bytes(file: Path, do: str) -> bytes:
    """The content of a file of a model. Raises ModelError."""
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        what = f"the file {file.name} in '{shown(file.parent)}'"
        raise ModelError(what, "no such file", do) from error
    except PermissionError as error:
        raise ModelError(
            f"a model that may be read at '{shown(file)}'",
            "permission denied",
            "let the user who runs blemish read the folder and its files",
        ) from error
    except OSError as error:
        raise ModelError(f"a readable file '{shown(file)}'", error.strerror or str(error), do) from error


def _read_settings(path: Path) -> dict[str, Any]:
    file = path / SETTINGS
    if not _is_denied(path) and not file.is_file():
        got = "no such folder" if not path.exists() else "a folder without it" if path.is_dir() else "a file"
        raise ModelError(
            f"a model folder with {SETTINGS} at '{shown(path)}'", got, "give a folder that blemish fit wrote"
        )
    content = _bytes(file, "give a folder that blemish fit wrote")
    try:
        settings: dict[str, Any] = json.loads(content)
        version = int(settings["format_version"])
    except (ValueError, LookupError, TypeError) as error:
        raise ModelError(f"readable settings in '{shown(file)}'", repr(error), "fit the model again") from error
    _check_version(path, version, str(settings.get("blemish", "")))
    if settings.get("settings_sha256") != _settings_hash(settings):
        raise ModelError(f"'{shown(file)}' as it was saved", "another sha256", "copy the folder again")
    if (
        not isinstance(settings.get("sha256"), dict)
        or not {WEIGHTS, CALIBRATION, THUMBNAILS} <= settings["sha256"].keys()
    ):
        raise ModelError(f"the sha256 of every file in '{shown(file)}'", "others", "fit the model again")
    return settings


def _check_version(path: Path, version: int, written_by: str) -> None:
    if version in (FORMAT_VERSION, WITH_IGNORED_AREAS):
        return
    by = f", written by blemish {written_by}" if written_by else ""
    raise ModelError(
        f"a model of format {FORMAT_VERSION} in '{shown(path)}'",
        f"format {version}{by}",
        "update blemish: pip install -U blemish" if version > WITH_IGNORED_AREAS else "fit the model again",
    )


def thumbnail(image: np.ndarray, side: int = THUMBNAIL) -> np.ndarray:
    """A small copy of an image `(H, W, 3)` uint8, of at most `side` pixels a side."""
    small = Image.fromarray(image)
    small.thumbnail((side, side))
    return np.array(small)


def thumbnail_sheet(thumbnails: list[np.ndarray], side: int = THUMBNAIL + 4, columns: int = 8) -> np.ndarray:
    """Thumbnails `(h, w, 3)` uint8, `columns` to a row, on one sheet `(H, W, 3)`."""
    columns = max(1, min(columns, len(thumbnails)))
    rows = max(1, -(-len(thumbnails) // columns))
    sheet = np.full((rows * side, columns * side, 3), 255, np.uint8)
    for index, image in enumerate(thumbnails):
        height, width = image.shape[:2]
        top = (index // columns) * side + (side - height) // 2
        left = (index % columns) * side + (side - width) // 2
        sheet[top : top + height, left : left + width] = image
    return sheet


def _write_files(folder: Path, model: SavedModel) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in model.tensors.items()}, folder / WEIGHTS)
    (folder / CALIBRATION).write_text(_json({"categories": model.calibration}), encoding="utf-8")
    Image.fromarray(model.thumbnails).save(folder / THUMBNAILS)
    version = WITH_IGNORED_AREAS if model.settings.get("ignored_share") else FORMAT_VERSION
    settings = {"format_version": version} | {k: v for k, v in model.settings.items() if k != "settings_sha256"}
    hashes = {}
    for name in (WEIGHTS, CALIBRATION, THUMBNAILS):
        with (folder / name).open("rb") as file:
            hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
    settings["sha256"] = hashes
    settings["settings_sha256"] = _settings_hash(settings)
    (folder / SETTINGS).write_text(_json(settings), encoding="utf-8")


def refuse_foreign(target: Path) -> None:
    """Raise OutputError where `save_model` would: `target` is a file, or a folder with content that is no model."""
    try:
        if not target.exists():
            return
        if target.is_dir() and ((target / SETTINGS).is_file() or not any(target.iterdir())):
            return
    except PermissionError as error:
        raise OutputError(
            f"a place for a model at '{shown(target)}'", "permission denied", "give a folder that can be written"
        ) from error
    kind = "a folder with other files in it" if target.is_dir() else "a file"
    raise OutputError(
        f"a new folder, an empty one or an old model at '{shown(target)}'", kind, "give another name for the model"
    )


def _settings_hash(settings: dict[str, Any]) -> str:
    return json_sha256({key: value for key, value in settings.items() if key != "settings_sha256"})


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def _is_denied(path: Path) -> bool:
    """Whether a folder is there that may not be looked into."""
    return path.is_dir() and not os.access(path, os.X_OK)


def _pattern(name: str) -> str:
    """A file name as a pattern that matches only itself."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
