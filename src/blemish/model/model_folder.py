"""A saved model: a folder of settings, tensors, calibration and thumbnails; never pickle, and never half-written.

`settings.json` names the format's version and the sha256 of every other file (and of itself, without that line). A
folder is written whole under a hidden name beside its target, flushed to the disk, and then renamed: a killed run
leaves the model that was there before, or none.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from blemish.errors import ModelError, OutputError

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 1
SETTINGS, WEIGHTS, CALIBRATION, THUMBNAILS = (
    "settings.json",
    "weights.safetensors",
    "calibration.json",
    "thumbnails.png",
)
FILES = (SETTINGS, WEIGHTS, CALIBRATION, THUMBNAILS)


@dataclass(frozen=True)
class Model:
    """All that a model folder holds: settings, tensors by name, calibrations, and a sheet of good images."""

    settings: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    calibration: list[dict[str, Any]]
    thumbnails: np.ndarray  # (H, W, 3) uint8


def save_model(folder: str | Path, model: Model) -> Path:
    """Write `model` to `folder`, in place of a model that is there; gives back the folder's full path.

    Files that do not belong to a model and lie in the old folder are kept. Raises OutputError when the target is no
    model folder, or cannot be written.
    """
    target = Path(folder).expanduser().resolve()
    _refuse_foreign(target)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target)
        partial.mkdir()
        _write_files(partial, model)
        _replace(target, partial)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise OutputError(
            f"a place for a model at {_shown(target)}",
            error.strerror or str(error),
            "free some room" if full else "give a folder that can be written",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def load_model(folder: str | Path) -> Model:
    """Read and check what `save_model` wrote. Raises ModelError for what is missing, altered or of a newer format."""
    path = Path(folder).expanduser()
    settings = read_settings(path)
    for name, wished in settings["sha256"].items():
        if not (path / name).is_file():
            raise ModelError(f"the file {name} in {_shown(path)}", "no such file", "copy the whole folder again")
        if file_hash(path / name) != wished:
            raise ModelError(
                f"the file {name} in {_shown(path)} as it was saved",
                "another sha256",
                "copy the folder again, or fit again",
            )
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path / WEIGHTS)
        calibration = json.loads((path / CALIBRATION).read_text(encoding="utf-8"))["categories"]
        with Image.open(path / THUMBNAILS) as sheet:
            thumbnails = np.array(sheet.convert("RGB"))
    except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
        raise ModelError(f"a readable model in {_shown(path)}", str(error), "fit the model again") from error
    return Model(settings, tensors, calibration, thumbnails)


def read_settings(folder: str | Path) -> dict[str, Any]:
    """`settings.json` of a model folder, checked; loads no torch. Raises ModelError."""
    path = Path(folder).expanduser()
    file = path / SETTINGS
    if not file.is_file():
        got = "no such folder" if not path.exists() else "a folder without it" if path.is_dir() else "a file"
        raise ModelError(
            f"a model folder with {SETTINGS} at {_shown(path)}", got, "give a folder that blemish fit wrote"
        )
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        version = int(settings["format_version"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelError(f"readable settings in {_shown(file)}", repr(error), "fit the model again") from error
    if version > FORMAT_VERSION:
        raise ModelError(
            f"a model of format {FORMAT_VERSION} or older in {_shown(path)}",
            f"format {version}, written by blemish {settings.get('blemish', 'of a newer version')}",
            "update blemish: pip install -U blemish",
        )
    if settings.get("settings_sha256") != _settings_hash(settings):
        raise ModelError(f"{_shown(file)} as it was saved", "another sha256", "copy the folder again")
    if (
        not isinstance(settings.get("sha256"), dict)
        or not {WEIGHTS, CALIBRATION, THUMBNAILS} <= settings["sha256"].keys()
    ):
        raise ModelError(f"the sha256 of every file in {_shown(file)}", "others", "fit the model again")
    return settings


def remove_leftovers(target: Path) -> None:
    """Delete what killed runs left beside `target`; a run that is still alive keeps its own."""
    for path in target.parent.glob(f".{_escaped(target.name)}.*"):
        pid, _, kind = path.name.removeprefix(f".{target.name}.").partition(".")
        if kind in ("partial", "old") and pid.isdigit() and (int(pid) == os.getpid() or not _is_alive(int(pid))):
            if kind == "old" and not target.exists():  # killed between the two renames: the old model comes back
                os.rename(path, target)
            else:
                shutil.rmtree(path, ignore_errors=True)


def file_hash(path: Path) -> str:
    """The sha256 of a file, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def thumbnail_sheet(images: list[np.ndarray], side: int = 128, columns: int = 8) -> np.ndarray:
    """Small copies of images `(H, W, 3)` uint8, `columns` to a row, on one sheet."""
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    sheet = Image.new("RGB", (columns * side, rows * side), "white")
    for index, image in enumerate(images):
        pil_image = Image.fromarray(image)
        pil_image.thumbnail((side - 4, side - 4))
        left, top = (index % columns) * side, (index // columns) * side
        sheet.paste(pil_image, (left + (side - pil_image.width) // 2, top + (side - pil_image.height) // 2))
    return np.array(sheet)


def _write_files(folder: Path, model: Model) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({name: tensor.contiguous() for name, tensor in model.tensors.items()}, folder / WEIGHTS)
    except SafetensorError as error:  # safetensors wraps what the disk said
        raise OSError(errno.ENOSPC if "No space" in str(error) else errno.EIO, str(error)) from error
    (folder / CALIBRATION).write_text(_json({"categories": model.calibration}), encoding="utf-8")
    Image.fromarray(model.thumbnails).save(folder / THUMBNAILS)
    settings = {"format_version": FORMAT_VERSION} | {k: v for k, v in model.settings.items() if k != "settings_sha256"}
    settings["sha256"] = {name: file_hash(folder / name) for name in FILES if name != SETTINGS}
    settings["settings_sha256"] = _settings_hash(settings)
    (folder / SETTINGS).write_text(_json(settings), encoding="utf-8")
    for name in FILES:
        _flush(folder / name)
    _flush(folder)


def _replace(target: Path, partial: Path) -> None:
    """Put the finished `partial` where `target` is; the old folder leaves only when the new one is in place."""
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        for path in target.iterdir():
            if path.name not in FILES:  # somebody's notes or results: they stay
                _link_or_copy(path, partial / path.name)
        os.rename(target, old)
    try:
        os.rename(partial, target)
    except OSError:
        if old.exists():
            os.rename(old, target)
        raise
    _flush(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _link_or_copy(path: Path, to: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.copytree(path, to, symlinks=True)
    else:
        shutil.copy2(path, to, follow_symlinks=False)


def _refuse_foreign(target: Path) -> None:
    """Raise OutputError when `target` is a file, or a folder with content that is no model of ours."""
    if not target.exists():
        return
    if target.is_dir() and ((target / SETTINGS).is_file() or not any(target.iterdir())):
        return
    kind = "a folder with other files in it" if target.is_dir() else "a file"
    raise OutputError(
        f"a new folder, an empty one or an old model at {_shown(target)}", kind, "give another name for the model"
    )


def _settings_hash(settings: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in settings.items() if key != "settings_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def _flush(path: Path) -> None:
    """Ask the system to bring a file or folder to the disk; not every file system can flush a folder."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if not path.is_dir() or error.errno == errno.ENOSPC:
            raise
    finally:
        os.close(handle)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _escaped(name: str) -> str:
    """A file name as a pattern that matches only itself."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _shown(path: Path) -> str:
    return f"'{os.fsencode(path).decode('utf-8', 'replace')}'"
