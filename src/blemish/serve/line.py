"""Inspections: a bounded queue, a few threads, one verdict path, and a reply only after the commit."""

from __future__ import annotations

import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from blemish.data.content import content_warnings
from blemish.errors import BlemishError, DataWarning, ImageError
from blemish.model.prediction import open_image, predict
from blemish.serve.catalog import Catalog, shown_name
from blemish.serve.core import Core, new_id
from blemish.serve.errors import BusyError, DecoderError, PartIdError, TimeLimitError, TooLargeError
from blemish.serve.models import Models
from blemish.serve.parts import Parts
from blemish.serve.pictures import sha256_of
from blemish.serve.records import PartRecord, Version
from blemish.types import ImageOrScan, Prediction, Sample, Scan

PART_ID_LENGTH = 200
# What is done with a new part in the transaction that stores it, and after it.
InTransaction = Callable[[sqlite3.Connection, PartRecord], None]
Draw = Callable[[str, bytes], float]
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Judged:
    """A decoded picture `(H, W, 3)` uint8 and its prediction, or why it could not be read."""

    image: np.ndarray | None
    prediction: Prediction | None
    error: str = ""


class Line:
    """Inspects pictures one by one, in `workers` threads, and stores what it found.

    `draw` is the random number that a part's audit rests on. `in_transaction` are called with every new part before it
    is committed, `measure` before that with the version that judged it and its decoded picture, for its statistics.
    """

    def __init__(
        self,
        core: Core,
        catalog: Catalog,
        models: Models,
        parts: Parts,
        draw: Draw,
        measure: Callable[[Version, np.ndarray], dict[str, Any]],
        in_transaction: Sequence[InTransaction] = (),
    ) -> None:
        self._core, self._catalog, self._models, self._parts = core, catalog, models, parts
        self._draw, self._measure, self._in_transaction = draw, measure, in_transaction
        settings = core.settings
        self._pool = ThreadPoolExecutor(settings.workers, "blemish-inspect")
        self._decoders = settings.decoders(settings.workers)
        self._room = threading.BoundedSemaphore(settings.workers + settings.waiting)
        warnings.filterwarnings("ignore", category=DataWarning)  # they are kept with each part instead

    def submit(
        self, product: str, content: bytes, part_id: str = "", name: str = "", source: str = "rest"
    ) -> Future[PartRecord]:
        """Inspect a picture of a product, given by id or name, in the background.

        A `part_id` that comes again with the same content gives the record there is, with other content a further
        one of the same part. A picture that cannot be read gives a record with an `error` and no verdict. `cancel` of
        what is returned takes it out of the queue as long as it waits. The version that judges when its turn comes
        judges it: limits that are moved meanwhile hold.

        Raises TooLargeError, PartIdError or BusyError (the queue is full); the result of what is returned raises
        UnknownError, ConflictError (nothing learned yet), or DecoderError or NoDecoderError, after which nothing is
        stored.
        """
        self._check_size(content)
        if len(part_id) > PART_ID_LENGTH or not part_id.isprintable():
            raise PartIdError(
                f"a part id of at most {PART_ID_LENGTH} printable letters", repr(part_id[:20]), "shorten it"
            )
        return self._queued(self._inspect, product, content, part_id, shown_name(name), source)

    def judge(self, product: str, content: bytes, name: str = "") -> Future[Judged]:
        """What the product's model says of a picture that is no part of the line: nothing is stored, counted or sent.

        In the background, in the same queue; raises as `submit`.
        """
        self._check_size(content)
        return self._queued(self._judge_active, product, content, shown_name(name))

    def _check_size(self, content: bytes) -> None:
        most = self._core.settings.max_upload
        if len(content) > most:
            raise TooLargeError(f"a picture of at most {most} bytes", str(len(content)), "send a smaller one")

    def _queued(self, work: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Have a thread do it when its turn comes. Raises BusyError."""
        if not self._room.acquire(blocking=False):  # first of all: refusing must cost little
            waiting = self._core.settings.waiting
            raise BusyError(f"at most {waiting} inspections waiting", "one more", "send it again in a second")
        held = [arguments]
        try:
            future = self._pool.submit(lambda: work(*held.pop()))
        except BaseException:
            self._room.release()
            raise

        def leave(_: Future[Result]) -> None:
            held.clear()  # what is cancelled stays in the pool's queue until its turn comes: without its picture
            self._room.release()

        future.add_done_callback(leave)
        return future

    def inspect(
        self, product: str, content: bytes, part_id: str = "", name: str = "", source: str = "rest"
    ) -> PartRecord:
        """As `submit`, and wait for it.

        Raises what `submit` and its result raise; BusyError where its turn does not come within the service's time
        limit, and TimeLimitError where it has not ended once it has had so long for itself.
        """
        future = self.submit(product, content, part_id, name, source)
        try:
            return future.result(self._core.settings.time_limit)
        except FutureTimeoutError as error:
            refusal = self.given_up(future)
            if isinstance(refusal, BusyError):
                raise refusal from error
        try:
            return future.result(self._core.settings.time_limit)  # it may have begun just now
        except FutureTimeoutError as error:
            raise self.given_up(future) from error

    def given_up(self, future: Future[Any]) -> BusyError | TimeLimitError:
        """What is said of an inspection that has not ended in time; one whose turn has not come leaves the queue."""
        limit = f"an inspection within {self._core.settings.time_limit:g} s"
        if future.cancel():
            return BusyError(limit, "others before it all that time", "send it again later, or have more --workers")
        return TimeLimitError(limit, "one that takes longer", "send it again, or a smaller picture")

    def _inspect(self, product_name: str, content: bytes, part_id: str, name: str, source: str) -> PartRecord:
        product = self._core.product(product_name)
        version = self._models.active(product)
        sha256 = sha256_of(content)
        if part_id and (known := self._parts.known(product.id, part_id, sha256)):
            return known
        received, started = time.time(), time.perf_counter()
        judged = self._judge(version, content, name or part_id)
        identity = new_id()
        part = PartRecord(
            seq=0,
            id=identity,
            part_id=part_id,
            product=product.id,
            version=version.id,
            received_at=received,
            sha256=sha256,
            name=name,
            source=source,
            audit_draw=self._draw(part_id or identity, self._catalog.secret(product)),
            audit_share=product.settings.audit_share,
            error=judged.error,
            seconds=0.0,
            statistics={} if judged.image is None else self._measure(version, judged.image),
            warnings=() if judged.image is None else tuple(map(str, content_warnings(judged.image, name or "picture"))),
            has_picture=judged.prediction is not None,
            **facts_of(judged.prediction, name or identity),
        )
        try:
            if judged.prediction is not None:
                self._core.pictures.add(content)
                self._core.pictures.add_map(identity, judged.prediction.map)
            self._store(replace(part, seconds=time.perf_counter() - started), content)
        except BaseException as error:
            self._remove_files(part)
            if isinstance(error, sqlite3.IntegrityError) and (known := self._parts.known(product.id, part_id, sha256)):
                return known  # another thread has just stored the same
            raise
        stored = self._parts.get(identity)
        self._core.events.publish("part", stored.to_dict())
        return stored

    def _judge_active(self, product: str, content: bytes, name: str) -> Judged:
        """The prediction of the model that judges a product's parts now."""
        return self._judge(self._models.active(self._core.product(product)), content, name)

    def _judge(self, version: Version, content: bytes, name: str) -> Judged:
        """The prediction of a version's model. Raises DecoderError and NoDecoderError: they say nothing lasting."""
        model = self._models.inspector(version).model_
        try:
            opened = open_image(model, Sample(self._decoders.levels(content, name)), None)
        except DecoderError:
            raise
        except ImageError as error:
            return Judged(None, None, str(error))
        (prediction,) = predict(model, [opened])
        return Judged(rgb_of(opened.image), prediction)

    def _store(self, part: PartRecord, content: bytes) -> None:
        """Commit the part with all that belongs to it. Raises sqlite3.IntegrityError as `Parts.add`."""
        with self._core.store.transaction() as connection:
            part = self._parts.add(connection, part)
            if part.has_picture:
                self._core.pictures.ensure(part.sha256, content)
            for act in self._in_transaction:
                act(connection, part)

    def _remove_files(self, part: PartRecord) -> None:
        """Remove what was written for a part that could not be stored; its picture stays where another part has it."""
        if part.has_picture:
            with suppress(OSError, sqlite3.Error, BlemishError):
                self._core.pictures.delete_map(part.id)
                self._core.delete_unused(part.sha256)

    def close(self) -> None:
        """Finish what is being inspected, drop what waits."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._decoders.close()


def facts_of(prediction: Prediction | None, name: str) -> dict[str, Any]:
    """What a record takes from a prediction; nothing of a picture that could not be read."""
    if prediction is None:
        empty = dict.fromkeys(("verdict", "score", "p_value", "threshold", "unsure_threshold"))
        return {"prediction": {}, **empty}
    row = replace(prediction, source=name).to_dict()
    size = prediction.map.shape[:2]
    row |= {"size": [int(size[0]), int(size[1])], "region_threshold": float(prediction.region_threshold)}
    return {
        "prediction": row,
        "verdict": prediction.verdict,
        "score": float(prediction.score),
        "p_value": float(prediction.p_value),
        "threshold": float(prediction.threshold),
        "unsure_threshold": float(row["unsure_threshold"]),
    }


def rgb_of(image: ImageOrScan) -> np.ndarray:
    """The picture `(H, W, 3)` uint8 of what was decoded."""
    if isinstance(image, Scan):
        assert image.image is not None  # what comes by upload is a picture
        return image.image
    return image
