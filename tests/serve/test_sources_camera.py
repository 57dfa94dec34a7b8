"""A camera gives present frames in RGB, comes back after failures, and lets go when stopped."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from blemish.errors import ImageError, MissingPackageError, SettingsError
from blemish.serve.sources.camera import Camera, CameraSettings, Frame, rgb_of, shown_address

BLUE = np.zeros((4, 6, 3), np.uint8)
BLUE[..., 0] = 200  # OpenCV's order is BGR


class Capture:
    """A capture that gives `frames` frames and then fails."""

    def __init__(self, frames: float = float("inf")) -> None:
        self.frames, self.is_released = frames, False

    def isOpened(self) -> bool:  # noqa: N802
        return self.frames > 0

    def grab(self) -> bool:
        self.frames -= 1
        return self.frames >= 0

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, BLUE

    def release(self) -> None:
        self.is_released = True


@contextmanager
def running(camera: Camera) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=camera.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=10)
        assert not thread.is_alive()
        assert camera.state == "stopped"


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not what() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert what()


def test_frames_come_by_interval_in_rgb_through_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[object, Capture]] = []

    def video_capture(address: object) -> Capture:
        opened.append((address, Capture()))
        return opened[-1][1]

    fake = ModuleType("cv2")
    fake.VideoCapture = video_capture  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cv2", fake)
    frames: list[Frame] = []
    with running(Camera("0", frames.append, CameraSettings(interval_s=0.01))):
        wait_for(lambda: len(frames) >= 3)
    assert opened[0][0] == 0
    assert opened[0][1].is_released
    assert frames[0].image[0, 0].tolist() == [0, 0, 200]
    assert frames[0].part_id is None


def test_a_trigger_gives_one_frame_with_its_part_id() -> None:
    handled: list[Frame] = []
    camera = Camera("rtsp://line", handled.append, open_capture=lambda _: Capture())
    with running(camera):
        frame = camera.trigger("part-9", timeout_s=10)
    assert frame.part_id == "part-9"
    assert frame.image.shape == (4, 6, 3)
    assert handled == []


def test_a_camera_that_fails_is_opened_again_with_longer_and_longer_waits() -> None:
    captures: list[Capture] = []

    def open_capture(_: object) -> Capture:
        captures.append(Capture(0 if len(captures) < 4 else float("inf")))
        return captures[-1]

    settings = CameraSettings(first_wait_s=0.01, longest_wait_s=0.04)
    camera = Camera(0, print, settings, open_capture)
    waits: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0)
            if len(captures) == 5:
                self.set()
            return super().wait(0)

    camera.run(Stop())
    assert waits[:4] == [0.01, 0.02, 0.04, 0.04]
    assert all(one.is_released for one in captures)


def test_a_stream_that_breaks_off_goes_on() -> None:
    frames: list[Frame] = []
    captures: list[Capture] = []

    def open_capture(_: object) -> Capture:
        captures.append(Capture(2))
        return captures[-1]

    settings = CameraSettings(interval_s=0.001, first_wait_s=0.001, longest_wait_s=0.001)
    with running(Camera(0, frames.append, settings, open_capture)):
        wait_for(lambda: len(captures) >= 3 and len(frames) >= 3)


def test_no_frame_in_time_is_an_error_without_the_password() -> None:
    camera = Camera("rtsp://user:secret@line/1", print, open_capture=lambda _: Capture(0))
    with running(camera), pytest.raises(ImageError, match="rtsp://line/1") as error:
        camera.trigger(timeout_s=0.05)
    assert "secret" not in str(error.value)
    assert camera._requests == []
    assert shown_address(0) == "0"


def test_a_failing_service_does_not_end_the_camera() -> None:
    calls: list[Frame] = []

    def handle(frame: Frame) -> None:
        calls.append(frame)
        raise RuntimeError("full")

    with running(Camera(0, handle, CameraSettings(interval_s=0.001), lambda _: Capture())):
        wait_for(lambda: len(calls) >= 2)


def test_a_format_that_cannot_be_used_is_named_and_the_camera_goes_on() -> None:
    class Deep(Capture):
        def retrieve(self) -> tuple[bool, np.ndarray]:
            return True, BLUE.astype(np.uint16)

    camera = Camera(0, print, CameraSettings(first_wait_s=0.001, longest_wait_s=0.001), lambda _: Deep())
    with running(camera), pytest.raises(ImageError, match="8 bits"):
        camera.trigger(timeout_s=0.2)


def test_frames_of_other_kinds() -> None:
    assert rgb_of(np.full((2, 3), 7, np.uint8)).tolist() == np.full((2, 3, 3), 7).tolist()
    with pytest.raises(ImageError, match="8 bits"):
        rgb_of(np.zeros((2, 3, 3), np.uint16))


def test_settings_are_checked() -> None:
    with pytest.raises(SettingsError, match="interval"):
        CameraSettings(interval_s=0)
    with pytest.raises(SettingsError, match="waiting"):
        CameraSettings(first_wait_s=2, longest_wait_s=1)


def test_without_opencv_the_line_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingPackageError, match=r"blemish\[camera\]"):
        Camera(0, print).run(threading.Event())


@pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="cv2 is not installed")
def test_a_video_file_through_opencv(tmp_path: Path) -> None:
    import cv2

    path = str(tmp_path / "line.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(20):
        writer.write(np.full((48, 64, 3), (200, 60, 20), np.uint8))
    writer.release()
    camera = Camera(path, print, CameraSettings(first_wait_s=0.01, longest_wait_s=0.01))
    with running(camera):
        frame = camera.trigger("x", timeout_s=10)
    assert frame.image.mean(axis=(0, 1)) == pytest.approx([20, 60, 200], abs=6)


def test_whatever_opencv_raises_is_a_failure_of_the_camera() -> None:
    captures: list[Capture] = []

    class Raises(Capture):
        def grab(self) -> bool:
            if len(captures) < 3:
                raise RuntimeError("OpenCV: rtsp://user:secret@line broke off")
            return super().grab()

    def open_capture(_: object) -> Capture:
        captures.append(Raises())
        if len(captures) == 1:
            raise RuntimeError("OpenCV: no device")
        return captures[-1]

    camera = Camera(0, print, CameraSettings(first_wait_s=0.3, longest_wait_s=0.3), open_capture)
    with running(camera):
        wait_for(lambda: "broke off" in camera.problem)
        assert "secret" not in camera.problem
        assert camera.trigger(timeout_s=10).image.shape == (4, 6, 3)
        assert camera.problem == ""
    assert [one.is_released for one in captures] == [False, True, True]


def test_frames_are_present_ones_though_an_inspection_takes_longer_than_the_interval() -> None:
    """A camera of 50 frames a second that holds what nobody fetches, as a stream does."""

    class Stream(Capture):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.fetched = time.monotonic(), 0

        @property
        def behind(self) -> float:
            return (time.monotonic() - self.start) * 50 - self.fetched

        def grab(self) -> bool:
            while self.behind < 0:
                time.sleep(0.001)
            self.fetched += 1
            return super().grab()

    stream, behind = Stream(), []

    def handle(_: Frame) -> None:
        behind.append(stream.behind)
        time.sleep(0.3)

    camera = Camera(0, handle, CameraSettings(interval_s=0.01), lambda _: stream)
    with running(camera):
        wait_for(lambda: len(behind) == 4)
        assert camera.trigger(timeout_s=0.2).part_id is None  # not held up by what is being inspected
    assert max(behind) < 12


def test_why_a_frame_was_not_inspected_stays_to_be_read() -> None:
    answers: list[Exception | None] = [RuntimeError("full")]

    def handle(_: Frame) -> None:
        if answers and answers[0]:
            raise answers[0]

    camera = Camera(0, handle, CameraSettings(interval_s=0.3), lambda _: Capture())
    with running(camera):
        wait_for(lambda: "not inspected: full" in camera.state)
        time.sleep(0.1)
        assert "not inspected: full" in camera.state
        answers.clear()
        wait_for(lambda: camera.state == "connected")
