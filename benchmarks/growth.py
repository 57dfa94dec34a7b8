"""How do time and memory grow with the bank, the picture, the number of categories and the number of pictures?

    python benchmarks/growth.py measure                     # writes results/growth.csv; goes on where it stopped
    python benchmarks/growth.py page -o growth.html         # curves and tables of that file, one page

Each point is measured in a process of its own, on one thread: `cpu_ms`, processor milliseconds a picture (they hold on
a busy machine where seconds don't), and `peak_mb`, the most memory that the process held, learning, interpreter and
weights included.

    bank         patches in the memory bank of `patchcore` (EfficientNet-Lite2, 224 px), learned from 40 bottles
    side         pixels a side of square JPEG files, bottles scaled up, inspected by the default that learned such files
    categories   products of one `patchcore` that recognises them: those of BLEMISH_DATA as they are, and turned
    pictures     pictures of 64 px in one `blemish inspect` with overlays and report, raw pixels for an encoder
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from inspect_memory import METHOD, write_pictures
from pictures import CATEGORIES, MORE, good_files
from PIL import Image
from tables import add_missing, read_rows

from blemish import Inspector
from blemish.data import load_image
from blemish.evaluation import PeakMemory
from blemish.report.charts import Line, curve_chart
from blemish.report.page import Table, environment, printable
from blemish.types import Sample

RESULTS = Path(__file__).parent / "results" / "growth.csv"
HEAD = ("what", "size", "cpu_ms", "peak_mb")
SIZES: Mapping[str, tuple[int, ...]] = {
    "bank": (1024, 2048, 4096, 8192, 16384, 32768),
    "side": (256, 512, 1024, 2048, 4096),
    "categories": (1, 3, 10, 30),
    "pictures": (100, 1000, 10_000, 100_000),
}
NAMES = {
    "bank": "patches in the memory bank",
    "side": "pixels a side of a square picture",
    "categories": "categories of one model",
    "pictures": "pictures in one command",
}
SMALL = {"encoder": "efficientnet-lite2", "detector": "patchcore", "image_size": 224}
SHOWN = {"cpu_ms": ("ms a picture", 1.0), "peak_mb": ("GB at most", 1e-3)}  # column: what it is called, and its unit
PAGE = """{% extends "base.html" %}{% import "parts.html" as ui %}
{% block head %}<h1>{{ title }}</h1><p class="lead">{{ lead }}</p>{% endblock %}
{% block body %}{% for name, charts, table in parts %}<section><h2>{{ name }}</h2>
{{ ui.table(table) }}{{ ui.charts(charts) }}</section>{% endfor %}{% endblock %}"""


def inspected(inspector: Inspector, images: list[Any]) -> float:
    """Processor milliseconds an image, after one that warms up."""
    inspector.inspect(images[0])
    started = time.process_time()
    for image in images:
        inspector.inspect(image)
    return 1000 * (time.process_time() - started) / len(images)


def bank(size: int, _: Path) -> float:
    """A bank of so many patches."""
    files = good_files("bottle")
    inspector = Inspector(**SMALL, min_patches=size, max_patches=size, coreset_ratio=1.0)
    return inspected(inspector.fit(files[:40]), files[40:60])


def side(size: int, folder: Path) -> float:
    """Files of so many pixels a side."""
    files = [folder / f"{number}.jpg" for number in range(8)]
    for file, source in zip(files, good_files("bottle"), strict=False):
        Image.fromarray(load_image(source)).resize((size, size), Image.Resampling.LANCZOS).save(file, quality=92)
    return inspected(Inspector().fit(files[:4]), files[4:])


def categories(count: int, _: Path) -> float:
    """A model of so many products."""
    kinds = list(itertools.product((0, 1, 2), [*CATEGORIES, *MORE]))[:count]
    samples = [
        Sample(np.ascontiguousarray(np.rot90(load_image(file), turns)), category=f"{name} {90 * turns}")
        for turns, name in kinds
        for file in good_files(name)[:4]
    ]
    inspector = Inspector(**SMALL).fit(samples)
    return inspected(inspector, [sample.image for sample in samples[:: max(1, len(samples) // 12)]])


def pictures(count: int, folder: Path) -> float:
    """So many pictures in one command: its processor time, start included."""
    write_pictures(folder / "good", 20)
    write_pictures(folder / "incoming", count, defective_every=20)
    run = [sys.executable, "-m", "blemish"]
    model, out = folder / "model", folder / "out"
    subprocess.run([*run, "fit", folder / "good", "-o", model, *METHOD], check=True, stdout=subprocess.DEVNULL)
    before = os.times()
    command = [*run, "inspect", model, folder / "incoming", "-o", out, "--device", "cpu"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return 1000 * used / count


def measured(what: str, size: int) -> Iterator[tuple[str, str]]:
    """(cpu_ms, peak_mb) of one point, in a process of its own."""
    run = [sys.executable, __file__, "point", "--what", what, "--size", str(size)]
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    printed = subprocess.run(run, check=True, capture_output=True, text=True, env=variables).stdout
    milliseconds, megabytes = json.loads(printed.splitlines()[-1])
    yield f"{milliseconds:.2f}", f"{megabytes:.0f}"


def point(what: str, size: int) -> None:
    """Print one point."""
    import resource

    memory = PeakMemory()
    with tempfile.TemporaryDirectory() as folder:
        found = {"bank": bank, "side": side, "categories": categories, "pictures": pictures}[what](size, Path(folder))
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps([found, children if what == "pictures" else memory.megabytes()]))


def page(out: Path) -> None:
    """One page with a curve of time and one of memory for each question, sizes in equal steps of their logarithm."""
    parts = []
    for what, name in NAMES.items():
        rows = [row for row in read_rows(RESULTS) if row["what"] == what]
        if not rows:
            continue
        x = np.log2([float(row["size"]) for row in rows])
        names = {float(place): f"{int(row['size']):,}" for place, row in zip(x, rows, strict=True)}
        found = {
            label: unit * np.array([float(row[column]) for row in rows]) for column, (label, unit) in SHOWN.items()
        }
        charts = [
            curve_chart(
                [Line(label, x, y)],
                title=f"{label} over {name}",
                x_label=name,
                y_label=label,
                x_range=(float(x.min()), float(x.max()) + 0.05 * float(np.ptp(x))),  # room for the last name
                y_range=(0.0, 1.1 * float(y.max())),
                x_names=names,
            )
            for label, y in found.items()
        ]
        table = Table(
            (name, *found),
            [
                (f"{int(row['size']):,}", *(f"{value:.3g}" for value in values))
                for row, *values in zip(rows, *found.values(), strict=True)
            ],
            f"Processor time and memory over {name}",
            frozenset({1, 2}),
        )
        parts.append((name[0].upper() + name[1:], charts, table))
    lead = "Each point is a process of its own on one thread: processor time a picture, and the most memory it held."
    text = (
        environment()
        .from_string(PAGE)
        .render(
            title="How time and memory grow",
            kind="benchmark",
            when=time.strftime("%Y-%m-%d %H:%M"),
            lead=lead,
            parts=parts,
        )
    )
    out.write_text(printable(text), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=("measure", "page", "point"))
    parser.add_argument("--only", nargs="+", choices=tuple(SIZES), default=tuple(SIZES))
    parser.add_argument(
        "--most", type=int, default=10_000, help="the largest number of pictures (100,000: half an hour)"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("growth.html"))
    parser.add_argument("--what", choices=tuple(SIZES), help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.do == "point":
        point(options.what, options.size)
    elif options.do == "page":
        page(options.output)
    else:
        points = [
            (what, size) for what in options.only for size in SIZES[what] if what != "pictures" or size <= options.most
        ]
        add_missing(RESULTS, HEAD, points, measured)


if __name__ == "__main__":
    main()
