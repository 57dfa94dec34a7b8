"""Manifests of Amazon Lookout for Vision (SageMaker Ground Truth's JSON lines): which pictures are good, which not."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from blemish.errors import DatasetError
from blemish.utils.paths import shown


@dataclass(frozen=True)
class Manifest:
    """The pictures that a manifest names: `good` and `anomalous` ones that are there, and names of `missing` ones."""

    good: tuple[Path, ...]
    anomalous: tuple[Path, ...]
    missing: tuple[str, ...]


def read_manifest(file: Path, pictures: Path | None = None) -> Manifest:
    """Read a `.manifest` file; the pictures of its bucket lie in a folder, that of the file itself if none is given.

    `s3://bucket/a/b.jpg` is looked for as a/b.jpg and b.jpg there. Raises DatasetError for a line that is none.
    """
    folder = pictures or file.parent
    good: list[Path] = []
    anomalous: list[Path] = []
    missing: list[str] = []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"a manifest at '{shown(file)}'", str(error), "check the path") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            source, is_good = entry_of(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DatasetError(
                f"a line with source-ref and anomaly-label in '{shown(file)}'",
                f"line {number} ({type(error).__name__}: {error})",
                "export the manifest again",
            ) from error
        found = place_of(source, folder)
        if found is None:
            missing.append(source)
        else:
            (good if is_good else anomalous).append(found)
    return Manifest(tuple(good), tuple(anomalous), tuple(missing))


def entry_of(row: dict[str, Any]) -> tuple[str, bool]:
    """The picture of a line and whether it is good: by its class name, or else by its label, 0 for normal."""
    for key, facts in row.items():
        if key.endswith("-metadata") and isinstance(facts, dict) and facts.get("class-name") in ("normal", "anomaly"):
            return str(row["source-ref"]), facts["class-name"] == "normal"
    return str(row["source-ref"]), int(row["anomaly-label"]) == 0


def place_of(source: str, folder: Path) -> Path | None:
    """Where the picture of a source lies inside a folder; None where it does not."""
    key = source.removeprefix("s3://").partition("/")[2] if source.startswith("s3://") else source
    path = PurePosixPath(key)
    root = folder.resolve()
    for name in (path, PurePosixPath(path.name)):
        with suppress(OSError, ValueError):  # a name that no file can have
            found = (folder / name).resolve()
            if found.is_file() and found.is_relative_to(root):
                return found
    return None
