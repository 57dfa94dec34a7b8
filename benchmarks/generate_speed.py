"""How long does it take to render 1,000 scans of 224 px? `python benchmarks/generate_speed.py [--workers 2]`

Writes the set of `blemish generate` with its own counts (100 scans of each of ten classes) into a temporary folder and
removes it. Seconds are of the wall clock; processor seconds are those of all its processes together, which other work
on the machine hardly changes. Writes benchmarks/results/generate_speed.csv.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import tempfile
import time
from pathlib import Path

from blemish.research.synthetic_scans import ScanSetSpec, write_scans

RESULTS = Path(__file__).parent / "results" / "generate_speed.csv"


def processor_seconds() -> float:
    """Spent so far by this process and by those it started that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    plan = ScanSetSpec(size=options.size)
    with tempfile.TemporaryDirectory() as folder:
        began, before = time.perf_counter(), processor_seconds()
        write_scans(folder, plan, options.workers)
        seconds, used = time.perf_counter() - began, processor_seconds() - before
    row = {
        "scans": len(plan.scans()),
        "size": plan.size,
        "workers": options.workers,
        "cores": len(os.sched_getaffinity(0)),
        "seconds": f"{seconds:.1f}",
        "processor_seconds": f"{used:.1f}",
    }
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, row.keys(), lineterminator="\n")
        table.writeheader()
        table.writerow(row)
    print(row)


if __name__ == "__main__":
    main()
