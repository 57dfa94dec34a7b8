"""One batch from a source to a folder of Parquet files: what is there, what is left, and the manifest at the end.

    OUT/part-000000.parquet …   rows (Ray Data: files of names of its own)
    OUT/_overlays/              pictures of alarms
    OUT/_input.parquet          all entries, in order
    OUT/_run.json               of which model and input the rows are; written before the first row
    OUT/_manifest.json          counts and files; written last
    OUT/_work/ _checkpoint/     journals of unfinished shards, ids that Ray Data has done; gone at the end

Readers such as `pyarrow.dataset.dataset(OUT)` pass over names that begin with an underscore.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from blemish.batch.files import is_uri
from blemish.batch.inspecting import MakerSpec
from blemish.batch.local import LocalEngine
from blemish.batch.machine import default_workers, is_on_gpu
from blemish.batch.rows import Origin, schema
from blemish.batch.shards import WORK, ShardPlan, finished_shards
from blemish.batch.source import InputFacts, entries_of, write_input
from blemish.batch.unique import UniqueTexts
from blemish.batch.worker import WorkerSettings
from blemish.errors import OutputError, SettingsError
from blemish.types import VERDICTS, Verdict
from blemish.utils.atomic import atomic_file, output_errors, remove, remove_leftovers, write_text
from blemish.utils.cores import usable_cores
from blemish.utils.locking import exclusive
from blemish.utils.optional import need
from blemish.utils.paths import shown
from blemish.utils.progress import Progress

INPUT, RUN, MANIFEST, CHECKPOINT = "_input.parquet", "_run.json", "_manifest.json", "_checkpoint"
SMALLEST_SHARD, LARGEST_SHARD = 16, 16_384  # rows
_SHARDS_A_WORKER = 8  # at least, where there are enough rows: the last ones to end wait for less
ERROR = "error"  # beside the verdicts, in counts

Engine = Literal["local", "ray"]


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """What to inspect, by which model, into which folder, and by what.

    `source` is a folder, pattern or manifest (see source.py); `workers` and `threads` of each are chosen by the machine
    where None. `address` is a Ray cluster's. `shard_rows`: rows of a result file of the local engine, None for a size
    by the number of rows. A `maker` makes rows in place of the model's inspector, and its `origin` is what they say of
    where they come from.
    """

    model: Path
    source: str
    out: Path
    engine: Engine = "local"
    workers: int | None = None
    threads: int | None = None
    address: str | None = None
    device: str = "auto"
    encoder: str | None = None
    overlays: bool = True
    shard_rows: int | None = None
    maker: MakerSpec | None = None
    origin: Origin | None = None


@dataclass
class BatchSummary:
    """How many images have which verdict, "error" for those that could not be inspected; `new` by this run."""

    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    new: int = 0
    seconds: float = 0.0
    workers: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def errors(self) -> int:
        return self.counts[ERROR]

    @property
    def verdicts(self) -> Counter[Verdict]:
        """How many of those that could be inspected have which verdict."""
        return Counter({verdict: self.counts[verdict] for verdict in VERDICTS})


def run_batch(settings: BatchSettings, progress: Progress | None = None) -> BatchSummary:
    """Inspect everything that has no row yet. Whatever ends it early, the same call goes on where it stopped.

    Raises DatasetError for an input that cannot be read or has an id twice, ModelError, SettingsError for a folder of
    another model or input, OutputError for one that cannot be written or that another run is at work in.
    """
    need("pyarrow", "batch", "batches of pictures")
    out = settings.out
    if is_uri(str(out)):
        raise SettingsError("a folder for the results", shown(out), "name a folder; copy it to its place afterwards")
    origin = settings.origin or origin_of(settings.model)
    summary = BatchSummary()
    began = time.perf_counter()
    with exclusive(out):
        remove_leftovers(out)
        plan = prepared(settings, origin, summary.notes)
        summary.rows = plan.rows
        summary.workers = settings.workers or default_workers(len(plan), is_on_gpu(settings.device))
        threads = settings.threads or max(1, usable_cores() // summary.workers)
        maker = settings.maker or inspector_spec(settings, origin)
        if settings.engine == "local":
            by_processes(out, maker, plan, origin, summary, threads, progress)
        elif not (out / MANIFEST).is_file():
            by_ray(settings, maker, plan, summary, threads, progress)
        finish(out, plan, origin, summary)
    summary.seconds = time.perf_counter() - began
    return summary


def origin_of(model: Path) -> Origin:
    """What the rows of a saved model say alike. Raises ModelError."""
    from blemish import __version__
    from blemish.model.model_folder import CALIBRATION, read_settings

    facts = read_settings(model)
    return Origin(
        model_sha256=facts["settings_sha256"],
        calibration_version=facts["sha256"][CALIBRATION][:12],
        blemish_version=__version__,
    )


def prepared(settings: BatchSettings, origin: Origin, notes: list[str]) -> ShardPlan:
    """Write the input and `_run.json`, or check that those of an earlier run say the same; the shards to finish."""
    out = settings.out
    old = _read_json(out / RUN)
    if not old:
        _refuse_foreign(out)
    with atomic_file(out / INPUT) as partial:
        found = entries_of(settings.source, leave_out=out, notes=notes)
        facts = write_input(found, partial, out / WORK)
        new = _run_facts(settings, origin, facts)
        if old:
            _refuse_other(out, old, new, origin)
    if not old:
        write_text(out / RUN, json.dumps(new, indent=2) + "\n")
    return ShardPlan(facts.rows, int((old or new)["shard_rows"]))


def by_processes(
    out: Path,
    maker: MakerSpec,
    plan: ShardPlan,
    origin: Origin,
    summary: BatchSummary,
    threads: int,
    progress: Progress | None,
) -> None:
    """Finish all shards by processes of this machine, also those whose file was taken away since."""
    finished = finished_shards(out)
    if len(finished) < len(plan):
        remove(out / MANIFEST)  # it says that all are there
    done = sum(plan.shard(number).stop - plan.shard(number).start for number in finished)

    def counted(verdict: str | None, is_new: bool) -> None:
        nonlocal done
        done += 1
        summary.new += is_new
        if progress is not None:
            progress(min(done, plan.rows), plan.rows, {})

    worker = WorkerSettings(maker, str(out.resolve()), str((out / INPUT).resolve()), threads)
    LocalEngine(worker, plan, summary.workers, origin, counted).finish()


def by_ray(
    settings: BatchSettings,
    maker: MakerSpec,
    plan: ShardPlan,
    summary: BatchSummary,
    threads: int,
    progress: Progress | None,
) -> None:
    """Make all rows by Ray Data."""
    from blemish.batch.ray_engine import RayEngine

    before = sum(rows or 0 for rows in map(rows_in, _parquet_files(settings.out)))  # what a killed job left counts none
    RayEngine(
        maker=maker,
        input=settings.out.resolve() / INPUT,
        out=settings.out.resolve(),
        checkpoint=settings.out.resolve() / CHECKPOINT,
        workers=summary.workers,
        threads=threads,
        address=settings.address,
    ).finish(plan, progress)
    summary.new = plan.rows - before


def inspector_spec(settings: BatchSettings, origin: Origin) -> MakerSpec:
    """How a worker loads the model."""
    arguments = {
        "model": str(settings.model.resolve()),
        "origin": origin,
        "out": str(settings.out.resolve()) if settings.overlays else None,
        "device": settings.device,
        "encoder": settings.encoder,
    }
    return MakerSpec(target="blemish.batch.inspecting:InspectorRows", arguments=arguments)


def finish(out: Path, plan: ShardPlan, origin: Origin, summary: BatchSummary) -> None:
    """Count the rows, check that each id has one, write the manifest, and remove what only an unfinished run needs.

    Raises OutputError where rows are missing or doubled.
    """
    found = 0
    with output_errors(out / WORK), UniqueTexts(out / WORK) as seen:
        for batch in _batches(out, ["id", "verdict"]):
            seen.add(batch["id"])
            found += len(batch["id"])
            summary.counts.update(verdict or ERROR for verdict in batch["verdict"])
        repeated = seen.repeated()
    if found != plan.rows or repeated:
        raise OutputError(
            f"one row for each of {plan.rows:,} pictures in '{shown(out)}'",
            f"{found:,} rows, {len(repeated):,} ids twice",
            "name another folder with -o" if found < plan.rows else "remove files that no run wrote there",
        )
    files = [{"name": name, "rows": rows} for name, rows in _files(out)]
    counts = {name: summary.counts[name] for name in (*VERDICTS, ERROR)}
    facts = {"complete": True, "rows": plan.rows, "counts": counts, **origin.to_dict(), "files": files}
    write_text(out / MANIFEST, json.dumps(facts, indent=2) + "\n")
    for name in (WORK, CHECKPOINT):
        remove(out / name)


def shard_rows_for(rows: int, workers: int) -> int:
    """Rows of a shard: a power of two by which each worker has some shards."""
    wanted = max(1, rows // (_SHARDS_A_WORKER * workers))
    return min(max(1 << (wanted.bit_length() - 1), SMALLEST_SHARD), LARGEST_SHARD)


def _run_facts(settings: BatchSettings, origin: Origin, facts: InputFacts) -> dict[str, Any]:
    """What all runs in one folder share."""
    workers = settings.workers or default_workers(facts.rows, is_on_gpu(settings.device))
    return {
        "model": str(settings.model),
        "source": settings.source,
        "rows": facts.rows,
        "input_sha256": facts.sha256,
        "engine": settings.engine,
        "overlays": settings.overlays,
        "shard_rows": settings.shard_rows or shard_rows_for(facts.rows, workers),
        **origin.to_dict(),
    }


_SHARED = {  # what must be the same in every run of one folder, and what a user calls it
    "model_sha256": "model (with its limits)",
    "input_sha256": "pictures",
    "engine": "--engine",
    "overlays": "--no-overlays",
}


def _refuse_other(out: Path, old: Mapping[str, Any], new: Mapping[str, Any], origin: Origin) -> None:
    """Raise SettingsError where the results in a folder are of another model, input or engine."""
    changed = [words for name, words in _SHARED.items() if old.get(name) != new[name]]
    if changed:
        details = f"{old.get('rows')} from '{old.get('source')}' there, {new['rows']} from '{new['source']}' now"
        raise SettingsError(
            f"the {' and '.join(changed)} that the results in '{shown(out)}' are of",
            f"others ({details}; model '{old.get('model')}' there, '{new['model']}' now)",
            "go on with those, or name another folder with -o",
        )


def _refuse_foreign(out: Path) -> None:
    """Raise OutputError for anything that no run of ours wrote: readers would take a Parquet file for rows of it."""
    with output_errors(out):
        foreign = next((path for path in sorted(out.iterdir()) if not path.name.startswith((".", "_"))), None)
    if foreign is not None:
        raise OutputError(
            f"a new or empty folder for the results at '{shown(out)}'",
            f"one that holds '{shown(foreign.name)}'",
            "name another folder with -o",
        )


def rows_in(path: Path) -> int | None:
    """How many rows a result file has; None for one that is no whole file of results."""
    pq: Any = need("pyarrow.parquet", "batch", "result files")
    try:
        facts = pq.read_metadata(path)
    except (OSError, ValueError):  # pyarrow's ArrowInvalid is a ValueError
        return None
    return int(facts.num_rows) if facts.schema.to_arrow_schema().names == schema().names else None


def _parquet_files(out: Path) -> list[Path]:
    """All files of a folder that readers take for rows of its table."""
    return sorted(out.glob("[!._]*.parquet"))


def _files(out: Path) -> list[tuple[str, int]]:
    """The result files and how many rows each has, by name. Raises OutputError for one that is none."""
    found = []
    for path in _parquet_files(out):
        rows = rows_in(path)
        if rows is None:
            raise OutputError(
                f"result files alone in '{shown(out)}'",
                f"'{shown(path.name)}', which is damaged or of something else",
                "remove it and give the command again, which makes the rows that are missing",
            )
        found.append((path.name, rows))
    return found


def _batches(out: Path, columns: list[str]) -> Iterator[dict[str, list[Any]]]:
    """Some columns of all rows, file by file."""
    pq: Any = need("pyarrow.parquet", "batch", "result files")
    for name, _ in _files(out):
        with pq.ParquetFile(out / name) as file:
            for batch in file.iter_batches(columns=columns):
                yield batch.to_pydict()


def _read_json(path: Path) -> dict[str, Any]:
    """A file of JSON, empty where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
