"""The generated set on disk, in the layout of MVTec 3D-AD (data/layouts/mvtec3d.py), rendered by several processes.

<class>/{train,validation,test}/<good or defect>/rgb/000.png     the image
                                                /xyz/000.tiff    points, float32 metres, 0 where nothing was measured
                                                /gt/000.png      test alone: the defect's mask, black for good ones
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from multiprocessing import connection, get_context, parent_process
from pathlib import Path

import numpy as np
from PIL import Image

from blemish.errors import OutputError, SettingsError
from blemish.research.synthetic_scans.scans import GOOD, ScanSetSpec, ScanSpec, render_scan
from blemish.types import Sample
from blemish.utils.optional import need
from blemish.utils.paths import check_empty
from blemish.utils.progress import Progress
from blemish.utils.signals import ctrl_c_blocked

IMAGES, POINTS, MASKS = "rgb", "xyz", "gt"
_BATCH = 5  # scans that a process renders before it reports


def write_scans(
    folder: str | Path,
    plan: ScanSetSpec = ScanSetSpec(),
    workers: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Write the whole set to `folder` and return its path; `progress` is called every few scans.

    What is written does not depend on `workers`. More than one are processes of their own, so that a script must then
    call this under `if __name__ == "__main__":`.

    Raises DatasetError when `folder` is a file or holds something already, SettingsError for fewer than one worker,
    OutputError when a worker was ended, OSError when the disk is full; whatever ends it early leaves what is written
    so far.
    """
    folder = Path(folder)
    need("tifffile", "3d", "points in TIFF files")
    if workers < 1:
        raise SettingsError("at least 1 worker", str(workers), "raise workers")
    check_empty(folder)
    specs, done = plan.scans(), 0
    for name in {_path(folder, spec, kind).parent for spec in specs for kind in _layers(spec)}:
        name.mkdir(parents=True, exist_ok=True)
    for count in _write_all(folder, specs, workers):
        done += count
        if progress:
            progress(done, len(specs), {})
    return folder


def read_scan(folder: str | Path, spec: ScanSpec) -> Sample:
    """One scan of a written set, as `render_scan` gave it."""
    folder = Path(folder)
    points = need("tifffile", "3d", "points in TIFF files").imread(_path(folder, spec, POINTS))
    points[~points.any(-1)] = np.nan
    with Image.open(_path(folder, spec, IMAGES)) as image:
        pixels = np.asarray(image)
    mask = None
    if spec.kind != GOOD:
        with Image.open(_path(folder, spec, MASKS)) as drawn:
            mask = np.asarray(drawn) > 0
    defect = "" if mask is None else spec.kind
    return Sample(pixels, points, int(mask is not None), mask, spec.category, defect, spec.split)


def write_scan(folder: Path, spec: ScanSpec) -> None:
    """Render one scan and write its two or three files."""
    sample = render_scan(spec)
    Image.fromarray(np.asarray(sample.image)).save(_path(folder, spec, IMAGES))
    points = np.nan_to_num(np.asarray(sample.points), nan=0.0)
    tifffile = need("tifffile", "3d", "points in TIFF files")
    tifffile.imwrite(_path(folder, spec, POINTS), points, photometric="rgb")
    if MASKS in _layers(spec):
        mask = np.zeros(points.shape[:2], bool) if sample.mask is None else np.asarray(sample.mask)
        Image.fromarray(mask.astype(np.uint8) * 255).save(_path(folder, spec, MASKS))


def _layers(spec: ScanSpec) -> tuple[str, ...]:
    return (IMAGES, POINTS, MASKS) if spec.split == "test" else (IMAGES, POINTS)


def _path(folder: Path, spec: ScanSpec, what: str) -> Path:
    ending = ".tiff" if what == POINTS else ".png"
    return folder / spec.category / spec.split / spec.kind / what / f"{spec.number:03}{ending}"


def _write_batch(folder: Path, specs: Sequence[ScanSpec]) -> int:
    for spec in specs:
        write_scan(folder, spec)
    return len(specs)


def _write_all(folder: Path, specs: Sequence[ScanSpec], workers: int) -> Iterator[int]:
    """How many scans are written since the last time; an error stops the others after those they have begun."""
    batches = [specs[start : start + _BATCH] for start in range(0, len(specs), _BATCH)]
    if workers == 1:
        yield from (_write_batch(folder, batch) for batch in batches)
        return
    # Fresh processes: a copy of one that has threads (a progress bar, torch) may hang.
    pool = ProcessPoolExecutor(min(workers, len(batches)), mp_context=get_context("spawn"), initializer=_follow_parent)
    try:
        with ctrl_c_blocked():
            waiting = [pool.submit(_write_batch, folder, batch) for batch in batches]
        for finished in as_completed(waiting):
            yield finished.result()
    except BrokenExecutor as error:
        raise OutputError(
            f"all scans rendered in '{folder}'",
            "a process that was ended from outside",
            "take fewer workers, or free memory",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _follow_parent() -> None:
    """A worker leaves Ctrl-C to its parent, and ends when the parent is gone, however that came about."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
