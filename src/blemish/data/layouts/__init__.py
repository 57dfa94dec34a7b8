"""Which layout a folder has, and its samples: a dataset of several categories, or one category folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from blemish.data.category import Dataset
from blemish.data.files import existing_folder, shown, subfolders
from blemish.data.layouts import btad, eyecandies, mvtec, mvtec3d, mvtec_loco, visa
from blemish.errors import DatasetError

# A layout is a module with is_category(folder), is_mask(parts) and load_category(folder); HAS_POINTS = True says that
# its samples have points. The first whose is_category holds is taken: what "mvtec" looks for, "mvtec3d" and
# "mvtec_loco" have as well.
LAYOUTS: dict[str, ModuleType] = {
    "visa": visa,
    "btad": btad,
    "mvtec3d": mvtec3d,
    "mvtec_loco": mvtec_loco,
    "mvtec": mvtec,
    "eyecandies": eyecandies,
}

# What the folders of a category are called in which a layout has images, points and masks; beside them lie a user's.
OWN_FOLDERS = frozenset(
    {"train", "validation", "val", "test", "test_public", "test_private", "ground_truth", visa.NORMAL.parts[0]}
)


def layout_of(folder: Path) -> str | None:
    """The name of the layout in which `folder` is one category, or None."""
    return next((name for name, layout in LAYOUTS.items() if layout.is_category(folder)), None)


def category_folders(path: Path) -> dict[str, Path]:
    """The category folders that `path` means: itself, or those directly inside it; none if it is no dataset."""
    folders = [path] if layout_of(path) else [folder for folder in subfolders(path) if layout_of(folder)]
    return {folder.resolve().name if folder is path else folder.name: folder for folder in folders}


def load_dataset(path: Path | str, categories: Sequence[str] | None = None) -> Dataset:
    """The dataset at `path`: a folder of category folders, or one category folder (then named after its parent).

    The layout is recognised category by category (mvtec.py, visa.py, …). `categories` keeps those named.

    Raises DatasetError when there is no category, an unknown one is named, or one has no good images to learn from.
    """
    path = existing_folder(path)
    folders = category_folders(path)
    if not folders:
        inside = ", ".join(folder.name for folder in subfolders(path)[:8])
        raise DatasetError(
            f"a dataset at '{shown(path)}'"
            " (category folders with train/good, train/ok, train/data or Data/Images/Normal)",
            f"folders {inside}" if inside else "no folders in it",
            "give the folder that holds the categories, or one category",
        )
    unknown = [name for name in categories or () if name not in folders]
    if unknown:
        raise DatasetError(
            f"categories of '{shown(path)}': {', '.join(folders)}", ", ".join(unknown), "correct the category's name"
        )
    chosen = {name: folder for name, folder in folders.items() if categories is None or name in categories}
    layouts = {name: str(layout_of(folder)) for name, folder in chosen.items()}
    loaded = {name: LAYOUTS[layouts[name]].load_category(folder) for name, folder in chosen.items()}
    for name, category in loaded.items():
        if not category.train:
            kinds = sorted({sample.defect for sample in category.defective})
            raise DatasetError(
                f"good pictures to learn from in '{shown(chosen[name])}' (train/good)",
                f"none, only {len(category.good)} good and {len(category.defective)} defective ones to test on"
                + (f" ({', '.join(kinds)})" if kinds else ""),
                "put good pictures into train/good, or give a folder of good pictures alone",
            )
    resolved = path.resolve()
    name = resolved.parent.name if layout_of(path) else resolved.name
    return Dataset(name, loaded, next(iter(layouts.values())))
