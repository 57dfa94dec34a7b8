"""Where parts come from besides requests: watched folders and cameras, each in a thread of its own.

They are named at the start, on the command line: a path or an address that came by the web would reach whatever the
service may read.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blemish.errors import BlemishError, ImageError
from blemish.serve.errors import ConflictError, UnknownError
from blemish.serve.records import PartRecord
from blemish.serve.rendering import png
from blemish.serve.service import Service
from blemish.serve.sources.camera import Camera, CameraSettings, Frame
from blemish.serve.sources.watched_folder import Arrival, WatchedFolder, WatchSettings
from blemish.utils.paths import shown


@dataclass(eq=False)
class Input:
    """A source of one product's parts, the thread that runs it, and what ended it, if anything did."""

    product: str
    name: str
    source: WatchedFolder | Camera
    thread: threading.Thread
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        if isinstance(self.source, Camera):
            state = self.error or self.source.state
            return {"product": self.product, "kind": "camera", "name": self.name, "state": state}
        state = self.error or self.source.report.error or "watching"
        waiting = self.source.report.waiting
        return {"product": self.product, "kind": "folder", "name": self.name, "state": state, "waiting": waiting}


class Inputs:
    """All sources of a running service; a product that does not exist yet may be created meanwhile."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._stop = threading.Event()
        self._inputs: list[Input] = []

    def watch(self, product: str, folder: Path, settings: WatchSettings | None = None) -> None:
        """Inspect each new picture of a folder."""

        def handle(arrival: Arrival) -> None:
            part = self._inspect(product, arrival.content, arrival.part_id, arrival.name, "folder")
            if part.error:
                raise ImageError(f"a picture in '{shown(arrival.name)}'", part.error, "send another file")

        def is_known(sha256: str) -> bool:
            try:
                identity = self._service.core.product(product).id
            except UnknownError:
                return False
            return self._service.parts.is_known(identity, sha256)

        source = WatchedFolder(folder, handle, is_known, settings or WatchSettings())
        self._start(product, shown(folder.name), source)

    def camera(self, product: str, address: str, settings: CameraSettings | None = None) -> None:
        """Inspect a camera's frames, at an interval or when asked to."""

        def handle(frame: Frame) -> None:
            self._inspect_frame(product, frame)

        self._start(product, f"camera {len(self._inputs)}", Camera(address, handle, settings))

    def _start(self, product: str, name: str, source: WatchedFolder | Camera) -> None:
        thread = threading.Thread(target=self._run, args=(len(self._inputs),), name=f"blemish-{name}", daemon=True)
        self._inputs.append(Input(product, name, source, thread))
        thread.start()

    def _run(self, number: int) -> None:
        found = self._inputs[number]
        try:
            found.source.run(self._stop)
        except BlemishError as error:  # a package that is missing
            found.error = str(error)
        except Exception as error:  # whoever looks at the sources must hear of it
            found.error = f"ended by a fault of blemish: {type(error).__name__}: {error}"
            raise

    def _inspect(self, product: str, content: bytes, part_id: str, name: str, source: str) -> PartRecord:
        return self._service.line.inspect(product, content, part_id, name, source)

    def _inspect_frame(self, product: str, frame: Frame) -> PartRecord:
        return self._inspect(product, png(frame.image), frame.part_id or "", "", "camera")

    def all(self) -> list[dict[str, Any]]:
        """What each source is doing."""
        return [one.to_dict() for one in self._inputs]

    def trigger(self, product: str, part_id: str = "") -> PartRecord:
        """Inspect a new frame of a product's camera. Raises ConflictError where it has none."""
        identity = self._service.core.product(product)
        for one in self._inputs:
            if isinstance(one.source, Camera) and one.product in (identity.id, identity.name):
                return self._inspect_frame(product, one.source.trigger(part_id or None))
        raise ConflictError(f"a camera of {identity.name!r}", "none", "start with --camera PRODUCT=ADDRESS")

    def close(self) -> None:
        """End all sources."""
        self._stop.set()
        for one in self._inputs:
            one.thread.join(10)
