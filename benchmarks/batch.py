"""What does `blemish batch` cost beside plain inference, does memory stay flat, what would a million pictures take?

    python benchmarks/batch.py --images 2000 --engines plain local ray --memory 20000 --manifest 1000000
    python benchmarks/batch.py --page      writes the tables of docs/batch.md from the results

Pictures of 64 × 64 pixels of a noisy disc, a model without weights: the less inference takes, the more an engine shows.
`plain` is `Inspector.inspect_many` in this process; every engine has one worker of one thread. Each is run on a quarter
of the pictures and on all: the slope is the time of a picture, what is left the start (processes, torch, model).
Memory is the resident size (VmRSS of /proc, Linux alone) of a worker, and the peak of a process that checks a manifest.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inspect_memory import METHOD, resident_mb, write_pictures
from tables import add_missing, read_rows

from blemish import Inspector
from blemish.batch import BatchSettings, run_batch

RESULTS = Path(__file__).parent / "results" / "batch.csv"
PAGE = Path(__file__).parent.parent / "docs" / "batch.md"
HEAD = ("measure", "engine", "images", "value", "unit")
PEAK = """
import json, sys
from pathlib import Path
from blemish.batch.source import entries_of, write_input
folder = Path(sys.argv[1])
def peak():  # MB; of this program alone, which ru_maxrss of a forked one is not
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
import pyarrow.parquet
before = peak()
write_input(entries_of(str(folder / "list.jsonl")), folder / "input.parquet", folder)
print(json.dumps([before, peak()]))
"""
# Of a picture on one core: hybrid at 152 ms on two cores, and what an exported model of a quarter of it would take.
INFERENCE_MS = {"hybrid": 300.0, "an exported model": 50.0}
CORES, PICTURES = (2, 16, 64, 256, 1000), (10**6, 10**8)


def seconds_of(engine: str, model: Path, pictures: Path, out: Path) -> float:
    """How long an engine takes for all pictures of a folder."""
    began = time.perf_counter()
    if engine == "plain":
        import torch

        torch.set_num_threads(1)
        for _ in Inspector.load(model, device="cpu").inspect_many(sorted(pictures.iterdir())):
            pass
    else:
        settings = BatchSettings(
            model=model, source=str(pictures), out=out, engine=engine, workers=1, threads=1, device="cpu"
        )
        run_batch(settings)
    return time.perf_counter() - began


def time_rows(engine: str, images: int) -> Iterator[tuple[float, str]]:
    """Milliseconds a picture, and seconds until the first: one row each."""
    with tempfile.TemporaryDirectory() as folder, started(engine):
        root = Path(folder)
        model = fitted(root)
        found = {}
        for count in (images // 4, images):
            write_pictures(root / str(count), count, defective_every=100)
            found[count] = seconds_of(engine, model, root / str(count), root / f"out{count}")
        few, many = sorted(found)
        slope = (found[many] - found[few]) / (many - few)
        yield round(1000 * slope, 3), "ms a picture"
        yield round(found[many] - slope * many, 2), "s to start"


@contextmanager
def started(engine: str) -> Iterator[None]:
    """Ray, begun before any clock; nothing for other engines."""
    if engine != "ray":
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    ray.init(num_cpus=4, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def fitted(root: Path) -> Path:
    """A model of twenty pictures, by the program as users run it."""
    write_pictures(root / "good", 20)
    command = [sys.executable, "-m", "blemish", "fit", str(root / "good"), "-o", str(root / "model"), *METHOD]
    subprocess.run(command, check=True, capture_output=True)
    return root / "model"


def memory_rows(images: int) -> Iterator[tuple[float, str]]:
    """The resident size of a worker after a tenth of the pictures, and at the end."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = fitted(root)
        write_pictures(root / "pictures", images, defective_every=100)
        sizes: list[tuple[float, float]] = []  # (share done, MB)

        def note(done: float, total: int, facts: object) -> None:
            if int(done) % max(1, images // 100) == 0:
                sizes.extend(
                    (done / total, resident_mb(child.pid))
                    for child in multiprocessing.active_children()[:1]
                    if child.pid
                )

        settings = BatchSettings(
            model=model, source=str(root / "pictures"), out=root / "out", workers=1, threads=1, device="cpu"
        )
        run_batch(settings, note)
        for at in (0.1, 1.0):
            yield round(min(sizes, key=lambda one: abs(one[0] - at))[1], 1), f"MB of a worker at {100 * at:.0f} %"


def manifest_rows(rows: int) -> Iterator[tuple[float, str]]:
    """The peak memory of the process that reads, checks and writes so many rows, and how long it takes."""
    with tempfile.TemporaryDirectory() as folder:
        with (Path(folder) / "list.jsonl").open("w", encoding="utf-8") as file:
            for i in range(rows):
                file.write(json.dumps({"uri": f"s3://line-seven/2026/11/{i:09}.png", "id": f"{i:09}"}) + "\n")
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", PEAK, folder], check=True, capture_output=True, text=True)
        before, peak = json.loads(done.stdout)
        yield round(time.perf_counter() - began, 1), "s"
        yield round(before, 1), "MB before"
        yield round(peak, 1), "MB at most"


def measured(measure: str, engine: str, images: int) -> Iterator[tuple[float, str]]:
    if measure == "time":
        return time_rows(engine, images)
    return memory_rows(images) if measure == "memory" else manifest_rows(images)


def tables() -> str:
    """The measured figures, and what they mean for very many pictures, as Markdown."""
    rows = read_rows(RESULTS)
    lines = ["| measure | engine | pictures | value |", "|---|---|---:|---:|"]
    lines += [f"| {r['measure']} | {r['engine']} | {int(r['images']):,} | {r['value']} {r['unit']} |" for r in rows]
    largest = max((int(r["images"]) for r in rows if r["measure"] == "time"), default=0)
    cost = {r["engine"]: float(r["value"]) for r in rows if r["unit"] == "ms a picture" and int(r["images"]) == largest}
    if {"plain", "local"} <= cost.keys():
        lines += ["", "| pictures | method, on one core | " + " | ".join(f"{cores:,} cores" for cores in CORES) + " |"]
        lines += ["|---:|---|" + "---:|" * len(CORES)]
        for pictures in PICTURES:
            for name, inference in INFERENCE_MS.items():
                each = (inference + max(0.0, cost["local"] - cost["plain"])) / 1000
                times = " | ".join(in_words(pictures * each / cores) for cores in CORES)
                lines.append(f"| {pictures:,} | {name}, {inference:.0f} ms | {times} |")
    return "\n".join(lines)


def in_words(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--engines", nargs="*", default=["plain", "local", "ray"])
    parser.add_argument("--memory", type=int, default=0, metavar="PICTURES")
    parser.add_argument("--manifest", type=int, default=0, metavar="ROWS")
    parser.add_argument("--page", action="store_true")
    given = parser.parse_args()
    keys: list[tuple[object, ...]] = [("time", engine, given.images) for engine in given.engines]
    keys += [("memory", "local", given.memory)] * bool(given.memory)
    keys += [("manifest", "any", given.manifest)] * bool(given.manifest)
    if given.page:
        page = PAGE.read_text(encoding="utf-8")
        block = f"<!-- measured -->\n{tables()}\n<!-- end -->"
        PAGE.write_text(re.sub(r"<!-- measured -->.*<!-- end -->", lambda _: block, page, flags=re.DOTALL), "utf-8")
        return
    add_missing(RESULTS, HEAD, keys, measured)


if __name__ == "__main__":
    main()
