from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from blemish.errors import ModelError, OutputError
from blemish.model.model_folder import (
    FILES,
    WITH_IGNORED_AREAS,
    SavedModel,
    load_model,
    read_settings,
    save_model,
    thumbnail,
    thumbnail_sheet,
)


def model(value: float = 1.0) -> SavedModel:
    sheet = np.zeros((8, 8, 3), dtype=np.uint8)
    tensors = {"detector.bank": torch.full((4, 3), value), "detector.kept": torch.arange(5)[::2]}
    return SavedModel({"seed": 7, "encoder": {"name": "pixels"}}, tensors, [{"category": None}], sheet)


def value_in(folder: Path) -> float:
    return float(load_model(folder).tensors["detector.bank"][0, 0])


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "ein Modell 'größe'"
    assert save_model(folder, model()) == folder.resolve()
    back = load_model(folder)
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    assert back.settings["seed"] == 7
    assert back.calibration == [{"category": None}]
    assert torch.equal(back.tensors["detector.kept"], torch.tensor([0, 2, 4]))
    assert back.thumbnails.shape == (8, 8, 3)


def test_an_old_model_is_replaced_and_foreign_files_stay(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_model(folder, model(1))
    (folder / "notes.txt").write_text("mine")
    (folder / "results").mkdir()
    (folder / "results" / "a.csv").write_text("also mine")
    save_model(folder, model(2))
    assert value_in(folder) == 2
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "results" / "a.csv").read_text() == "also mine"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = save_model(tmp_path / "model", model())
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        load_model(folder)


@pytest.mark.parametrize("name", FILES)
def test_an_altered_file_is_noticed(tmp_path: Path, name: str) -> None:
    folder = save_model(tmp_path / "model", model())
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content.replace(b"7", b"8", 1) if name == "settings.json" else content[:-1] + b"~")
    with pytest.raises(ModelError, match=name):
        load_model(folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format_version": "x"}', "\0\1", '{"format_version": 1}'])
def test_settings_that_are_none_are_a_model_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(ModelError):
        load_model(tmp_path)


def test_a_newer_format_asks_for_an_update(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", model())
    settings = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps(settings | {"format_version": WITH_IGNORED_AREAS + 1}))
    with pytest.raises(ModelError, match="update blemish"):
        read_settings(folder)


@pytest.mark.parametrize("kind", ["nothing", "file", "empty folder"])
def test_no_model_there(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model"
    if kind == "file":
        path.write_text("x")
    elif kind == "empty folder":
        path.mkdir()
    with pytest.raises(ModelError, match=r"settings\.json"):
        load_model(path)


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("x")
    with pytest.raises(OutputError, match="other files"):
        save_model(tmp_path, model())
    with pytest.raises(OutputError, match="a file"):
        save_model(tmp_path / "holiday.txt", model())
    assert [p.name for p in tmp_path.iterdir()] == ["holiday.txt"]


def test_a_target_below_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError):
        save_model(tmp_path / "file" / "model", model())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_an_output_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="can be written"):
            save_model(tmp_path / "model", model())
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("step", ["model.model_folder._write_files", "utils.atomic._replace_folder"])
def test_a_full_disk_keeps_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    folder = save_model(tmp_path / "model", model(1))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"blemish.{step}", full)
    with pytest.raises(OutputError, match="free some room"):
        save_model(folder, model(2))
    assert value_in(folder) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


KILLED = """
import os, signal, sys
import numpy as np, torch
from blemish.model import model_folder
from blemish.utils import atomic
calls = 0
def count(*_):
    global calls
    calls += 1
    if calls == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
for name in ("rename", "fsync"):
    real = getattr(os, name)
    setattr(os, name, lambda *a, real=real, **k: (count(), real(*a, **k))[1])
for name in ("_swapped", "remove"):  # the swap is one system call, after which the old folder is removed
    real = getattr(atomic, name)
    setattr(atomic, name, lambda *a, real=real, **k: (count(), real(*a, **k))[1])
sheet = np.zeros((8, 8, 3), dtype=np.uint8)
new = model_folder.SavedModel({{"seed": 7}}, {{"detector.bank": torch.full((4, 3), 2.0)}}, [], sheet)
model_folder.save_model(sys.argv[1], new)
"""


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 4, 6, 7, 8])
def test_a_killed_run_leaves_the_old_model_or_none(tmp_path: Path, at: int) -> None:
    """Killed before the n-th call that touches the disk; the next save clears away what it left."""
    folder = save_model(tmp_path / "model", model(1))
    done = subprocess.run([sys.executable, "-c", KILLED.format(at=at), str(folder)], timeout=120)
    assert done.returncode == -signal.SIGKILL
    if folder.exists():
        assert value_in(folder) in (1, 2)
    save_model(folder, model(3))
    assert value_in(folder) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def numbered(value: int) -> SavedModel:
    one = model(value)
    return replace(one, settings=one.settings | {"value": value})


def test_readers_get_the_old_or_the_new_model_while_it_is_saved_again_and_again(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", numbered(0))
    is_done = threading.Event()
    values: list[float] = []
    errors: list[BaseException] = []

    def read() -> None:
        while not is_done.is_set():
            try:
                saved = load_model(folder)
                bank = saved.tensors["detector.bank"]
                assert (bank == saved.settings["value"]).all()  # one model, not parts of two
                values.append(float(bank[0, 0]))
            except BaseException as error:
                errors.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for value in range(40):
        save_model(folder, numbered(value))
    is_done.set()
    for reader in readers:
        reader.join()
    assert not errors
    assert len(values) >= 10
    assert len(set(values)) > 1


def test_a_model_of_an_older_format_is_to_be_fitted_again(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", model())
    settings = json.loads((folder / "settings.json").read_text())
    settings["format_version"] = 1
    (folder / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"format 1.*fit the model again"):
        load_model(folder)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_all_files_follow_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        folder = save_model(tmp_path / "model", model())
    finally:
        os.umask(before)
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in FILES} == {mode}


def test_a_model_that_may_not_be_read_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_model(tmp_path / "model", model())

    def denied(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(ModelError, match=r"permission denied.*let the user"):
        load_model(folder)


def test_a_thumbnail_sheet_shows_all_images() -> None:
    images = [thumbnail(np.full((30 + i, 50, 3), 10 * i, dtype=np.uint8), 28) for i in range(11)]
    assert max(images[0].shape) == 28
    sheet = thumbnail_sheet(images, side=32, columns=4)
    assert sheet.shape == (96, 128, 3)
    assert [int(sheet[16 + 32 * (i // 4), 16 + 32 * (i % 4), 0]) for i in range(11)] == [10 * i for i in range(11)]
    assert thumbnail_sheet(images[:1], side=32).shape == (32, 32, 3)
