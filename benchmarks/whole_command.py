"""What does the command `blemish inspect` take for a picture beside inference alone?

    python benchmarks/whole_command.py MODEL... --pictures FOLDER [--runs 3]

`inference_ms` is a picture of `Inspector.inspect_many` from files, in a process that has loaded the model;
`command_ms` is a further picture of the whole command with overlays, tables and report: the seconds of a run over the
folder less those of a run over its first picture, so that starting and loading count in neither; `start_s` is that
first run. Both take turns, the least of `--runs` counts. Writes benchmarks/results/whole_command.csv.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tables import keep_row

from blemish import Inspector
from blemish.data import find_images

RESULTS = Path(__file__).parent / "results" / "whole_command.csv"
HEAD = ("detector", "image_size", "pictures", "inference_ms", "command_ms", "ratio", "start_s")


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def command(model: Path, files: Sequence[Path]) -> None:
    """`blemish inspect` on some files, from start to exit."""
    with tempfile.TemporaryDirectory() as folder:
        line = [sys.executable, "-m", "blemish", "inspect", str(model), *map(str, files), "-o", folder + "/results"]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def measured(model: Path, files: Sequence[Path], runs: int) -> dict[str, str]:
    """A row of the table."""
    inspector = Inspector.load(model)
    inspector.inspect(files[0])
    inference, whole, start = ([] for _ in range(3))
    for _ in range(runs):
        inference.append(seconds(lambda: list(inspector.inspect_many(files))))
        whole.append(seconds(lambda: command(model, files)))
        start.append(seconds(lambda: command(model, files[:1])))
    alone = 1000 * min(inference) / len(files)
    beside = 1000 * (min(whole) - min(start)) / (len(files) - 1)
    settings = inspector.settings
    return {
        "detector": settings.detector_name,
        "image_size": str(settings.image_size),
        "pictures": str(len(files)),
        "inference_ms": f"{alone:.1f}",
        "command_ms": f"{beside:.1f}",
        "ratio": f"{beside / alone:.2f}",
        "start_s": f"{min(start):.1f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--pictures", type=Path, required=True, help="a folder with two pictures or more")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    files = find_images(options.pictures)
    for model in options.models:
        row = measured(model, files, options.runs)
        keep_row(RESULTS, HEAD, 3, row)
        print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
