from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blemish.errors import OutputError
from blemish.utils import atomic
from blemish.utils.atomic import (
    atomic_file,
    atomic_folder,
    atomic_update,
    check_writable,
    is_alive,
    remove_leftovers,
    write_text,
)

WRITE_AND_HANG = """
import sys, time
from blemish.utils import atomic
with getattr(atomic, sys.argv[1])(sys.argv[2]) as partial:
    if sys.argv[1] != "atomic_file":
        (partial / "x").write_text("half")
    print(partial, flush=True)
    time.sleep(60)
"""
KINDS = ("atomic_file", "atomic_folder", "atomic_update")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(kind: str, partial: Path, content: str) -> None:
    (partial if kind == "atomic_file" else partial / "x").write_text(content)


def write_half(kind: str, target: Path, error: type[BaseException]) -> None:
    with getattr(atomic, kind)(target) as partial:
        fill(kind, partial, "half")
        raise error


def content_of(kind: str, target: Path) -> str:
    return (target if kind == "atomic_file" else target / "x").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_the_old_content_stays_until_the_new_one_is_whole(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "ein Ziel 'größe'"
    for content in ("old", "new"):
        with getattr(atomic, kind)(target) as partial:
            fill(kind, partial, content)
            if content == "new":
                assert content_of(kind, target) == "old"
        assert content_of(kind, target) == content
    assert names_in(tmp_path) == [target.name]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_what_ends_the_block_early_leaves_nothing(tmp_path: Path, kind: str, error: type[BaseException]) -> None:
    target = tmp_path / "target"
    with pytest.raises(error):
        write_half(kind, target, error)
    assert names_in(tmp_path) == []
    with getattr(atomic, kind)(target) as partial:
        fill(kind, partial, "old")
    with pytest.raises(error):
        write_half(kind, target, error)
    assert content_of(kind, target) == "old"
    assert names_in(tmp_path) == ["target"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_an_output_error_that_names_the_target(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    wanted = pytest.raises(OutputError, match=r"target.*No space left.*free some room")
    with wanted, getattr(atomic, kind)(tmp_path / "target") as partial:
        fill(kind, partial, "x")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "do"),
    [
        (errno.ENOSPC, "free some room"),
        (errno.EDQUOT, "free some room"),
        (errno.EFBIG, "takes larger files"),
        (errno.EIO, "check the disk"),
        (errno.EROFS, "mount the disk for writing"),
        (errno.EACCES, "mend the permissions"),
        (errno.ENAMETOOLONG, "a shorter name"),
        (errno.EMFILE, "ulimit -n"),
    ],
)
def test_a_failure_to_write_says_what_to_do_whoever_wrote(tmp_path: Path, number: int, do: str) -> None:
    from safetensors import SafetensorError

    with pytest.raises(OutputError, match=rf"{os.strerror(number)}.*{do}"), atomic_file(tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    with pytest.raises(OutputError, match=rf"{os.strerror(number)}.*{do}"), atomic_file(tmp_path / "a"):
        raise SafetensorError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})")


def test_an_error_of_safetensors_without_a_number_is_an_output_error(tmp_path: Path) -> None:
    from safetensors import SafetensorError

    with pytest.raises(OutputError, match="InvalidHeader"), atomic_file(tmp_path / "a"):
        raise SafetensorError("InvalidHeader")


def test_whether_a_place_can_be_written_is_tried_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    check_writable(tmp_path / "new" / "target")
    check_writable(tmp_path / "file")
    with pytest.raises(OutputError, match=r"file.target'; got a file where a folder should be; name a folder"):
        check_writable(tmp_path / "file" / "target")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_below_a_file_is_an_output_error(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"file.target"), getattr(atomic, kind)(tmp_path / "file" / "target"):
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_leftovers_of_a_killed_run_go_and_those_of_a_living_one_stay(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    command = [sys.executable, "-c", WRITE_AND_HANG, kind, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        partial = Path(other.stdout.readline().strip())
        remove_leftovers(partial.parent)
        assert partial.exists()
        other.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    assert partial.exists()
    with getattr(atomic, kind)(target) as new:
        fill(kind, new, "new")
    assert not partial.exists()
    assert names_in(tmp_path) == ["target"]


def test_leftovers_of_an_earlier_process_of_our_own_number_go(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a") as partial:
        other = partial.with_name(partial.name.replace(f"-{os.getpid()}-", f"-{os.getpid()}-9"))
        other.touch()
        remove_leftovers(tmp_path)
        assert partial.exists()
        assert not other.exists()


def test_leftovers_of_another_machine_go_when_they_are_a_day_old(tmp_path: Path) -> None:
    foreign = tmp_path / f".a.00000000-{os.getpid()}-1.partial"
    foreign.touch()
    remove_leftovers(tmp_path)
    assert foreign.exists()
    os.utime(foreign, (time.time() - 90_000,) * 2)
    remove_leftovers(tmp_path)
    assert not foreign.exists()


def test_a_folder_moved_away_by_a_killed_run_comes_back(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "model") as partial:
        host = partial.name.split(".")[2].split("-")[0]
        partial.write_text("")
    (tmp_path / "model").unlink()
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    old = tmp_path / f".model.{host}-{process.stdout.strip()}-0.old"
    old.mkdir()
    (old / "x").write_text("mine")
    remove_leftovers(tmp_path)
    assert (tmp_path / "model" / "x").read_text() == "mine"


def test_files_of_other_names_are_no_leftovers(tmp_path: Path) -> None:
    for name in (".a.partial", "a.00000000-1-1.partial", ".a.1.partial", ".a.00000000-1-1.tmp"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    remove_leftovers(tmp_path)
    assert len(names_in(tmp_path)) == 4


@pytest.mark.skipif(os.name == "nt", reason="modes are those of Unix")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_modes_follow_the_umask_whoever_wrote_the_file(tmp_path: Path, umask: int, mode: int) -> None:
    from safetensors.numpy import save_file

    before = os.umask(umask)
    try:
        with atomic_file(tmp_path / "a") as partial:
            save_file({"x": np.zeros(3)}, partial)
            partial.chmod(0o600)
        for kind in (atomic_folder, atomic_update):
            with kind(tmp_path / kind.__name__) as partial:
                (partial / "b").write_text("x")
                (partial / "b").chmod(0o600)
    finally:
        os.umask(before)
    for file in (tmp_path / "a", tmp_path / "atomic_folder" / "b", tmp_path / "atomic_update" / "b"):
        assert file.stat().st_mode & 0o777 == mode, file


@pytest.mark.parametrize("swap", [True, False])
def test_other_files_stay_in_a_folder_that_is_replaced(
    tmp_path: Path, swap: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not swap:
        monkeypatch.setattr(atomic, "_swapped", lambda *_: False)
    target = tmp_path / "model"
    for value in ("1", "2"):
        with atomic_folder(target, owned=("x", "gone")) as partial:
            (partial / "x").write_text(value)
            if value == "1":
                (partial / "gone").touch()
        if value == "1":
            (target / "notes").mkdir()
            (target / "notes" / "a.txt").write_text("mine")
    assert names_in(target) == ["notes", "x"]
    assert (target / "x").read_text() == "2"
    assert (target / "notes" / "a.txt").read_text() == "mine"
    assert names_in(tmp_path) == ["model"]


def test_an_update_replaces_its_own_files_and_sub_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "overlays").mkdir()
    (tmp_path / "overlays" / "old.jpg").touch()
    (tmp_path / "notes.txt").write_text("mine")
    with atomic_update(tmp_path) as partial:
        (partial / "overlays").mkdir()
        (partial / "overlays" / "new.jpg").touch()
        (partial / "results.csv").touch()
    assert names_in(tmp_path) == ["notes.txt", "overlays", "results.csv"]
    assert names_in(tmp_path / "overlays") == ["new.jpg"]


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="two renames elsewhere")
def test_readers_find_the_old_or_the_new_folder_at_any_time(tmp_path: Path) -> None:
    target, missing, stop = tmp_path / "model", [], threading.Event()
    with atomic_folder(target) as partial:
        fill("atomic_folder", partial, "0")

    def read() -> None:
        while not stop.is_set():
            if not target.is_dir():
                missing.append(time.time())

    thread = threading.Thread(target=read)
    thread.start()
    for i in range(100):
        with atomic_folder(target) as partial:
            fill("atomic_folder", partial, str(i))
    stop.set()
    thread.join()
    assert not missing


def test_many_threads_may_write_one_file(tmp_path: Path) -> None:
    target = tmp_path / "a"
    threads = [threading.Thread(target=write_text, args=(target, str(i) * 10_000)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = target.read_text()
    assert len(text) == 10_000
    assert len(set(text)) == 1
    assert names_in(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["n" * 240, "ä" * 120, "部" * 80])
def test_long_names(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "x")
    assert names_in(tmp_path) == [name]


def test_a_folder_made_for_nothing_is_gone(tmp_path: Path) -> None:
    with atomic_update(tmp_path / "out"):
        pass
    assert not (tmp_path / "out").exists()


def test_which_processes_are_alive() -> None:
    assert is_alive(os.getpid())
    assert is_alive(os.getppid())
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    assert not is_alive(int(ended.stdout))
    assert not is_alive(2**80)


def test_windows_is_never_asked_by_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """There `os.kill(pid, 0)` is Ctrl-C."""

    class Kernel:
        def OpenProcess(self, _access: int, _inherit: bool, pid: int) -> int:  # noqa: N802 - Windows' name
            return 7 if pid == 1 else 0

        def GetLastError(self) -> int:  # noqa: N802
            return 87

        def GetExitCodeProcess(self, _handle: int, code: Any) -> int:  # noqa: N802
            code._obj.value = 259
            return 1

        def CloseHandle(self, _handle: int) -> None:  # noqa: N802
            pass

    class Windll:
        kernel32 = Kernel()

    def refuse(*_: Any) -> None:
        raise AssertionError("a signal was sent")

    monkeypatch.setattr(atomic.sys, "platform", "win32")
    monkeypatch.setattr(atomic.ctypes, "windll", Windll(), raising=False)
    monkeypatch.setattr(atomic.os, "kill", refuse)
    assert is_alive(1)
    assert not is_alive(2)


def test_a_file_is_never_taken_for_the_folder_that_is_replaced(tmp_path: Path) -> None:
    for target in (tmp_path / "notes", tmp_path / "out" / "maps"):
        target.parent.mkdir(exist_ok=True)
        target.write_text("mine")
    ran = False
    with pytest.raises(OutputError, match=r"notes.*a file where a folder should be"), atomic_folder(tmp_path / "notes"):
        ran = True
    assert not ran  # before hours of work, not after them
    with (
        pytest.raises(OutputError, match=r"maps.*a file where a folder should be"),
        atomic_update(tmp_path / "out") as partial,
    ):
        (partial / "maps").mkdir()
    with (
        pytest.raises(OutputError, match=r"late.*a file where a folder should be"),
        atomic_folder(tmp_path / "late") as partial,
    ):
        (tmp_path / "late").write_text("mine")
    with pytest.raises(OutputError, match="a folder where a file should be"), atomic_file(tmp_path / "out"):
        pass
    assert {file.read_text() for file in (tmp_path / "notes", tmp_path / "out" / "maps", tmp_path / "late")} == {"mine"}
    assert names_in(tmp_path) == ["late", "notes", "out"]


@pytest.mark.parametrize("links", [True, False])
def test_what_is_kept_of_an_old_folder_is_linked_where_that_can_be(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    kept = [tmp_path / "model" / name for name in ("large.bin", "deep/large.bin")]
    kept[1].parent.mkdir(parents=True)
    for file in kept:
        file.write_text("mine")
    (tmp_path / "model" / "link").symlink_to("large.bin")
    before = [file.stat().st_ino for file in kept]
    with atomic_folder(tmp_path / "model", owned=()):
        pass
    assert [file.read_text() for file in (*kept, tmp_path / "model" / "link")] == ["mine"] * 3
    assert (tmp_path / "model" / "link").is_symlink()
    assert ([file.stat().st_ino for file in kept] == before) is links
    assert {file.stat().st_nlink for file in kept} == {1}


def test_temporary_names_hold_whole_characters(tmp_path: Path) -> None:
    target = tmp_path / ("x" + 60 * "é")  # 121 bytes, of which no even number ends a character
    with atomic_file(target) as partial:
        partial.write_text("whole")
        partial.name.encode()  # raises where a character was cut in two
    assert target.read_text() == "whole"


def test_the_root_folder_can_be_asked_about() -> None:
    check_writable(Path("/"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="namespaces of process numbers")
def test_runs_in_another_container_of_the_same_name_keep_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with atomic_file(tmp_path / "a") as partial:
        other = partial.name.replace(f"-{os.getpid()}-", "-99999999-")  # nobody has that number here
    (tmp_path / other).touch()
    monkeypatch.setattr(os, "readlink", lambda _: "pid:[1]")
    remove_leftovers(tmp_path)
    assert names_in(tmp_path) == [other, "a"]
    monkeypatch.undo()
    remove_leftovers(tmp_path)
    assert names_in(tmp_path) == ["a"]
