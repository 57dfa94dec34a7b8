"""The folder that an inspection writes into: what earlier runs left there, and what of it stays.

`inspection.json` says of which model and settings the results are. A run of the same model and settings goes on where
the last one stopped; those of another are refused, unless the folder is to begin anew, and so are those of other
pictures, unless they are to be kept.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blemish.cli.results import MAPS, OVERLAYS, ROWS, TABLE, Row, read_rows, written_anew
from blemish.data.decoding import split_page
from blemish.data.files import files_in, is_image_file, is_model, is_output
from blemish.errors import OutputError, SettingsError
from blemish.scoring.describe import count_in_words
from blemish.scoring.sentences import DEFAULT_LANGUAGE
from blemish.types import Sample, ScanGeometry
from blemish.utils.atomic import is_alive, output_errors, remove, remove_leftovers, write_text
from blemish.utils.hashing import text_sha256
from blemish.utils.locking import exclusive
from blemish.utils.paths import shown

SUMMARY, REPORT = "inspection.json", "report.html"
_SUFFIXES = {OVERLAYS: ".jpg", MAPS: ".npy"}
_OLD_PARTIAL = re.compile(r"\.partial-(\d+)")  # what killed runs of version 0.1 left


_ORIGIN_WORDS = {
    "model_sha256": "model",
    "given_category": "--category",
    "language": "--language",
    "mm_per_pixel": "--mm-per-pixel",
    "defect_names": "--defect-names",
    "names_encoder": "--names-encoder",
    "vlm": "--vlm",
    "units": "--units",
    "geometry": "--intrinsics, --depth-scale, --mm-per-pixel x,y,z and --grid",
}


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What all results of one folder share. `model` is the sha256 of the saved model, "" for one that was not saved.

    `language`, `mm_per_pixel`, `defect_names`, `names_encoder` and `vlm` are how regions are described; None is the
    default language, an unknown scale, no names, the first encoder that reads words, and none. `units` and `geometry`
    are how scans are stated to have been measured, None as the model says or their files do.
    """

    model: str
    category: str | None = None
    language: str | None = None
    mm_per_pixel: float | None = None
    defect_names: Sequence[str] | None = None
    names_encoder: str | None = None
    vlm: str | None = None
    units: str | None = None
    geometry: ScanGeometry | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "model_sha256": self.model,
            "given_category": self.category,
            "language": self.language or DEFAULT_LANGUAGE,
            "mm_per_pixel": self.mm_per_pixel,
            "defect_names": self.defect_names and list(self.defect_names),
            "names_encoder": self.names_encoder,
            "vlm": self.vlm,
            "units": self.units,
            "geometry": self.geometry and json.loads(json.dumps(self.geometry.to_dict())),  # lists, as they are read
        }


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How a run treats what earlier runs left, and which files each row must have."""

    overlays: bool = True
    maps: bool = False
    restart: bool = False  # drop all of it
    append: bool = False  # keep rows of files that this run is not about


@dataclass
class Kept:
    """The rows of earlier runs that stay: how many, of which of this run's samples, and the names they have taken."""

    rows: int = 0
    identities: set[str] = field(default_factory=set)
    names: list[str] = field(default_factory=list)


@contextmanager
def result_folder(out: Path, writes_page: bool = True) -> Iterator[Path]:
    """Keep other runs out of `out` while the block lasts, and remove what killed ones left.

    Raises OutputError, also for a folder of pictures, of a model, or of another command's results.
    """
    refuse_pictures_and_models(out)
    names = (TABLE, OVERLAYS, MAPS)
    refuse_foreign(out, (REPORT, *names) if writes_page else names)
    with exclusive(out):
        remove_leftovers(out)
        for path in out.iterdir():
            match = _OLD_PARTIAL.fullmatch(path.name)
            if match and not is_alive(int(match[1])):
                remove(path)
        yield out


def check_choice(restart: bool, append: bool) -> None:
    """Raise SettingsError for two options that contradict each other."""
    if restart and append:
        raise SettingsError("--restart or --append", "both", "leave one of them out")


def refuse_pictures_and_models(out: Path) -> None:
    """Raise OutputError for a folder that holds a model, or pictures and no results: these would then count as results.

    Whoever learns from folders leaves out those of results, so that the pictures would no longer be found.
    """
    if not out.is_dir():
        return
    with output_errors(out):
        if is_model(out):
            found = "a folder that holds a model"
        elif not is_output(out) and (picture := next(filter(is_image_file, files_in(out)), None)):
            found = f"a folder of pictures, such as {shown(picture.name)}"
        else:
            return
    raise OutputError(f"a folder for results at '{shown(out)}'", found, "name another folder with -o")


def earlier_results_error(out: Path, found: str) -> OutputError:
    """The error of a command that would replace results in `out`, unless it is to; `found` says which are there."""
    return OutputError(
        f"a folder without earlier results at '{shown(out)}'",
        found,
        "name another folder with -o, or add --restart, which replaces them",
    )


def refuse_foreign(out: Path, names: Iterable[str]) -> None:
    """Raise OutputError when a file or sub-folder of these `names`, to be written, holds what no earlier run wrote."""
    if (out / ROWS).exists() or _is_ours(read_summary(out)):
        return
    for name in names:
        path = out / name
        with output_errors(out):
            is_foreign = any(path.iterdir()) if path.is_dir() else path.exists()
        if is_foreign:
            raise OutputError(
                "an output folder that is new, or of an earlier run",
                f"{shown(path)}, which is of another origin, as of an evaluation",
                "name another folder with -o",
            )


def refuse_other_origin(out: Path, origin: Origin, append: bool = False) -> None:
    """Raise OutputError when `out` holds results of another model, or under another given category.

    `append`: this run is to keep them, so that removing them is no way out.
    """
    summary = read_summary(out)
    if not _is_ours(summary) or not any(read_rows(out)):
        return
    for name, value in origin.to_dict().items():
        found = summary.get(name)
        if name == "language":
            found = found or DEFAULT_LANGUAGE  # earlier versions named no default
        if found != value:
            what = _ORIGIN_WORDS[name]
            others, there = "those of another one", found
            if name == "model_sha256":
                others, there = f"{others}, or of this one before its limits changed", summary.get("model")
            elif name == "geometry" and found is not None:
                there = ScanGeometry.from_dict(found).words()
            raise OutputError(
                f"results of the same {what} in '{shown(out)}'",
                f"{others} ({there or 'none'})",
                "name another folder with -o" + ("" if append else ", or add --restart, which removes the old results"),
            )


def begin_results(
    out: Path,
    origin: Origin,
    samples: Sequence[Sample],
    wanted: Wanted,
    each: Callable[[Row, Sample], object] = lambda row, sample: None,
) -> Kept:
    """Bring the rows in `out` in order: those that stay are written anew, all other results go.

    Of rows about this run's `samples` those stay that were inspected, whose files have not changed since, and whose
    overlays and maps are there where they are `wanted`. Rows about other images stay with `append`, go with `restart`,
    and are an OutputError without either. Alarms are withdrawn, as other images may be in the batch now. `each` is
    called with every row that stays and its sample. Raises OutputError.
    """
    kept = Kept()
    if not wanted.restart:
        refuse_other_origin(out, origin, wanted.append)
    known = _is_ours(read_summary(out)) and not wanted.restart and origin.model != ""
    by_identity = {identity: sample for sample in samples if (identity := identity_of(sample))} if known else {}
    given = {sample.name for sample in samples}
    if known and not wanted.append:
        refuse_other_pictures(out, by_identity, given)
    used: dict[str, set[str]] = {OVERLAYS: set(), MAPS: set()}
    with written_anew(out) as write:
        for row in read_rows(out) if known else ():
            sample = by_identity.get(row["identity"])
            if not _stays(row, sample, given, out, wanted, kept):
                continue
            write(row | {"alarm": None})  # a property of a whole batch: whoever asks for alarms marks them at the end
            kept.rows += 1
            kept.identities |= {row["identity"] or ""} - {""}
            for name, files in used.items():
                files |= {row[name.removesuffix("s")]} - {None}
            each(row, sample or Sample(Path(row["file"])))
    _remove_unused(out, used)
    kept.names = [Path(name).stem for names in used.values() for name in names]
    return kept


def refuse_other_pictures(out: Path, identities: Container[str], names: Container[str]) -> None:
    """Raise OutputError when `out` holds results of pictures that are neither of these `identities` nor `names`."""
    others = sum(row["identity"] not in identities and row["file"] not in names for row in read_rows(out))
    if others:
        raise OutputError(
            f"results of the pictures given, or none, in '{shown(out)}'",
            f"those of {count_in_words(others, 'other picture')}",
            "add --append, which keeps them, or --restart, which removes them, or name another folder with -o",
        )


def identity_of(sample: Sample) -> str:
    """Short text that changes when a sample's files do: from their full paths, sizes and times. "" for arrays."""
    facts = []
    for path in (sample.image, sample.points):
        if path is None:
            continue
        if not isinstance(path, Path):
            return ""
        try:
            state = split_page(path)[0].stat()
        except (OSError, ValueError):
            return ""
        facts += [os.path.abspath(path), str(state.st_size), str(state.st_mtime_ns)]
    return text_sha256("\n".join(facts))[:16]


def samples_left(samples: Iterable[Sample], done: set[str]) -> list[tuple[Sample, str]]:
    """The samples that no row is about yet, with their identities: those of a file changed later are out of date."""
    found = ((sample, identity_of(sample)) for sample in samples)
    return [(sample, identity) for sample, identity in found if not identity or identity not in done]


def read_summary(out: Path) -> dict[str, Any]:
    """`inspection.json` of a folder, empty where there is none that can be read."""
    try:
        summary = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def write_summary(out: Path, facts: Mapping[str, Any]) -> None:
    """Write `inspection.json`. Raises OutputError."""
    write_text(out / SUMMARY, json.dumps(facts, indent=2) + "\n")


def remove_report(out: Path) -> None:
    """Remove the page of an earlier inspection, of other results than those that come now. Raises OutputError.

    For runs that write none. Another program's file of that name stays.
    """
    if _is_ours(read_summary(out)):
        with output_errors(out):
            (out / REPORT).unlink(missing_ok=True)


def _is_ours(summary: Mapping[str, Any]) -> bool:
    return "model_sha256" in summary


def _stays(row: Row, sample: Sample | None, given: set[str], out: Path, wanted: Wanted, kept: Kept) -> bool:
    """Whether a row of an earlier run is kept."""
    if row["identity"] and row["identity"] in kept.identities:
        return False
    if sample is None:  # a file that this run is not about, or one that changed or could not be read
        return wanted.append and row["file"] not in given
    for name, asked in ((OVERLAYS, wanted.overlays), (MAPS, wanted.maps)):
        file = row[name.removesuffix("s")]
        if asked and (file is None or not (out / file).is_file()):
            return False
    return row["error"] is None


def _remove_unused(out: Path, used: Mapping[str, set[str]]) -> None:
    """Remove overlays and maps that no row names; files of other kinds stay, and folders that hold some."""
    with output_errors(out):
        for name, files in used.items():
            folder = out / name
            if not folder.is_dir():
                continue
            for path in folder.iterdir():
                if path.suffix == _SUFFIXES[name] and f"{name}/{path.name}" not in files:
                    path.unlink()
            with suppress(OSError):
                folder.rmdir()  # where it has become empty
