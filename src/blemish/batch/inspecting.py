"""Entries in, rows out, by a fitted model: what every worker of every engine does with the images that it is given.

Decoding, bit depth, orientation, prediction and verdict are those of `Inspector`; paths and small rows are all that
goes through an engine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from blemish.batch.files import local_path, read_remote
from blemish.batch.rows import Origin, Row, failure_row, row_of
from blemish.batch.source import Entry
from blemish.errors import BlemishError, ImageError, ModelError, OutputError, SettingsError

if TYPE_CHECKING:
    from blemish.data.full_scale import FullScale
    from blemish.model.prediction import Inspected
    from blemish.types import Sample

OVERLAYS = "_overlays"  # an underscore: readers of the table pass over it
_FOLDER = 1000  # overlays in one folder
_MANY = 20  # unforeseen errors in a row, after which the fault is taken for the program's and not the images'


class RowMaker(Protocol):
    """What a worker makes rows with, once it has loaded what it needs."""

    def rows(self, entries: Sequence[Entry]) -> Iterator[Row]:
        """One row for each entry, in order, as they are ready."""
        ...


@dataclass(frozen=True, kw_only=True)
class MakerSpec:
    """How a worker builds its `RowMaker`: "module:Class" and the arguments. Small, so that it travels anywhere."""

    target: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def build(self, threads: int) -> RowMaker:
        """Build it now; it may use so many threads. Raises BlemishError."""
        from blemish.registry import resolve

        made: RowMaker = resolve(self.target)(**self.arguments, threads=threads)
        return made


class InspectorRows:
    """Rows by the model in the folder `model`, whose sha256 must be that of the `origin`.

    `out` is the folder of the results, None for no overlays. Images are inspected as one stream, decoded ahead,
    whatever their categories. Raises ModelError for a model that was replaced meanwhile.
    """

    def __init__(
        self, *, model: str, origin: Origin, out: str | None, device: str, encoder: str | None, threads: int
    ) -> None:
        import torch

        from blemish.model.inspector import Inspector
        from blemish.model.model_folder import read_settings

        torch.set_num_threads(threads)
        self.inspector = Inspector.load(model, device=device, encoder=encoder)
        if read_settings(model)["settings_sha256"] != origin.model_sha256:
            raise ModelError(f"the model in '{model}' that this run began with", "another one", "begin a new folder")
        if "points" in self.inspector.modalities:
            raise SettingsError(
                "a model of pictures alone", f"one of {', '.join(self.inspector.modalities)}", "use blemish inspect"
            )
        self.origin, self.out = origin, None if out is None else Path(out)
        self._unforeseen = 0

    def rows(self, entries: Sequence[Entry]) -> Iterator[Row]:
        """One row for each entry, in order. What a file does wrong stands in its row; OutputError and faults end it."""
        done = 0
        while done < len(entries):
            try:
                for row in self._stream(entries[done:]):
                    yield row
                    done += 1
            except OutputError:
                raise
            except Exception:  # of one image, perhaps another one of its batch: one by one it shows
                yield self._row_alone(entries[done])
                done += 1

    def _row_alone(self, entry: Entry) -> Row:
        """The row of one image, inspected by itself; an error that it raises is its own."""
        try:
            (row,) = self._stream([entry])
        except OutputError:
            raise
        except Exception as error:
            return failure_row(entry, self._in_words(error), self.origin)
        return row

    def _stream(self, entries: Sequence[Entry]) -> Iterator[Row]:
        from blemish.model.prediction import inspect_stream

        samples = map(self._sample, entries)  # pulled by the thread that decodes ahead
        with closing(inspect_stream(self.inspector.model_, samples, are_given=True)) as stream:
            for entry, item in zip(entries, stream, strict=True):
                yield self._row(entry, item)

    def _sample(self, entry: Entry) -> Sample | BlemishError:
        """The sample of an entry, of the category that it names, if any; an error that it raises, in its place."""
        model = self.inspector.model_
        given = entry.category if self.inspector.categories else None  # a model of one unnamed category knows no names
        try:
            model.check_category(given)
        except SettingsError as error:
            return error
        sample = sample_of(entry, model.full_scale)
        return sample if isinstance(sample, BlemishError) else replace(sample, category=given)

    def _row(self, entry: Entry, item: Inspected) -> Row:
        if item.failure is not None:
            return failure_row(entry, item.failure.error, self.origin)
        assert item.prediction is not None  # it was inspected, or it failed
        self._unforeseen = 0
        from blemish.types import ALARMS

        is_drawn = self.out is not None and item.prediction.verdict in ALARMS
        return row_of(entry, item.prediction, self.origin, self._draw(entry, item) if is_drawn else None)

    def _draw(self, entry: Entry, item: Inspected) -> str:
        """Write the overlay of an alarm; returns its path below the results' folder. Raises OutputError."""
        from PIL import Image

        from blemish.data.samples import as_rgb
        from blemish.report.overlays import draw_overlay, fits_jpeg
        from blemish.utils.atomic import atomic_file

        assert self.out is not None  # overlays are asked for
        assert item.prediction is not None  # of an alarm
        assert item.image is not None
        name = overlay_name(entry)
        with atomic_file(self.out / name, durable=False) as partial:
            drawn = draw_overlay(as_rgb(item.image), item.prediction)  # (H, W, 3)
            Image.fromarray(fits_jpeg(drawn)).save(partial, "JPEG", quality=90)
        return name

    def _in_words(self, error: Exception) -> str:
        """An error that ended a stream, as an image's own. Raises it where one image after the other has some."""
        if isinstance(error, BlemishError):
            return str(error)
        self._unforeseen += 1
        if self._unforeseen >= _MANY:
            raise error
        if isinstance(error, MemoryError):
            return str(ImageError("a picture that fits into memory", "a larger one", "give fewer --workers"))
        return f"blemish failed in a way it did not foresee ({type(error).__name__}: {error})"


def sample_of(entry: Entry, full_scale: FullScale | None = None) -> Sample | BlemishError:
    """An entry as the sample that is inspected: a local file by its path, any other one fetched and decoded now.

    `full_scale` says which level of more than 8 bits is white. An error that reading it raises is given back, in its
    place in the stream.
    """
    from blemish.data.decoding import split_page
    from blemish.data.images import load_image
    from blemish.types import Sample

    path = local_path(entry.uri)
    if path is not None:
        return Sample(path)
    _, page = split_page(entry.uri)
    try:
        return Sample(load_image(read_remote(entry.uri), full_scale=full_scale, page=page))
    except BlemishError as error:
        return error


def overlay_name(entry: Entry) -> str:
    """Where an entry's overlay goes, below the results' folder: by its number, which no other entry has."""
    stem = os.path.splitext(os.path.basename(entry.id))[0]
    safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in stem)[:60]
    return f"{OVERLAYS}/{entry.number // _FOLDER:06}/{entry.number:09}-{safe}.jpg"
