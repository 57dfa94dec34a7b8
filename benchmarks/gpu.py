"""Does every detector run on a GPU, how fast, in how much memory, and does it score there as on a CPU?

    python benchmarks/gpu.py -o gpu.csv                           # under 4 minutes on an H100
    python benchmarks/gpu.py -o gpu.csv --device cpu --quick      # to try the script itself, a minute or two

Only generated images and scans (those of tests/golden/make_scores.py), no dataset. Encoders are those of the golden
scores where their weights are installed, "pixels" in their place otherwise (column `encoder`). Two sizes: every
registered detector `small` (140 px images, 112 px scans, 8 steps), and hybrid, foundad and text-guided at their
`default` size with at most `--steps` steps.

A row: seconds to fit on the device; milliseconds an image in batches of 1 and of 16; peak memory of the GPU while
fitting and while inspecting, in 10⁶ bytes. Then one model on two devices: fitted on one, saved, loaded for the other
(`small`: fitted on the CPU, `default`: on the device), with the largest relative difference of the scores and of the
maps, and whether all verdicts agree. A detector that fails has its `error` in the row; exit code 1 if there is one, or
verdicts differ. Columns: benchmarks/results/README.md.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "golden"))

from make_scores import CONVOLUTIONAL, ENCODERS, SCAN_SIZE, SCANS, SIZE, part, sample, scan

from blemish import Inspector, Prediction, Sample
from blemish.detectors import factory
from blemish.encoders.availability import availability
from blemish.encoders.text.factory import availability as text_availability
from blemish.registry import DETECTORS, joined_names

HEAD = (
    *("size", "detector", "encoder", "image_size", "steps", "n_train", "device", "fit_seconds"),
    *("ms_batch_1", "ms_batch_16", "fit_peak_mb", "inspect_peak_mb"),
    *("fitted_on", "loaded_on", "score_difference", "map_difference", "verdicts_agree", "error"),
)
DEFAULT_SIZE = ("hybrid", "foundad", "text-guided")
SMALL_STEPS, QUICK_STEPS = 8, 2
TRAIN, TESTED = 8, 48  # images to fit on, and to take times on
QUICK_TRAIN, QUICK_TESTED, QUICK_SIZE = 3, 2, 84


@dataclass(frozen=True)
class Case:
    """One row to be measured: a detector at one size. `settings` are arguments of `Inspector`; `train` and `tested`
    count the images to fit on and to take times on."""

    size: str
    detector: str
    encoder: str
    settings: Mapping[str, Any]
    train: int = TRAIN
    tested: int = TESTED

    @property
    def is_scans(self) -> bool:
        return self.detector in SCANS

    def inspector(self, device: str) -> Inspector:
        """The method, not fitted."""
        return Inspector(self.encoder, self.detector, device=device, **self.settings)

    def samples(self, count: int, seed: int, both: bool = False) -> list[Sample]:
        """Normal images or scans; every second one defective where `both`."""
        flags = [both and i % 2 == 1 for i in range(count)]
        if self.is_scans:
            return [sample(*scan(seed + i, flag), "dome") for i, flag in enumerate(flags)]
        return [sample(part("disc", seed + i, flag), category="disc") for i, flag in enumerate(flags)]


def cases(names: Sequence[str], steps: int, quick: bool) -> list[Case]:
    """All rows: `small` of every detector, then `default` of some, unless `quick`."""
    if quick:
        few = [case("small", n, QUICK_STEPS, {"image_size": QUICK_SIZE}) for n in names]
        return [replace(one, train=QUICK_TRAIN, tested=QUICK_TESTED) for one in few]
    small = [case("small", n, SMALL_STEPS, {"image_size": SCAN_SIZE if n in SCANS else SIZE}) for n in names]
    return small + [case("default", name, steps, {}) for name in DEFAULT_SIZE if name in names]


def case(size: str, name: str, steps: int, settings: Mapping[str, Any]) -> Case:
    """A case with the settings that its detector has."""
    own = factory.build(name).settings
    bounded = {"steps": min(steps, own["steps"])} if "steps" in own else {}
    words: dict[str, Any] = {}
    if "text" in own:
        words = {"text_encoder": "minilm"} if text_availability("minilm").loads else {"text": False}
    return Case(size, name, encoder_for(name), {**settings, **bounded, **words})


def encoder_for(name: str) -> str:
    """The encoder of the golden scores, with "pixels" for what has no weights here."""
    names = joined_names(ENCODERS.get(name, CONVOLUTIONAL))
    return "+".join(one if availability(one).loads else "pixels" for one in names)


class GpuPeak:
    """The most that the GPU held since the object was made, in 10⁶ bytes; nan without one."""

    def __init__(self) -> None:
        self._cuda = torch.cuda.is_available()
        if self._cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def megabytes(self) -> float:
        return torch.cuda.max_memory_allocated() / 1e6 if self._cuda else float("nan")


def milliseconds(inspector: Inspector, samples: Sequence[Sample], batch: int) -> float:
    """Wall-clock milliseconds an image, after one batch that warms up."""
    list(inspector.inspect_many(samples[:batch], batch_size=batch))
    started = time.perf_counter()
    list(inspector.inspect_many(samples, batch_size=batch))
    return 1000 * (time.perf_counter() - started) / len(samples)


def measured(one: Case, device: str) -> dict[str, Any]:
    """Times and memory on the device, and the comparison of the two devices."""
    memory = GpuPeak()
    started = time.perf_counter()
    inspector = one.inspector(device).fit(one.samples(one.train, 0))
    seconds, fit_peak = time.perf_counter() - started, memory.megabytes()
    tested, memory = [Sample(s.image, s.points) for s in one.samples(one.tested, 100)], GpuPeak()
    spent = {batch: milliseconds(inspector, tested, batch) for batch in (1, 16)}
    row = {
        "image_size": inspector.image_size,
        "n_train": one.train,
        "fit_seconds": seconds,
        "ms_batch_1": spent[1],
        "ms_batch_16": spent[16],
        "fit_peak_mb": fit_peak,
        "inspect_peak_mb": memory.megabytes(),
    }
    if one.size == "small" and device != "cpu":
        inspector = one.inspector("cpu").fit(one.samples(one.train, 0))
    return row | portability(one, inspector, "cpu" if one.size == "small" else device, device)


def portability(one: Case, inspector: Inspector, fitted_on: str, device: str) -> dict[str, Any]:
    """The same model where it was fitted and on the other device."""
    loaded_on = device if fitted_on == "cpu" else "cpu"
    tested = [Sample(s.image, s.points) for s in one.samples(6, 200, both=True)]
    with tempfile.TemporaryDirectory() as folder:
        other = Inspector.load(inspector.save(Path(folder) / "model"), device=loaded_on)
        pairs = [(inspector.inspect(s), other.inspect(s)) for s in tested]
    return {
        "fitted_on": fitted_on,
        "loaded_on": loaded_on,
        "score_difference": max(relative(np.array(a.score), np.array(b.score)) for a, b in pairs),
        "map_difference": max(relative(a.map, b.map) for a, b in pairs),
        "verdicts_agree": all(same_verdict(a, b) for a, b in pairs),
    }


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    return float(np.abs(a - b).max() / max(float(np.abs(a).max()), 1e-12))


def same_verdict(a: Prediction, b: Prediction) -> bool:
    return a.verdict == b.verdict


def cell(value: Any) -> str:
    """Four digits; nan is empty."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return str(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="small size alone, few images and steps, one thread")
    parser.add_argument("--only", nargs="+", default=list(DETECTORS), help="these detectors alone")
    parser.add_argument("--steps", type=int, default=300, help="at most so many steps of training at default size")
    parser.add_argument("--seconds", type=float, default=220, help="no row is begun after so long")
    chosen = parser.parse_args()
    if chosen.quick:
        torch.set_num_threads(1)  # several that wait for each other take minutes on a busy machine
    device = torch.cuda.get_device_name() if chosen.device == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    started, failed = time.perf_counter(), False
    with chosen.output.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, HEAD, restval="", lineterminator="\n")
        table.writeheader()
        for one in cases(chosen.only, chosen.steps, chosen.quick):
            row: dict[str, Any] = {"size": one.size, "detector": one.detector, "encoder": one.encoder, "device": device}
            row["steps"] = one.settings.get("steps", "")
            if time.perf_counter() - started > chosen.seconds:
                row["error"] = "not begun: out of time"
            else:
                try:
                    row |= measured(one, chosen.device)
                except Exception as error:  # one detector failing is a finding, not the end
                    row["error"] = f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
            failed |= bool(row.get("error")) or not row.get("verdicts_agree", True)
            table.writerow({name: cell(value) for name, value in row.items()})
            file.flush()
            print({name: cell(value) for name, value in row.items()}, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
