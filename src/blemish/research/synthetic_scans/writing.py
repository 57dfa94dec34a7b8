"""The generated set on disk, in the layout of MVTec 3D-AD (Bergmann et al., VISAPP 2022), taken by several processes.

<class>/{train,validation,test}/<good or defect>/rgb/000.png     the image
                                                /xyz/000.tiff    points, float32 metres, 0 where nothing was measured
                                                /gt/000.png      test alone: the defect's mask, black for good ones
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from pathlib import Path

import numpy as np
from PIL import Image

from blemish.errors import DatasetError, SettingsError
from blemish.research.synthetic_scans.scans import GOOD, Plan, Shot, take
from blemish.types import Sample
from blemish.utils.optional import need

IMAGES, POINTS, MASKS = "rgb", "xyz", "gt"
_AT_ONCE = 5  # scans that a process takes before it reports


def write_scans(
    folder: str | Path,
    plan: Plan = Plan(),
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the whole set to `folder` and give back its path; `progress(done, total)` hears of every few scans.

    What is written does not depend on `workers`. More than one are processes of their own, so that a script must then
    call this under `if __name__ == "__main__":`.

    Raises DatasetError when there is something in `folder` already, SettingsError for fewer than one worker, OSError
    when the disk is full; whatever ends it early leaves what is written so far.
    """
    folder = Path(folder)
    need("tifffile", "3d", "points in TIFF files")
    if workers < 1:
        raise SettingsError("at least 1 worker", str(workers), "raise workers")
    if folder.exists() and any(folder.iterdir()):
        raise DatasetError("a new or empty folder", f"'{folder}' with something in it", "name another one")
    shots, done = plan.shots(), 0
    for name in {_place(folder, shot, kind).parent for shot in shots for kind in _kept(shot)}:
        name.mkdir(parents=True, exist_ok=True)
    for count in _written(folder, shots, workers):
        done += count
        if progress:
            progress(done, len(shots))
    return folder


def read_scan(folder: str | Path, shot: Shot) -> Sample:
    """One scan of a written set, as `take` gave it."""
    folder = Path(folder)
    points = need("tifffile", "3d", "points in TIFF files").imread(_place(folder, shot, POINTS))
    points[~points.any(-1)] = np.nan
    with Image.open(_place(folder, shot, IMAGES)) as image:
        pixels = np.asarray(image)
    mask = None
    if shot.kind != GOOD:
        with Image.open(_place(folder, shot, MASKS)) as drawn:
            mask = np.asarray(drawn) > 0
    defect = "" if mask is None else shot.kind
    return Sample(pixels, points, int(mask is not None), mask, shot.category, defect, shot.split)


def write_scan(folder: Path, shot: Shot) -> None:
    """Take one scan and write its two or three files."""
    sample = take(shot)
    Image.fromarray(np.asarray(sample.image)).save(_place(folder, shot, IMAGES))
    points = np.nan_to_num(np.asarray(sample.points), nan=0.0)
    tifffile = need("tifffile", "3d", "points in TIFF files")
    tifffile.imwrite(_place(folder, shot, POINTS), points, photometric="rgb")
    if MASKS in _kept(shot):
        mask = np.zeros(points.shape[:2], bool) if sample.mask is None else np.asarray(sample.mask)
        Image.fromarray(mask.astype(np.uint8) * 255).save(_place(folder, shot, MASKS))


def _kept(shot: Shot) -> tuple[str, ...]:
    return (IMAGES, POINTS, MASKS) if shot.split == "test" else (IMAGES, POINTS)


def _place(folder: Path, shot: Shot, what: str) -> Path:
    ending = ".tiff" if what == POINTS else ".png"
    return folder / shot.category / shot.split / shot.kind / what / f"{shot.number:03}{ending}"


def _write_some(folder: Path, shots: Sequence[Shot]) -> int:
    for shot in shots:
        write_scan(folder, shot)
    return len(shots)


def _written(folder: Path, shots: Sequence[Shot], workers: int) -> Iterator[int]:
    """How many scans are written since the last time; an error stops the others after those they have begun."""
    batches = [shots[start : start + _AT_ONCE] for start in range(0, len(shots), _AT_ONCE)]
    if workers == 1:
        yield from (_write_some(folder, batch) for batch in batches)
        return
    # Fresh processes: a copy of one that has threads (a progress bar, torch) may hang.
    pool = ProcessPoolExecutor(min(workers, len(batches)), mp_context=get_context("spawn"), initializer=_obey)
    try:
        with _ctrl_c_waits():
            waiting = [pool.submit(_write_some, folder, batch) for batch in batches]
        for finished in as_completed(waiting):
            yield finished.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Ctrl-C is heard after the block; processes that start in it never hear it, not even while they still import."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _obey() -> None:
    """A worker leaves Ctrl-C to its parent, and ends when the parent is gone, however that came about."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
