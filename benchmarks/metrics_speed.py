"""How much faster, and in how much memory, does blemish measure pixel maps than scikit-learn?

    python benchmarks/metrics_speed.py                 # 80 maps of 512 × 512, one to five minutes
    python benchmarks/metrics_speed.py --maps 8        # a quick look

blemish gives pixel AUROC, AP, largest F1 and AUPRO at 30, 5 and 1 % in one call; scikit-learn gives the first three in
three calls (roc_auc_score, average_precision_score, precision_recall_curve) on the same float32 pixels. Time: wall
clock, the fastest and the median of the runs, one program after the other; beside it the processor time,
which other programs on the same processor disturb less. Memory: the peak that Python and numpy hold over the call
(tracemalloc, in a run of its own), in bytes a pixel, without and with the inputs. The maps are smooth, as upsampled
patch scores are; half of the images are good. Writes benchmarks/results/metrics_speed.csv.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.ndimage import zoom
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from blemish.metrics import pixel_measures

RESULTS = Path(__file__).parent / "results" / "metrics_speed.csv"
Job = Callable[[], dict[str, float]]


def make_images(count: int, side: int, share: float) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """Smooth float32 maps `(side, side)`; every second image has square defects on about `share` of all pixels."""
    rng = np.random.default_rng(0)
    edge = max(int(side * (share / 2) ** 0.5), 1) if share < 0.4 else side  # four squares, or the whole image
    maps, masks = [], []
    for i in range(count):
        mask = np.zeros((side, side), bool)
        for y, x in rng.integers(0, side - edge + 1, (4 * (i % 2), 2)):
            mask[y : y + edge, x : x + edge] = True
        patches = zoom(rng.gamma(2.0, 1.0, (32, 32)), side / 32, order=1)
        maps.append((patches + 2 * mask + rng.normal(0, 0.05, mask.shape)).astype(np.float32))
        masks.append(mask if i % 2 else None)
    return maps, masks


def blemish_job(maps: list[np.ndarray], masks: list[np.ndarray | None], threads: int) -> Job:
    def run() -> dict[str, float]:
        got = pixel_measures(maps, masks, threads=threads)
        return {"auroc": got.auroc, "ap": got.ap, "f1max": got.f1max}

    return run


def scikit_learn_job(maps: list[np.ndarray], masks: list[np.ndarray | None]) -> Job:
    scores = np.concatenate([m.ravel() for m in maps])
    full = [np.zeros(m.shape, bool) if k is None else k for m, k in zip(maps, masks, strict=True)]
    labels = np.concatenate(full).ravel()

    def run() -> dict[str, float]:
        area, average = roc_auc_score(labels, scores), average_precision_score(labels, scores)
        precision, recall, _ = precision_recall_curve(labels, scores)
        f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
        return {"auroc": float(area), "ap": float(average), "f1max": float(f1.max())}

    return run


def peak_bytes(job: Job) -> int:
    tracemalloc.start()
    job()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def measure(count: int, side: int, share: float, runs: int, rounds: int) -> list[dict[str, object]]:
    """One row for each program: `runs` calls of blemish and one of scikit-learn in each of `rounds`."""
    maps, masks = make_images(count, side, share)
    pixels = count * side * side
    defective = sum(int(m.sum()) for m in masks if m is not None) / pixels
    own = sum(m.nbytes for m in maps) + sum(m.nbytes for m in masks if m is not None)
    jobs = {
        "blemish, all measures, 1 thread": blemish_job(maps, masks, 1),
        "blemish, all measures, 2 threads": blemish_job(maps, masks, 2),
    }
    if rounds:
        jobs["scikit-learn, three measures"] = scikit_learn_job(maps, masks)
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    processor: dict[str, list[float]] = {name: [] for name in jobs}
    for name, job in list(jobs.items()) * max(rounds, 1):
        for _ in range(1 if name.startswith("scikit") else runs):
            started, used = time.perf_counter(), time.process_time()
            answer = job()
            seconds[name].append(time.perf_counter() - started)
            processor[name].append(time.process_time() - used)
        if name.startswith("scikit"):
            ours = next(iter(jobs.values()))()
            assert all(abs(ours[k] - answer[k]) < 1e-9 for k in answer), (ours, answer)
    theirs = seconds.get("scikit-learn, three measures")
    rows: list[dict[str, object]] = []
    for name, job in jobs.items():
        peak = peak_bytes(job) / pixels
        rows.append(
            {
                "program": name,
                "maps": count,
                "side": side,
                "defective_share": round(defective, 4),
                "seconds_best": round(min(seconds[name]), 4),
                "seconds_median": round(statistics.median(seconds[name]), 4),
                "processor_seconds": round(min(processor[name]), 4),
                "runs": len(seconds[name]),
                "times_faster": round(min(theirs) / min(seconds[name]), 1) if theirs else "",
                "peak_bytes_per_pixel": round(peak, 2),
                "with_inputs": round(peak + own / pixels, 2),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=80)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--runs", type=int, default=10, help="calls of blemish in each round")
    parser.add_argument("--rounds", type=int, default=1, help="rounds that scikit-learn takes part in")
    parser.add_argument("--output", type=Path, default=RESULTS)
    chosen = parser.parse_args()

    rows = measure(chosen.maps, chosen.side, 0.02, chosen.runs, chosen.rounds)
    for share in (0.1, 0.5):
        rows += measure(chosen.maps, chosen.side, share, chosen.runs, 0)

    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    with chosen.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    table = Table(*rows[0], title=f"Pixel measures, numpy {np.__version__}, {os.cpu_count()} CPUs")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(width=190).print(table)


if __name__ == "__main__":
    main()
