"""Does the memory of `blemish inspect` stay flat? Its resident size while it inspects many small pictures.

    python benchmarks/inspect_memory.py --images 20000

One process runs the command on generated pictures of 64 × 64 pixels (one in twenty is defective), with overlays, rows
and reports as users get them; another reads its resident size (VmRSS of /proc, Linux alone) after every 500 rows. The
encoder has no weights, so that what grows is the program and not a network. Growth is that of the last tenth over the
mean after the warm-up of 1,500 pictures, by which time the report shows as many pictures as it ever does.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import numpy as np
from PIL import Image

RESULTS = Path(__file__).parent / "results" / "inspect_memory.csv"
SIDE, LEARNED, EVERY, WARM_UP = 64, 20, 500, 1500
METHOD = ("--encoder", "pixels", "--detector", "patchcore", "--image-size", str(SIDE), "--device", "cpu")


def write_pictures(folder: Path, count: int, defective_every: int = 0) -> None:
    """Pictures (64, 64, 3) of a noisy disc; every so many carries a dark square."""
    folder.mkdir()
    y, x = np.mgrid[:SIDE, :SIDE]
    disc = np.where(np.hypot(y - SIDE / 2, x - SIDE / 2) < SIDE / 3, 180.0, 90.0)[..., None].repeat(3, 2)
    random = np.random.default_rng(0)
    for i in range(count):
        image = disc + random.normal(0, 4, disc.shape)
        if defective_every and i % defective_every == 0:
            image[20:32, 24:36] = 5
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{i:06}.png", compress_level=1)


def resident_mb(pid: int) -> float:
    """The resident size of a process, in MB."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def sizes_while_inspecting(model: Path, pictures: Path, out: Path) -> Iterator[tuple[int, float, float]]:
    """(pictures done, seconds, resident MB) after every `EVERY` rows."""
    command = [sys.executable, "-m", "blemish", "inspect", str(model), str(pictures), "-o", str(out), "--device", "cpu"]
    started, done, due = time.perf_counter(), 0, EVERY
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        rows = None
        while process.poll() is None:
            if rows is None and (out / "results.jsonl").exists():
                rows = (out / "results.jsonl").open("rb")
            done += 0 if rows is None else rows.read().count(b"\n")
            if done >= due:
                yield done, time.perf_counter() - started, resident_mb(process.pid)
                due = done - done % EVERY + EVERY
            time.sleep(0.02)
        if process.returncode:
            raise SystemExit(f"blemish inspect ended with {process.returncode}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_pictures(folder / "good", LEARNED)
        write_pictures(folder / "incoming", given.images, defective_every=20)
        fit = [sys.executable, "-m", "blemish", "fit", str(folder / "good"), "-o", str(folder / "model"), *METHOD]
        subprocess.run(fit, check=True, stdout=subprocess.DEVNULL)
        found = list(sizes_while_inspecting(folder / "model", folder / "incoming", folder / "out"))
    with given.out.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("pictures", "seconds", "resident_mb"))
        rows.writerows((done, f"{seconds:.1f}", f"{size:.1f}") for done, seconds, size in found)
    warm = [size for done, _, size in found if done >= WARM_UP]
    first, last = fmean(warm[:4]), fmean(warm[-max(1, len(warm) // 10) :])
    print(f"{first:.1f} MB after the warm-up, {last:.1f} MB at the end: {100 * (last / first - 1):+.1f} %")


if __name__ == "__main__":
    main()
