"""Write files and folders whole or not at all: the one protocol for everything the program leaves on disk.

What is being written lies under a hidden temporary name, `.NAME.HOST-PID-COUNT.partial`, beside its target (inside it
for `atomic_update`), is flushed to the disk and renamed when it is complete. An error or Ctrl-C removes it at once;
what a killed run leaves is removed by the next run that writes the same target. Modes follow the umask, whatever
library wrote the files. Every failure to write becomes an OutputError that names the target.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import itertools
import math
import os
import platform
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from blemish.errors import OutputError
from blemish.utils.paths import shown

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_IN_THE_WAY = frozenset({errno.EEXIST, errno.ENOTDIR})
_DO = {  # what helps, where it is not the permissions
    errno.ENOSPC: "free some room, or name another place",
    errno.EDQUOT: "free some room, or name another place",
    errno.EFBIG: "name a place that takes larger files (a disk in FAT does not), or raise the limit of `ulimit -f`",
    errno.EIO: "check the disk and its connection, or name another place",
    errno.EROFS: "mount the disk for writing, or name another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit of `ulimit -n`, or close other programs",
}
_NUMBER = re.compile(r"\(os error (\d+)\)")  # in what safetensors says
_NAME_BYTES = 100  # of the target's name in a temporary one; file systems allow 255 in all
_FOREIGN_AGE = 24 * 3600.0  # seconds after which leftovers of another machine or container are taken for dead
_CLEAN_EVERY = 60.0  # seconds between two looks for leftovers in a folder of single files: it may hold very many
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-\d+\.(?P<kind>partial|old)", re.DOTALL)

_count = itertools.count()
_ours: set[str] = set()  # temporary names that this process is writing now
_cleaned: dict[Path, float] = {}  # when this process last removed leftovers of a folder
_lock = threading.Lock()


@contextmanager
def atomic_file(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary file that becomes `path` when the block ends well; its folder is made if need be.

    The block may write the file with anything that takes a path. `durable` waits until the disk has it: leave it out
    for files that are cheap to make again. Raises OutputError where it cannot be written.
    """
    path = Path(path)
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if time.monotonic() - _cleaned.get(path.parent, -math.inf) > _CLEAN_EVERY:
            remove_leftovers(path.parent)
            _cleaned[path.parent] = time.monotonic()
        with _temporary(path) as partial:
            partial.touch()  # made by us first: its mode is what the umask allows
            mode = partial.stat().st_mode & 0o777
            yield partial
            partial.chmod(mode)  # some libraries write files that their owner alone can read
            if durable:
                flush(partial)
            os.replace(partial, path)
            if durable:
                flush(path.parent)


def write_bytes(path: str | Path, content: bytes, durable: bool = True) -> Path:
    """Write a file whole or not at all. Raises OutputError."""
    with atomic_file(path, durable) as partial:
        partial.write_bytes(content)
    return Path(path)


def write_text(path: str | Path, text: str, durable: bool = True) -> Path:
    """Write a file of UTF-8 text whole or not at all; what UTF-8 cannot hold becomes "?". Raises OutputError."""
    return write_bytes(path, text.encode("utf-8", "replace"), durable)


@contextmanager
def atomic_folder(path: str | Path, owned: Collection[str] | None = None, durable: bool = True) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes the folder `path` when the block ends well.

    An old folder of that name is replaced in one step where the system can swap two folders (Linux, macOS), so that a
    reader finds the old or the new one at any time. With `owned`, whatever else than these names lies in the old folder
    is kept in the new one. Raises OutputError where it cannot be written.
    """
    path = Path(path)
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_file(path)
        remove_leftovers(path.parent)
        with _temporary(path) as partial:
            partial.mkdir()
            yield partial
            _settle(partial, durable)
            if owned is not None and path.is_dir():
                for entry in path.iterdir():
                    if entry.name not in owned:
                        _link_or_copy(entry, partial / entry.name)
            _replace_folder(path, partial)


@contextmanager
def atomic_update(folder: str | Path, durable: bool = True) -> Iterator[Path]:
    """Yield an empty temporary folder inside `folder`; what it holds moves into `folder` when the block ends well.

    Files and sub-folders of the same name are replaced, sub-folders first (files may point at them); other content of
    `folder` stays. A `folder` that was made for this and stays empty is removed. Raises OutputError.
    """
    folder = Path(folder)
    made = not folder.exists()
    try:
        with output_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder)
            with _temporary(folder / "update") as partial:
                partial.mkdir()
                yield partial
                _settle(partial, durable)
                for entry in sorted(partial.iterdir(), key=lambda p: (p.is_file(), p.name)):
                    if entry.is_dir():
                        _replace_folder(folder / entry.name, entry)
                    else:
                        os.replace(entry, folder / entry.name)
                flush(folder)
    finally:
        if made and folder.is_dir():
            with suppress(OSError):  # not empty
                folder.rmdir()


def check_writable(path: str | Path) -> None:
    """Raise OutputError unless a file or folder can be made at `path`; nothing is left there."""
    path = Path(path).absolute()
    with output_errors(path):
        folder = next((parent for parent in path.parents if parent.exists()), path)
        with tempfile.TemporaryFile(dir=folder):
            pass


@contextmanager
def output_errors(path: str | Path) -> Iterator[None]:
    """Turn any failure to write inside the block into an OutputError that names `path`."""
    try:
        yield
    except OSError as error:
        raise output_error(path, error) from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # what safetensors makes of a failed write
            raise
        number = _NUMBER.search(str(error))
        raise output_error(path, OSError(int(number[1]) if number else None, str(error))) from error


def output_error(path: str | Path, error: OSError) -> OutputError:
    """The error for a file or folder at `path` that cannot be written."""
    got, do = error.strerror or str(error), "mend the permissions, or name another place"
    if error.errno in _DO:
        do = _DO[error.errno]
    elif error.errno in _IN_THE_WAY:
        got, do = "a file where a folder should be", "name a folder"
    elif error.errno == errno.EISDIR:
        got, do = "a folder where a file should be", "name a file, or move the folder away"
    return OutputError(f"a place that can be written at '{shown(path)}'", got, do)


def remove_leftovers(folder: str | Path) -> None:
    """Remove the temporary files and folders that killed runs left in `folder`; runs that are alive keep theirs.

    A folder that was moved away to make room for its successor, and has none, comes back.
    """
    with suppress(OSError):
        for found in Path(folder).iterdir():
            parts = _TEMPORARY.fullmatch(found.name)
            if parts is None or not _is_dead(found, parts["host"], int(parts["pid"])):
                continue
            target = found.with_name(parts["name"])
            if parts["kind"] == "old" and not target.exists():
                os.rename(found, target)
            else:
                remove(found)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, as far as that can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have the system bring a file or folder to the disk; not every file system can flush a folder."""
    try:
        handle = os.open(path, os.O_RDWR if path.is_file() and os.name == "nt" else os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if not path.is_dir() or error.errno in _FULL:
            raise
    finally:
        os.close(handle)


def is_alive(pid: int) -> bool:
    """Whether a process of this number runs on this machine."""
    if sys.platform == "win32":  # os.kill(pid, 0) would send it Ctrl-C
        kernel = ctypes.windll.kernel32
        handle = kernel.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
        if not handle:
            return bool(kernel.GetLastError() == 5)  # access denied: it is there
        code = ctypes.c_ulong()
        known = kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel.CloseHandle(handle)
        return not known or code.value == 259  # STILL_ACTIVE
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


@contextmanager
def _temporary(path: Path, kind: str = "partial") -> Iterator[Path]:
    """A temporary name beside `path` that nobody else uses; what is left under it when the block ends is removed."""
    name = path.name
    while len(os.fsencode(name)) > _NAME_BYTES:  # character by character: some systems take no half ones
        name = name[:-1]
    with _lock:
        temporary = path.with_name(f".{name}.{_host()}-{os.getpid()}-{next(_count)}.{kind}")
        _ours.add(temporary.name)
    try:
        yield temporary
    finally:
        remove(temporary)
        _ours.discard(temporary.name)


def _is_dead(found: Path, host: str, pid: int) -> bool:
    """Whether nobody writes a temporary file or folder any more."""
    if host != _host():
        with suppress(OSError):
            return time.time() - found.stat().st_mtime > _FOREIGN_AGE
        return False
    # In containers a new process may well have the number of the one that was killed.
    return found.name not in _ours if pid == os.getpid() else not is_alive(pid)


def _host() -> str:
    """Eight letters for this machine and, in containers, the numbers of its processes: elsewhere they mean nothing.

    Containers that share a disk may share a machine's name as well.
    """
    numbers = ""
    with suppress(OSError):  # no Linux
        numbers = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{platform.node()} {numbers}".encode()).hexdigest()[:8]


def _settle(folder: Path, durable: bool) -> None:
    """Give every file in a folder the mode that the umask allows, and bring all to the disk where it is to last."""
    mode = folder.stat().st_mode & 0o666
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            file = Path(place, name)
            if not file.is_symlink():
                file.chmod(mode | file.stat().st_mode & 0o111)
                if durable:
                    flush(file)
        if durable:
            flush(Path(place))


def _replace_folder(path: Path, partial: Path) -> None:
    """Put the folder `partial` where `path` is; the old folder, if any, is removed when the new one is in place.

    A file there is never taken for one: swapped, it would be removed. Raises OutputError, which names it.
    """
    with output_errors(path):
        _refuse_file(path)
    if not path.exists():
        os.rename(partial, path)
    elif _swapped(partial, path):
        remove(partial)
    else:
        with _temporary(path, "old") as old:
            os.rename(path, old)
            try:
                os.rename(partial, path)
            except OSError:
                os.rename(old, path)
                raise
    flush(path.parent)


def _refuse_file(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def _swapped(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False where the system or its file system cannot."""
    if sys.platform == "linux":
        call, here, swap = "renameat2", (-100,), 2  # AT_FDCWD, RENAME_EXCHANGE
    elif sys.platform == "darwin":
        call, here, swap = "renamex_np", (), 2  # RENAME_SWAP
    else:
        return False
    function = getattr(ctypes.CDLL(None, use_errno=True), call, None)
    if function is None:
        return False
    return bool(function(*here, os.fsencode(one), *here, os.fsencode(other), ctypes.c_uint(swap)) == 0)


def _link_or_copy(path: Path, to: Path) -> None:
    """The same content at another place: links where the file system has them (a large file costs nothing)."""
    if path.is_dir() and not path.is_symlink():
        shutil.copytree(path, to, symlinks=True, copy_function=_link_or_copy_file)
    else:
        _link_or_copy_file(path, to)


def _link_or_copy_file(path: str | Path, to: str | Path) -> None:
    try:
        os.link(path, to, follow_symlinks=False)
    except (OSError, NotImplementedError):  # a file system without links, or the file of another user
        shutil.copy2(path, to, follow_symlinks=False)
