"""What is to be inspected: a folder, a pattern or a manifest, as one stream of entries in a stable order.

The stream is written once into `_input.parquet`, from which workers read the entries of a shard. Neither the stream nor
the check that ids are unique holds more than a bounded part of it in memory; only the listing of a folder is a list.
"""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from csv import reader as csv_lines
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from blemish.batch.files import filesystem_of, id_of, is_uri, local_path, uri_of
from blemish.batch.unique import UniqueTexts
from blemish.errors import BlemishError, DatasetError
from blemish.utils.optional import need
from blemish.utils.paths import shown

if TYPE_CHECKING:
    import pyarrow

MANIFESTS = (".parquet", ".csv", ".jsonl", ".ndjson")
GROUP = 1024  # entries in a row group of `_input.parquet`, and the most that one shard reads at a time
_READ = 65_536  # rows of a manifest that are read at a time
_BUFFER = 1 << 20  # bytes of a list in another file system that are read at a time
_PATTERN = re.compile(r"[*?\[]")
COLUMNS = ("id", "uri", "category")
Item = TypeVar("Item")


@dataclass(frozen=True)
class Entry:
    """One image to inspect: its unique `id`, where it lies, its category if that is given, its place in the order."""

    number: int
    id: str
    uri: str
    category: str | None = None


@dataclass(frozen=True)
class InputFacts:
    """How many entries there are, and the sha256 of all of them in order."""

    rows: int
    sha256: str


Found = tuple[str, str, str | None]  # id, uri, category


def entries_of(source: str, leave_out: Path | None = None, notes: list[str] | None = None) -> Iterator[Found]:
    """(id, uri, category) of all that `source` means; `leave_out` is a folder of which nothing is taken.

    A folder or pattern gives images in the order of their paths, with relative paths as ids; a manifest (Parquet, CSV,
    JSON lines) its rows: the column `uri`, and `id` (else the uri) and `category` where there are such. Relative uris
    are relative to the manifest. Hidden files, and those in folders of models and results, are no images of a folder or
    pattern. `notes` takes up sentences on what was not looked at. Raises DatasetError for what is not there, holds no
    images, or has rows without a uri.
    """
    found = _meant(source, leave_out, [] if notes is None else notes)
    first = next(found, None)
    if first is None:
        raise DatasetError(
            f"at least one picture to inspect in '{shown(source)}'", "none", "check the folder, pattern or manifest"
        )
    yield first
    yield from found


def _meant(source: str, leave_out: Path | None, notes: list[str]) -> Iterator[Found]:
    """The entries of `source`, by what it is."""
    path = local_path(source)
    if source.lower().endswith(MANIFESTS) and not (path is not None and path.is_dir()):
        return _manifest(source)
    if path is None:
        return _remote_images(source)
    if _PATTERN.search(str(path)) and not os.path.lexists(path):
        return _globbed(path, leave_out, notes)
    return _folder(path, leave_out, notes)


def write_input(found: Iterable[Found], path: Path, scratch: Path) -> InputFacts:
    """Write entries to a Parquet file; `scratch` is a folder for what the check of ids keeps on disk.

    Raises DatasetError for an id that came twice, and for text that UTF-8 cannot hold.
    """
    pq: Any = need("pyarrow.parquet", "batch", "manifests")
    pa: Any = need("pyarrow", "batch", "manifests")
    schema = pa.schema([("number", pa.int64()), *((name, pa.string()) for name in COLUMNS)])
    digest, rows = hashlib.sha256(), 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer, UniqueTexts(scratch) as ids:
        for group in _batched(found, GROUP):
            numbers = range(rows, rows + len(group))
            columns = [numbers, *zip(*group, strict=True)]
            try:
                table = pa.table([list(column) for column in columns], schema=schema)
            except UnicodeEncodeError as error:  # of half a letter, written as \uD800 to \uDFFF in JSON lines
                raise DatasetError(
                    "ids, uris and categories of whole letters",
                    f"{error.object!a} in the rows {rows + 1:,} to {rows + len(group):,}",
                    "correct the manifest",
                ) from error
            writer.write_table(table, row_group_size=GROUP)
            digest.update(json.dumps(group).encode())
            ids.add(columns[1])
            rows += len(group)
        repeated = ids.repeated()
    if repeated:
        _refuse_repeated(path, repeated)
    return InputFacts(rows, digest.hexdigest())


class InputReader:
    """The entries of an `_input.parquet`, by number; memory holds one row group."""

    def __init__(self, path: Path) -> None:
        pq: Any = need("pyarrow.parquet", "batch", "manifests")
        self._file = pq.ParquetFile(path)

    def entries(self, start: int, stop: int) -> list[Entry]:
        """The entries of these numbers, `stop` exclusive."""
        found: list[Entry] = []
        for group in range(start // GROUP, -(-stop // GROUP)):
            first = group * GROUP
            table = self._file.read_row_group(group)
            part = table.slice(max(start - first, 0), min(stop - first, GROUP) - max(start - first, 0))
            found += entries_in(part)
        return found

    def all(self) -> Iterator[Entry]:
        """All entries, in order."""
        for group in range(self._file.num_row_groups):
            yield from entries_in(self._file.read_row_group(group))

    def close(self) -> None:
        self._file.close()


def entries_in(table: pyarrow.Table) -> list[Entry]:
    """The entries of a table with the columns of `_input.parquet`."""
    columns = [table.column(name).to_pylist() for name in ("number", *COLUMNS)]
    return [Entry(*values) for values in zip(*columns, strict=True)]


def _refuse_repeated(path: Path, repeated: set[bytes]) -> None:
    """Raise DatasetError that names the first id that came twice."""
    first: dict[str, int] = {}
    with closing(InputReader(path)) as reader:
        for entry in reader.all():
            if UniqueTexts.digest(entry.id) in repeated and first.setdefault(entry.id, entry.number) != entry.number:
                rows = f"rows {first[entry.id] + 1:,} and {entry.number + 1:,}"
                raise DatasetError(
                    "every id once",
                    f"{entry.id!r} in {rows} ({len(repeated):,} ids came twice)",
                    "give each picture an id of its own, or leave the copies out",
                )


def _folder(path: Path, leave_out: Path | None, notes: list[str]) -> Iterator[Found]:
    """The images below a folder, or one image, as `blemish inspect` finds them.

    Their category is recognised, as there, also where the layout of a dataset states one.
    """
    from blemish.data.folder import find_inspection

    found = find_inspection(path)
    notes += found.contents.words()
    root = path if path.is_dir() else path.parent
    if without := sum(sample.image is None for sample in found.samples):
        notes.append(f"{without} without a picture, of points alone, {'was' if without == 1 else 'were'} left out")
    for sample in found.samples:
        if isinstance(sample.image, Path) and not _is_inside(sample.image, leave_out):
            yield id_of(Path(os.path.relpath(sample.image, root))), uri_of(sample.image), None


def _globbed(pattern: Path, leave_out: Path | None, notes: list[str]) -> Iterator[Found]:
    """The images that a pattern of local paths means ("**" stands for folders at any depth)."""
    from blemish.data.files import FolderContents, is_output

    fixed = Path(*_fixed_parts(pattern.parts))
    found, left_out = _matching(pattern)
    paths = [Path(path) for path in sorted({str(path) for path in found})]
    folders = {path.parent for path in paths}
    below = {parent for folder in folders for parent in (folder, *folder.parents) if fixed in parent.parents}
    left_out |= {folder for folder in below if is_output(folder)}
    notes += FolderContents(left_out=sorted(one for one in left_out if not _is_inside(one, leave_out))).words()
    for path in paths:
        if left_out.isdisjoint(path.parents) and not _is_inside(path, leave_out):
            yield id_of(Path(os.path.relpath(path, fixed))), uri_of(path), None


def _matching(pattern: Path) -> tuple[list[Path], set[Path]]:
    """The images that a pattern means, and the folders of models and results that were passed over on the way.

    What "**" stands for is read as a folder is, each real folder once: links may lead in a circle.
    """
    from blemish.data.files import is_image_file, is_image_name, list_folder

    def is_image(path: Path) -> bool:  # a broken link, too, as in a folder: it is reported, not lost
        return is_image_file(path) if path.is_file() else path.is_symlink() and is_image_name(path.name)

    if "**" not in pattern.parts:
        return [path for path in map(Path, glob.iglob(str(pattern))) if not path.is_dir() and is_image(path)], set()
    deep = pattern.parts.index("**")
    wanted = _matcher("/".join(pattern.parts[deep:]))
    found: list[Path] = []
    left_out: set[Path] = set()
    for root in map(Path, glob.iglob(str(Path(*pattern.parts[:deep])))):
        if root.is_dir():
            contents = list_folder(root)
            found += [image for image in contents.images if wanted.fullmatch(image.relative_to(root).as_posix())]
            left_out.update(contents.left_out)
    return found, left_out


def _remote_images(uri: str) -> Iterator[Found]:
    """The images below a folder, or matching a pattern, of another file system; those of an image's name alone."""
    from blemish.data.files import is_image_name

    fs: Any = need("pyarrow.fs", "batch", "reading from other file systems")
    head, _, rest = uri.partition("://")
    parts = _fixed_parts(tuple(rest.split("/")))
    is_pattern = len(parts) < len(rest.split("/"))
    folder = f"{head}://{'/'.join(parts)}"
    try:
        filesystem, root = filesystem_of(folder)
        listed = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
    except BlemishError:
        raise
    except Exception as error:  # each file system has errors of its own
        raise DatasetError(
            f"a folder that can be listed at '{shown(folder)}'", f"{type(error).__name__}: {error}", "check the URI"
        ) from error
    names = sorted(info.path for info in listed if info.type == fs.FileType.File and is_image_name(info.base_name))
    wanted = _matcher(rest[len("/".join(parts)) :].lstrip("/")) if is_pattern else None
    for name in names:
        relative = str(PurePosixPath(name).relative_to(PurePosixPath(root)))
        is_hidden = any(part.startswith(".") for part in relative.split("/"))
        if not is_hidden and (wanted is None or wanted.fullmatch(relative)):
            yield relative, f"{folder.rstrip('/')}/{quote(relative)}", None


def _fixed_parts(parts: Sequence[str]) -> list[str]:
    """The parts of a path before the first that holds a pattern."""
    first = next((i for i, part in enumerate(parts) if _PATTERN.search(part)), len(parts))
    return list(parts[:first])


def _matcher(pattern: str) -> re.Pattern[str]:
    """A pattern of paths, as `glob` reads it, for whole relative paths."""
    *folders, last = pattern.split("/")
    text = "".join("(?:.*/)?" if part == "**" else _name_pattern(part) + "/" for part in folders)
    return re.compile(text + (".*" if last == "**" else _name_pattern(last)), re.DOTALL)


def _name_pattern(part: str) -> str:
    """A pattern of one name as a regular expression; "[" that is never closed stands for itself."""
    tokens = re.findall(r"\[!?\]?[^\]]*\]|.", part, re.DOTALL)
    own = {"*": "[^/]*", "?": "[^/]"}
    return "".join(own[token] if token in own else f"(?!/){fnmatch.translate(token)[4:-3]}" for token in tokens)


def _manifest(source: str) -> Iterator[Found]:
    """The rows of a manifest. Raises DatasetError for one that cannot be read, and for rows without a uri."""
    is_elsewhere = is_uri(source)
    folder = source.rpartition("/")[0] if is_elsewhere else os.path.dirname(os.path.abspath(os.path.expanduser(source)))
    number = 0
    for rows in _rows_of(source):
        for row in rows:
            number += 1
            uri = _text(row.get("uri"))
            if uri is None:
                raise DatasetError(
                    f"a uri in every row of '{shown(source)}'", f"none in row {number:,}", "fill the column uri"
                )
            place = uri
            if not is_uri(place) and not os.path.isabs(os.path.expanduser(place)):
                place = f"{folder}/{quote(place)}" if is_elsewhere else os.path.join(folder, place)
            yield _text(row.get("id")) or uri, place, _text(row.get("category"))


def _text(value: object) -> str | None:
    """What a cell of a manifest says, None where it is empty."""
    return None if value is None else str(value) or None


def _rows_of(source: str) -> Iterator[Sequence[Mapping[str, Any]]]:
    """The rows of a manifest, some at a time."""
    reader = {".parquet": _parquet_rows, ".csv": _csv_rows}.get(Path(source).suffix.lower(), _json_rows)
    path = local_path(source)
    try:
        with ExitStack() as stack:
            if path is not None:
                file: Any = stack.enter_context(path.open("rb"))
            else:
                filesystem, inside = filesystem_of(source)
                file = stack.enter_context(filesystem.open_input_file(inside))
                if reader is not _parquet_rows:  # pyarrow's files know no lines
                    file = stack.enter_context(io.BufferedReader(file, _BUFFER))
            yield from reader(file, source)
    except BlemishError:
        raise
    except Exception as error:
        raise DatasetError(
            f"a readable manifest at '{shown(source)}'",
            f"{type(error).__name__}: {error}",
            "give Parquet, CSV with a head, or JSON lines, with the column uri (and id, category)",
        ) from error


def _parquet_rows(file: Any, source: str) -> Iterator[list[dict[str, Any]]]:
    pq: Any = need("pyarrow.parquet", "batch", "Parquet manifests")
    table = pq.ParquetFile(file)
    for batch in table.iter_batches(_READ, columns=_known_columns(table.schema_arrow.names, source)):
        yield batch.to_pylist()


def _csv_rows(file: Any, source: str) -> Iterator[list[dict[str, Any]]]:
    csv: Any = need("pyarrow.csv", "batch", "CSV manifests")
    pa: Any = need("pyarrow", "batch", "CSV manifests")
    # Ids such as 0012 are text. Columns that are missing become null.
    options = csv.ConvertOptions(
        column_types=dict.fromkeys(COLUMNS, pa.string()), include_columns=list(COLUMNS), include_missing_columns=True
    )
    head = file.readline().decode("utf-8-sig")
    names = [name.strip() for name in next(csv_lines([head], skipinitialspace=True), [])]
    _known_columns(names, source)
    reading = csv.ReadOptions(column_names=names)  # the rest of the file has no head
    for batch in csv.open_csv(file, read_options=reading, convert_options=options):
        yield batch.to_pylist()


def _json_rows(file: Any, source: str) -> Iterator[list[dict[str, Any]]]:
    for lines in _batched(file, _READ):
        rows = [json.loads(line) for line in lines if line.strip()]
        if any(not isinstance(row, dict) for row in rows):
            raise ValueError("a line that is no object")
        yield rows


def _known_columns(names: Sequence[str], source: str) -> list[str]:
    """Those of the manifest's columns that are read. Raises DatasetError without `uri`."""
    if "uri" not in names:
        raise DatasetError(
            f"a column uri in '{shown(source)}'", ", ".join(names) or "no columns", "name the column of paths uri"
        )
    return [name for name in COLUMNS if name in names]


def _is_inside(path: Path, folder: Path | None) -> bool:
    return folder is not None and Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))


def _batched(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """The items in tuples of `size`, the last one shorter."""
    rest = iter(items)
    while group := tuple(islice(rest, size)):
        yield group
