"""Pictures of a camera: an index or a stream's address that OpenCV opens (extra `camera`), by interval or on demand.

Frames are fetched all the time, also while one is inspected, so that what is inspected is the present one and not what
a stream has buffered; only those asked for are decoded. A camera that fails is opened again, with waiting times that
double.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from blemish.errors import BlemishError, ImageError, SettingsError
from blemish.utils.optional import need

PAUSE_S = 0.02  # between two frames of a source that gives them at once, such as a file


class Capture(Protocol):
    """What is used of `cv2.VideoCapture`."""

    def isOpened(self) -> bool: ...  # noqa: N802 - OpenCV's name
    def grab(self) -> bool: ...
    def retrieve(self) -> tuple[bool, Any]: ...
    def release(self) -> None: ...


@dataclass(frozen=True)
class CameraSettings:
    """Seconds between two inspections (None: only when triggered), and of waiting before a camera is opened again.

    Where an inspection takes longer than `interval_s`, the next one begins when it has ended.
    """

    interval_s: float | None = None
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0

    def __post_init__(self) -> None:
        if self.interval_s is not None and not self.interval_s > 0:
            raise SettingsError("an interval above 0 s, or None", repr(self.interval_s), "set interval_s")
        if not 0 < self.first_wait_s <= self.longest_wait_s:
            raise SettingsError(
                "waiting times above 0, the first not above the longest",
                f"{self.first_wait_s} and {self.longest_wait_s}",
                "set both",
            )


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture `(H, W, 3)` uint8 RGB, the part's id if one was given, and when it was taken (seconds since 1970)."""

    image: np.ndarray
    part_id: str | None
    time: float


@dataclass(eq=False)
class _Request:
    part_id: str | None
    is_done: threading.Event = field(default_factory=threading.Event)
    frame: Frame | None = None


class Camera:
    """Hands frames to `handle`, one at a time, in a thread of its own beside `run`, which the service gives another.

    `address` is an index or a URL (rtsp://…). `open_capture` opens it, by OpenCV unless given. `state` says in words
    how the camera is, `problem` what was wrong with it or its last frame, "" once one could be used again.
    """

    def __init__(
        self,
        address: int | str,
        handle: Callable[[Frame], Any],
        settings: CameraSettings | None = None,
        open_capture: Callable[[int | str], Capture] | None = None,
    ) -> None:
        self.address = int(address) if isinstance(address, str) and address.isdigit() else address
        self.handle, self.settings = handle, settings or CameraSettings()
        self.open_capture = open_capture or open_with_opencv
        self.state, self.problem = "not started", ""
        self._not_inspected = ""  # why the last frame was not
        self._handling: threading.Thread | None = None
        self._requests: list[_Request] = []
        self._lock = threading.Lock()

    def trigger(self, part_id: str | None = None, timeout_s: float = 5.0) -> Frame:
        """The next frame, for the part `part_id`; it does not go to `handle`. From any thread, while `run` runs.

        Raises ImageError where none came in time.
        """
        request = _Request(part_id)
        with self._lock:
            self._requests.append(request)
        request.is_done.wait(timeout_s)
        with self._lock:
            if request in self._requests:
                self._requests.remove(request)
        if request.frame is None:
            raise ImageError(
                f"a frame of camera {shown_address(self.address)} within {timeout_s:g} s",
                self.problem or self.state,
                "check the camera and its cable",
            )
        return request.frame

    def run(self, stop: threading.Event) -> None:
        """Fetch frames until `stop` is set; the camera is released whatever happens."""
        wait = self.settings.first_wait_s
        while not stop.is_set():
            self.state = "connecting"
            if self._connected(stop):
                wait = self.settings.first_wait_s
            if stop.is_set():
                break
            self.state = f"no picture, next try in {wait:g} s"
            stop.wait(wait)
            wait = min(2 * wait, self.settings.longest_wait_s)
        if self._handling is not None:
            self._handling.join()
        self.state = "stopped"

    def _connected(self, stop: threading.Event) -> bool:
        """Open the camera and fetch frames until it fails or `stop` is set; whether there were any.

        Raises MissingPackageError without OpenCV. Whatever else OpenCV raises is a failure of the camera.
        """
        try:
            capture = self.open_capture(self.address)
            try:
                return self._fetch(capture, stop)
            finally:
                capture.release()
        except BlemishError:
            raise
        except Exception as error:
            self.problem = shown_address(f"{type(error).__name__}: {error}")
            return False

    def _fetch(self, capture: Capture, stop: threading.Event) -> bool:
        """Fetch frames until the camera fails or `stop` is set; whether there were any."""
        has_frames = False
        due = time.monotonic()
        while not stop.is_set() and capture.isOpened() and capture.grab():
            has_frames, self.state = True, f"connected{self._not_inspected}"
            with self._lock:
                asked, self._requests = self._requests, []
            is_at_work = self._handling is not None and self._handling.is_alive()
            is_due = self.settings.interval_s is not None and not is_at_work and time.monotonic() >= due
            if asked or is_due:
                frame = self._retrieved(capture)
                if frame is None:
                    with self._lock:
                        self._requests = asked + self._requests
                    return has_frames
                for request in asked:
                    request.frame = Frame(frame.image, request.part_id, frame.time)
                    request.is_done.set()
                if is_due:
                    due = time.monotonic() + (self.settings.interval_s or 0.0)
                    self._handling = threading.Thread(target=self._hand_on, args=(frame,), daemon=True)
                    self._handling.start()
            stop.wait(PAUSE_S)
        return has_frames

    def _retrieved(self, capture: Capture) -> Frame | None:
        """The frame fetched last; None where it cannot be decoded, or is of a kind that cannot be used."""
        is_good, pixels = capture.retrieve()
        if not is_good:
            return None
        try:
            frame = Frame(rgb_of(pixels), None, time.time())
        except ImageError as error:
            self.problem = str(error)
            return None
        self.problem = ""
        return frame

    def _hand_on(self, frame: Frame) -> None:
        """Give a frame to `handle`; what fails there must not end the camera."""
        try:
            self.handle(frame)
            self._not_inspected = ""
        except Exception as error:
            self._not_inspected = f", but the last picture was not inspected: {error}"


def rgb_of(pixels: np.ndarray) -> np.ndarray:
    """OpenCV's frame, `(H, W, 3)` BGR or `(H, W)` grey uint8, as `(H, W, 3)` RGB; raises ImageError for others."""
    if pixels.dtype == np.uint8 and pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3:
        return np.ascontiguousarray(pixels[..., ::-1])
    raise ImageError(
        "a frame of 8 bits with 1 or 3 channels", f"{pixels.dtype} of shape {pixels.shape}", "set the camera's format"
    )


def open_with_opencv(address: int | str) -> Capture:
    """OpenCV's capture of an address. Raises MissingPackageError without OpenCV."""
    capture: Capture = need("cv2", "camera", "pictures from a camera").VideoCapture(address)
    return capture


def shown_address(address: int | str) -> str:
    """An address for messages, without the user and password in it."""
    return re.sub(r"//[^/@]*@", "//", str(address))
