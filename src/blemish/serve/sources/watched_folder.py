"""Pictures that other programs drop into a folder, each taken once.

The folder is polled, because network shares send no events. A file is read once its size and time were the same in two
polls and its last change lies `settle_s` back. A picture is known by the hash of its content, so that a file that was
inspected before a crash is not inspected again. Finished files move to done/, broken ones to failed/ with a .txt that
says why; with `move` False a sidecar file NAME.done or NAME.failed.txt is written beside them.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blemish.data.files import image_suffixes
from blemish.errors import ImageError, SettingsError
from blemish.serve.errors import PartIdError, TimeLimitError, TooLargeError
from blemish.utils.atomic import write_text
from blemish.utils.paths import shown

DONE, FAILED = "done", "failed"
PICTURES_FAULT = (ImageError, PartIdError, TooLargeError, TimeLimitError)  # all else is tried again
NAME_BYTES = 230  # of a file that was put away
TEMPORARY = (".tmp", ".temp", ".part", ".partial", ".crdownload", ".filepart")


@dataclass(frozen=True)
class WatchSettings:
    """Seconds between polls and since a file's last change; what a part id is; where finished files go.

    `part_id` is a regular expression whose first group (or whole match) in a file's name is the part's id; without it,
    and where it does not match, the name without suffix. Raises SettingsError.
    """

    poll_s: float = 1.0
    settle_s: float = 2.0
    part_id: str | None = None
    move: bool = True
    max_bytes: int = 256 * 2**20

    def __post_init__(self) -> None:
        if not self.poll_s > 0 or not self.settle_s >= 0:
            raise SettingsError(
                "poll_s above 0 and settle_s of 0 or more", f"{self.poll_s} and {self.settle_s}", "set both"
            )
        try:
            re.compile(self.part_id or "")
        except re.error as error:
            raise SettingsError(
                "a regular expression as part_id", f"{self.part_id!r} ({error})", "mend --watch-part-id"
            ) from error

    def id_of(self, name: str) -> str:
        """The part id of a file."""
        found = re.search(self.part_id, name) if self.part_id else None
        if found is None:
            return Path(name).stem
        return (found.group(1) if found.re.groups else found.group(0)) or Path(name).stem


@dataclass(frozen=True)
class Arrival:
    """A file that is complete: its bytes, its name, its part id, and the SHA-256 of its bytes as hex."""

    content: bytes
    name: str
    part_id: str
    sha256: str


@dataclass(frozen=True)
class PollReport:
    """The names that one poll has handed on, found known already, or found broken, and how many files wait."""

    inspected: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    waiting: int = 0
    error: str = ""  # why the folder could not be read


@dataclass
class WatchedFolder:
    """Hands each new picture of `folder` to `handle`, which returns once the result is stored for good.

    PICTURES_FAULT raised by `handle` send the picture to failed/; any other error (a busy service, a full disk)
    leaves the file where it is, to be tried again at the next poll. `is_known` says whether a picture with this SHA-256
    has been judged: what could not be read is broken each time it comes.
    """

    folder: Path
    handle: Callable[[Arrival], Any]
    is_known: Callable[[str], bool]
    settings: WatchSettings = field(default_factory=WatchSettings)
    seen: dict[str, tuple[int, int]] = field(default_factory=dict)  # size and mtime_ns at the last poll
    report: PollReport = field(default_factory=PollReport)

    def run(self, stop: threading.Event) -> None:
        """Poll until `stop` is set. A vanished share is tried again for ever."""
        while not stop.is_set():
            self.poll(stop)
            stop.wait(self.settings.poll_s)

    def poll(self, stop: threading.Event | None = None) -> PollReport:
        """Look once, and take what is complete, the oldest first."""
        found: dict[str, list[str]] = {"inspected": [], "known": [], "failed": []}
        waiting, error = 0, ""
        try:
            present = self._present()
        except OSError as failure:  # the share is gone: what was seen stays, it may come back
            self.report = PollReport(error=f"{type(failure).__name__}: {failure.strerror or failure}")
            return self.report
        settled = {name for name, state in present.items() if self.seen.get(name) == state and self._is_old(state[1])}
        self.seen = present
        for name in sorted(settled, key=lambda one: (present[one][1], one)):
            if stop is not None and stop.is_set():
                break
            try:
                found[self._take(name, present[name])].append(name)
            except Exception as failure:  # the service's or the share's fault, not the picture's
                error = f"{shown(name)}: {type(failure).__name__}: {failure}"
        waiting = len(present) - sum(map(len, found.values()))
        self.report = PollReport(
            tuple(found["inspected"]), tuple(found["known"]), tuple(found["failed"]), waiting, error
        )
        return self.report

    def _present(self) -> dict[str, tuple[int, int]]:
        """The pictures that wait in the folder, with size and time of the last change."""
        present = {}
        with os.scandir(self.folder) as entries:
            names = {entry.name: entry for entry in entries}
        for name, entry in names.items():
            if not is_picture(name) or f"{name}.done" in names or f"{name}.failed.txt" in names:
                continue
            try:
                if entry.is_file():
                    state = os.stat(entry.path)
                    present[name] = (state.st_size, state.st_mtime_ns)
            except FileNotFoundError:
                continue  # renamed meanwhile
        return present

    def _is_old(self, mtime_ns: int) -> bool:
        """Whether the last change lies back; a clock of the share that is ahead of ours is believed in two polls."""
        age = time.time() - mtime_ns / 1e9
        return age >= self.settings.settle_s or age < -self.settings.settle_s

    def _take(self, name: str, state: tuple[int, int]) -> str:
        """Inspect one file and put it away; which list of the report it belongs to."""
        path = self.folder / name
        if state[0] > self.settings.max_bytes:
            why = f"expected a file of at most {self.settings.max_bytes} bytes; got {state[0]}; raise --max-upload"
            self._put_away(path, FAILED, why)
            return "failed"
        content = path.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        outcome = "known"
        if not self.is_known(sha256):
            try:
                self.handle(Arrival(content, name, self.settings.id_of(name), sha256))
            except PICTURES_FAULT as error:
                self._put_away(path, FAILED, str(error))
                return "failed"
            outcome = "inspected"
        self._put_away(path, DONE)
        return outcome

    def _put_away(self, path: Path, kind: str, why: str = "") -> None:
        """Move a file to done/ or failed/, or write its sidecar; the reason lies there before the file does."""
        if not self.settings.move:
            name = f"{path.name}.failed.txt" if kind == FAILED else f"{path.name}.done"
            write_text(path.with_name(name), f"{why}\n" if why else "", durable=False)
            return
        target = free_name(self.folder / kind / shortened(path.name))
        target.parent.mkdir(exist_ok=True)
        if why:
            write_text(target.with_name(f"{target.name}.txt"), f"{why}\n", durable=False)
        os.replace(path, target)
        self.seen.pop(path.name, None)


def is_picture(name: str) -> bool:
    """Whether a file's name is that of a complete picture: no hidden or temporary one."""
    lowered = name.lower()
    hidden = name.startswith((".", "~"))
    return not hidden and not lowered.endswith(TEMPORARY) and lowered.endswith(tuple(image_suffixes()))


def shortened(name: str) -> str:
    """A file's name with room for a number and ".txt" within the 255 bytes that file systems allow."""
    stem, suffix = os.path.splitext(name)
    room = NAME_BYTES - len(os.fsencode(suffix))
    return os.fsencode(stem)[:room].decode("utf-8", "ignore") + suffix if len(os.fsencode(stem)) > room else name


def free_name(path: Path) -> Path:
    """`path`, or with a number before its suffix where such a file exists: nothing is overwritten."""
    found, count = path, 1
    while found.exists():
        found = path.with_name(f"{path.stem}-{count}{path.suffix}")
        count += 1
    return found
