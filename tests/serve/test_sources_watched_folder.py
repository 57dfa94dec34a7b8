"""A watched folder takes each complete picture once, whatever happens to files, share and service meanwhile."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from blemish.errors import ImageError, OutputError, SettingsError
from blemish.serve.errors import PartIdError
from blemish.serve.sources.watched_folder import Arrival, WatchedFolder, WatchSettings, is_picture, shortened


class Service:
    """Remembers what it has inspected."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.error: Exception | None = None

    def handle(self, arrival: Arrival) -> None:
        if self.error:
            raise self.error
        self.arrivals.append(arrival)

    def is_known(self, sha256: str) -> bool:
        return any(one.sha256 == sha256 for one in self.arrivals)

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.arrivals]


def drop(folder: Path, name: str, content: bytes = b"picture", age: float = 60) -> Path:
    path = folder / name
    path.write_bytes(content)
    os.utime(path, (time.time() - age,) * 2)
    return path


def watched(folder: Path, **settings: object) -> tuple[WatchedFolder, Service]:
    service = Service()
    return WatchedFolder(folder, service.handle, service.is_known, WatchSettings(**settings)), service


def test_a_file_is_read_when_it_was_the_same_in_two_polls(tmp_path: Path) -> None:
    watch, service = watched(tmp_path)
    path = drop(tmp_path, "part-7.png")
    assert watch.poll().waiting == 1
    with path.open("ab") as file:
        file.write(b" grows")
    os.utime(path, (time.time() - 50,) * 2)
    assert watch.poll().inspected == ()
    assert watch.poll().inspected == ("part-7.png",)
    assert service.arrivals[0].content == b"picture grows"
    assert service.arrivals[0].part_id == "part-7"
    assert (tmp_path / "done" / "part-7.png").exists()
    assert not path.exists()
    assert watch.poll().waiting == 0


def test_a_file_that_has_just_changed_waits(tmp_path: Path) -> None:
    watch, service = watched(tmp_path, settle_s=30)
    path = drop(tmp_path, "a.png", age=1)
    watch.poll()
    assert watch.poll().waiting == 1
    os.utime(path, (time.time() - 40,) * 2)
    watch.poll()
    assert watch.poll().inspected == ("a.png",)
    drop(tmp_path, "b.png", b"other", age=-3600)  # the share's clock is ahead
    watch.poll()
    assert watch.poll().inspected == ("b.png",)
    assert service.names == ["a.png", "b.png"]


def test_the_same_content_is_inspected_once(tmp_path: Path) -> None:
    watch, service = watched(tmp_path)
    drop(tmp_path, "a.png")
    watch.poll()
    watch.poll()
    drop(tmp_path, "a.png")
    watch.poll()
    assert watch.poll().known == ("a.png",)
    assert service.names == ["a.png"]
    assert sorted(os.listdir(tmp_path / "done")) == ["a-1.png", "a.png"]


def test_a_crash_between_storing_and_moving_repeats_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch, service = watched(tmp_path)
    drop(tmp_path, "a.png")
    watch.poll()
    with monkeypatch.context() as patched:
        patched.setattr(WatchedFolder, "_put_away", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            watch.poll()
    again = WatchedFolder(tmp_path, service.handle, service.is_known)
    again.poll()
    assert again.poll().known == ("a.png",)
    assert service.names == ["a.png"]


def test_broken_pictures_go_to_failed_with_the_reason(tmp_path: Path) -> None:
    watch, service = watched(tmp_path, max_bytes=10)
    service.error = ImageError("a picture", "noise", "save it again")
    drop(tmp_path, "a.png")
    drop(tmp_path, "large.png", b"x" * 11)
    watch.poll()
    assert sorted(watch.poll().failed) == ["a.png", "large.png"]
    assert "save it again" in (tmp_path / "failed" / "a.png.txt").read_text()
    assert "10 bytes" in (tmp_path / "failed" / "large.png.txt").read_text()


def test_a_name_that_is_no_part_id_fails_though_the_name_is_as_long_as_can_be(tmp_path: Path) -> None:
    watch, service = watched(tmp_path)
    service.error = PartIdError("a part id of at most 200 printable letters", "more", "shorten it")
    name = "\N{GREEK SMALL LETTER ALPHA}" * 125 + ".png"  # 254 bytes
    drop(tmp_path, name)
    watch.poll()
    assert watch.poll().failed == (name,)
    assert watch.poll().waiting == 0
    moved = shortened(name)
    assert sorted(os.listdir(tmp_path / "failed")) == [moved, f"{moved}.txt"]
    assert "shorten it" in (tmp_path / "failed" / f"{moved}.txt").read_text()


def test_what_is_not_the_pictures_fault_is_tried_again(tmp_path: Path) -> None:
    watch, service = watched(tmp_path)
    service.error = OutputError("room on the disk", "none", "free some")
    path = drop(tmp_path, "a.png")
    watch.poll()
    found = watch.poll()
    assert "free some" in found.error
    assert found.waiting == 1
    assert path.exists()
    service.error = None
    assert watch.poll().inspected == ("a.png",)


def test_sidecars_mark_files_that_must_stay(tmp_path: Path) -> None:
    watch, service = watched(tmp_path, move=False)
    drop(tmp_path, "a.png")
    watch.poll()
    assert watch.poll().inspected == ("a.png",)
    service.error = ImageError("a picture", "noise", "save it again")
    drop(tmp_path, "b.png", b"broken")
    watch.poll()
    assert watch.poll().failed == ("b.png",)
    assert watch.poll().waiting == 0
    assert sorted(os.listdir(tmp_path)) == ["a.png", "a.png.done", "b.png", "b.png.failed.txt"]


def test_a_share_that_vanishes_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "share"
    folder.mkdir()
    watch, service = watched(folder)
    drop(folder, "a.png")
    watch.poll()
    folder.rename(tmp_path / "gone")
    assert "FileNotFoundError" in watch.poll().error
    (tmp_path / "gone").rename(folder)
    assert watch.poll().inspected == ("a.png",)
    assert service.names == ["a.png"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", True),
        ("A.JPG", True),
        (".a.png", False),
        ("~a.png", False),
        ("a.png.part", False),
        ("a.tmp", False),
        ("notes.txt", False),
        ("a.png.done", False),
    ],
)
def test_which_names_are_pictures(name: str, expected: bool) -> None:
    assert is_picture(name) == expected


def test_part_ids_by_a_pattern() -> None:
    settings = WatchSettings(part_id=r"_(\d+)_")
    assert settings.id_of("line2_004711_top.png") == "004711"
    assert settings.id_of("other.png") == "other"
    assert WatchSettings(part_id=r"\d+").id_of("n12.png") == "12"
    with pytest.raises(SettingsError, match="regular expression"):
        WatchSettings(part_id="(")
    with pytest.raises(SettingsError, match="poll_s"):
        WatchSettings(poll_s=0)


def test_the_loop_ends_when_told_to(tmp_path: Path) -> None:
    watch, service = watched(tmp_path, poll_s=0.01, settle_s=0)
    drop(tmp_path, "a.png")
    stop = threading.Event()
    thread = threading.Thread(target=watch.run, args=(stop,))
    thread.start()
    deadline = time.monotonic() + 10
    while not service.arrivals and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert service.names == ["a.png"]
