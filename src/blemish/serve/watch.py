"""One monitor a product: notices that the line drifts, says why, and remembers across restarts.

A monitor belongs to a version's detector: a new one begins anew. Its state is stored in the transaction of every
`EVERY`-th part, and whenever an alarm is raised; a kill loses the evidence of a few parts, never an alarm.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from blemish.data.images import load_image
from blemish.errors import ImageError, MissingPackageError
from blemish.monitoring.image_statistics import ImageStatistics, statistics_of
from blemish.monitoring.line_monitor import Alarm, LineMonitor
from blemish.serve.catalog import Catalog
from blemish.serve.core import Core, record_change
from blemish.serve.errors import UnknownError
from blemish.serve.models import Models, calibration_of
from blemish.serve.records import PartRecord, Product, Version

EVERY = 10  # parts between two writings of a monitor's state
REFERENCES = 50  # good pictures whose statistics are the reference
SMALLEST = 8  # pixels a side of a picture that is measured


class Watch:
    """The monitors of all products.

    The lock of the monitors is taken inside a transaction, never around one: two threads would wait for one another.
    """

    def __init__(self, core: Core, catalog: Catalog, models: Models) -> None:
        self._core, self._catalog, self._models = core, catalog, models
        self._lock = threading.RLock()
        self._monitors: dict[str, tuple[str, LineMonitor]] = {}  # by product: the detector's version, and the monitor

    def measured(self, version: Version, image: np.ndarray) -> dict[str, Any]:
        """The statistics of an image (H, W, 3) uint8; none of one that is too small.

        A monitor that a version still needs is begun here, before the transaction that stores the part: that reads
        good pictures, and every other part would wait for it.
        """
        if min(image.shape[:2]) < SMALLEST:
            return {}
        self._begin(version.product, version.scored_by)
        return statistics_of(image).to_dict()

    def _begin(self, product: str, version: str) -> None:
        """Begin the monitor of a version's detector unless it has begun; nobody waits for the lock meanwhile."""
        with self._lock:
            is_there = self._held(product, version) is not None
        if not is_there:
            started = self._started(product, version)
            with self._lock:
                if self._held(product, version) is None:
                    self._monitors[product] = version, started

    def put(self, connection: sqlite3.Connection, part: PartRecord) -> None:
        """Take in a new part, in the transaction that stores it."""
        if not part.statistics:
            return
        with self._lock:
            monitor = self._monitor(part.product, self._core.version(part.version).scored_by)
            alarms = monitor.add(part.score, ImageStatistics.from_dict(part.statistics))
            if alarms or monitor.parts % EVERY == 0:
                self._keep(connection, part.product)
        for alarm in alarms:
            record_change(connection, "blemish", "raised an alarm", part.product, asdict(alarm))
            self._core.events.publish("alarm", self._shown(part.product, alarm))

    def state(self, product: Product) -> dict[str, Any]:
        """The alarms that stand, and the evidence of each test, which is an alarm at `threshold`."""
        if not product.active_version:
            return {"alarms": [], "evidence": {}, "threshold": None, "parts": 0}
        version = self._core.version(product.active_version).scored_by
        self._begin(product.id, version)
        with self._lock:
            monitor = self._monitor(product.id, version)
            return {
                "alarms": [self._shown(product.id, alarm) for alarm in monitor.alarms],
                "evidence": monitor.evidence,
                "threshold": monitor.threshold,
                "parts": monitor.parts,
            }

    def restart(self, product: Product, accept: bool, who: str) -> dict[str, Any]:
        """Begin anew after somebody acted: what was wrong is mended, or, with `accept`, is how things are now."""
        version = self._models.active(product).scored_by
        self._begin(product.id, version)
        what = "accepted the change of the line" if accept else "mended the line"
        with self._core.store.transaction() as connection, self._lock:
            self._monitors[product.id] = (version, self._monitor(product.id, version).restarted(accept))
            record_change(connection, who, what, product.id)
            self._keep(connection, product.id)
        return self.state(product)

    @staticmethod
    def _shown(product: str, alarm: Alarm) -> Mapping[str, Any]:
        return {"product": product, **asdict(alarm)}

    def _keep(self, connection: sqlite3.Connection, product: str) -> None:
        version, monitor = self._monitors[product]
        value = json.dumps({"version": version, "monitor": monitor.to_dict()})
        connection.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (f"monitor {product}", value))

    def _monitor(self, product: str, version: str) -> LineMonitor:
        """The monitor of a product while this version's detector judges it."""
        found = self._held(product, version)
        if found is None:
            found = self._started(product, version)
            self._monitors[product] = version, found
        return found

    def _held(self, product: str, version: str) -> LineMonitor | None:
        """The same where it has begun, in this run or an earlier one."""
        held = self._monitors.get(product)
        if held is None:
            row = self._core.store.row("SELECT value FROM kept WHERE name = ?", (f"monitor {product}",))
            if row is None:
                return None
            kept = json.loads(row["value"])
            held = self._monitors[product] = kept["version"], LineMonitor.from_dict(kept["monitor"])
        return held[1] if held[0] == version else None

    def _started(self, product: str, version: str) -> LineMonitor:
        """A monitor that knows the good pictures, and their scores where these are of real held-out pictures."""
        model = self._models.inspector(self._core.version(version))
        reference = []
        good = self._catalog.good(self._core.product(product))
        for one in good[:: max(1, len(good) // REFERENCES)][:REFERENCES]:
            try:
                levels = self._core.decoders.levels(self._core.pictures.read(one.sha256), one.name)
                image = load_image(levels, full_scale=model.model_.full_scale)
            except (ImageError, MissingPackageError, UnknownError):
                continue
            if min(image.shape[:2]) >= SMALLEST:
                reference.append(statistics_of(image))
        calibration = calibration_of(model)
        scores = () if calibration.source.copies else calibration.scores.tolist()
        return LineMonitor.started(reference, scores, seed=int(version, 16) % 2**31)
