"""Datasets × methods × shots × seeds → one row of measures each, with what a report needs to explain it.

Measures: AUROC, AP and F1-max of images and pixels, AUPRO (Bergmann et al., IJCV 2021), exact; shots are drawn so
that other programs can draw the same. Memory holds one model, and the maps and masks of one category at a time.
"""

from __future__ import annotations

import gc
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from blemish.errors import DatasetError, SettingsError
from blemish.types import Prediction, Sample

if TYPE_CHECKING:
    from blemish.encoders.base import Encoder
    from blemish.model.inspector import Inspector

COLUMNS = (
    *("dataset", "category", "detector", "encoder", "image_size", "shots", "seed", "pooled"),
    *("n_train", "n_good", "n_defective"),
    *("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max"),
    *("aupro_30", "aupro_05", "aupro_01", "false_alarm_rate", "miss_rate"),
    *("fit_seconds", "ms_per_picture", "peak_memory_mb"),
)
MEASURES = COLUMNS[COLUMNS.index("image_auroc") :]

# Told (words, done, total) while a run goes on.
Told = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Part:
    """One category of a dataset: its good images to learn from, and its labelled images to be tested on."""

    dataset: str
    category: str
    good: tuple[Sample, ...]
    test: tuple[Sample, ...]


@dataclass(frozen=True)
class Run:
    """One model to learn and test: which parts, with which method, from how many images (None: all), which seed."""

    parts: tuple[Part, ...]
    detector: str
    encoder: str = "auto"
    image_size: int | None = None
    shots: int | None = None
    seed: int = 0
    pooled: bool = False
    device: str = "auto"
    settings: Mapping[str, Any] = field(default_factory=dict)
    given_category: bool = False  # the model is told which category it inspects, instead of recognising it


@dataclass(frozen=True)
class ScoredImage:
    """What a model said about one test image. `label` is 0 for good, 1 for defective; `defect` names its kind."""

    file: str
    category: str
    recognised: str | None
    defect: str
    label: int
    score: float
    p_value: float
    threshold: float
    is_defective: bool


@dataclass(frozen=True)
class RunDetail:
    """One row (by the names in COLUMNS; nan where a measure has no meaning) and what explains it.

    `examples` are the predictions that teach most, by kind: "found", "missed", "false alarm", the clearest first.
    `evidence` says in words what the threshold rests on, `aupro_thresholds` is None where AUPRO is exact, `failures`
    are (file, error) of test images that could not be read and count nowhere.
    """

    row: dict[str, Any]
    images: tuple[ScoredImage, ...]
    examples: Mapping[str, tuple[tuple[Sample, Prediction], ...]]
    evidence: str = ""
    aupro_thresholds: int | None = None
    failures: tuple[tuple[str, str], ...] = ()
    given_category: bool = False

    @property
    def recognised_right(self) -> tuple[int, int] | None:
        """How many test images the model took for their own category, of how many; None where it had no choice."""
        if not self.row["pooled"] or self.given_category:
            return None
        return sum(image.recognised == image.category for image in self.images), len(self.images)


def plan_runs(
    parts: Sequence[Part],
    detectors: Sequence[str] = ("auto",),
    shots: Sequence[int | None] = (None,),
    seeds: Sequence[int] = (0, 1, 2),
    pooled: bool = False,
    **common: Any,
) -> list[Run]:
    """Every combination; one run over all parts where `pooled`, else one a part. `common` are further fields of Run.

    Runs on the same parts follow each other, so that they can share what was encoded.
    """
    groups = [tuple(parts)] if pooled else [(part,) for part in parts]
    return [
        Run(parts=group, detector=detector, shots=k, seed=seed, pooled=pooled, **common)
        for group, detector, k, seed in product(groups, detectors, shots, seeds)
    ]


def run_details(
    run: Run,
    aupro_thresholds: int | None = None,
    encoders: SharedEncoders | None = None,
    scratch: Path | None = None,
    examples: int = 2,
    told: Told | None = None,
) -> Iterator[RunDetail]:
    """Learn once, then test each part of the run; yields one detail a part.

    `examples` of each kind are kept; with a `scratch` folder their maps lie there as files instead of in memory.
    `encoders` are shared with other runs, which is quicker; the times in the row are those of this run on its own,
    without loading the encoder.
    """
    tell = told or (lambda words, done, total: None)
    encoder = encoders.of(run) if encoders else None
    memory, clock = PeakMemory(), Clock(encoder)
    inspector, learned = fitted(run, tell, encoder)
    seconds = clock.seconds()
    for part in run.parts:
        tested = inspect_part(inspector, part, tell, Clock(encoder), run.given_category)
        row = {
            "dataset": part.dataset,
            "category": part.category,
            "detector": inspector.detector_name,
            "encoder": inspector.encoder_name,
            "image_size": inspector.image_size,
            "shots": "all" if run.shots is None else run.shots,
            "seed": run.seed,
            "pooled": run.pooled,
            "n_train": learned[part.category],
            **tested.measures(aupro_thresholds),
            "fit_seconds": seconds,
            "ms_per_picture": tested.milliseconds,
            "peak_memory_mb": memory.megabytes(),
        }
        yield RunDetail(
            row={name: row[name] for name in COLUMNS},
            images=tested.images(),
            examples=tested.examples(examples, scratch),
            evidence=evidence_of(inspector, part.category),
            aupro_thresholds=aupro_thresholds,
            failures=tuple(tested.failures),
            given_category=run.given_category,
        )
        del tested
        gc.collect()


def evaluate(
    parts: Sequence[Part],
    detectors: Sequence[str] = ("auto",),
    shots: Sequence[int | None] = (None,),
    seeds: Sequence[int] = (0, 1, 2),
    pooled: bool = False,
    aupro_thresholds: int | None = None,
    cache: Path | None = None,
    **common: Any,
) -> Iterator[RunDetail]:
    """All of `plan_runs`, one after the other; the details come as they are ready. `cache`: see `SharedEncoders`."""
    with SharedEncoders(cache=cache) as encoders:
        for run in plan_runs(parts, detectors, shots, seeds, pooled, **common):
            yield from run_details(run, aupro_thresholds, encoders)


def check_runs(runs: Sequence[Run]) -> None:
    """Raise now (SettingsError, DatasetError) what would otherwise end a long evaluation in its middle."""
    for run in runs:
        unlearned(run)
        drawn(run)
        names = [part.category for part in run.parts]
        if len(names) > len(set(names)):
            raise SettingsError(
                "one category of each name in a pooled model", f"{', '.join(names)}", "leave one out, or do not pool"
            )


def unlearned(run: Run, encoder: Encoder | None = None) -> Inspector:
    """The run's method before it has seen an image. Raises SettingsError."""
    from blemish.model.inspector import Inspector

    return Inspector(
        encoder=encoder or run.encoder,
        detector=run.detector,
        image_size=run.image_size,
        device=run.device,
        seed=run.seed,
        **run.settings,
    )


def drawn(run: Run) -> list[Sample]:
    """The good images the run learns from, each with its category. Raises DatasetError when there are too few."""
    from blemish.data import draw_shots

    return [
        replace(sample, category=part.category)
        for part in run.parts
        for sample in draw_shots(part.good, run.shots, run.seed)
    ]


def fitted(run: Run, tell: Told, encoder: Encoder | None = None) -> tuple[Inspector, dict[str, int]]:
    """The run's model, and from how many images of each category it learned."""
    chosen = drawn(run)
    inspector = unlearned(run, encoder).fit(chosen, progress=lambda done, total, facts: tell("learning", done, total))
    return inspector, {part.category: sum(s.category == part.category for s in chosen) for part in run.parts}


@dataclass
class Answers:
    """The labelled images of one part beside what the model said; `seconds` for all, decoding included."""

    part: Part
    samples: list[Sample] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def milliseconds(self) -> float:
        return 1000 * self.seconds / max(len(self.predictions), 1)

    def measures(self, aupro_thresholds: int | None) -> dict[str, Any]:
        """Counts and all accuracy columns of the row."""
        from blemish.metrics import false_alarm_rate, miss_rate, pixel_measures, ranking_measures

        labels = np.array([sample.label for sample in self.samples])
        scores = np.array([prediction.score for prediction in self.predictions])
        limits = np.array([prediction.threshold for prediction in self.predictions])
        ranking = ranking_measures(scores, labels)
        maps, masks = self.maps_and_masks()
        pixels = pixel_measures(maps, masks, aupro_thresholds=aupro_thresholds) if maps else None
        aupro = pixels.aupro if pixels else dict.fromkeys((0.3, 0.05, 0.01), math.nan)
        return {
            "n_good": int((labels == 0).sum()),
            "n_defective": int((labels == 1).sum()),
            "image_auroc": ranking.auroc,
            "image_ap": ranking.ap,
            "image_f1max": ranking.f1max,
            "pixel_auroc": pixels.auroc if pixels else math.nan,
            "pixel_ap": pixels.ap if pixels else math.nan,
            "pixel_f1max": pixels.f1max if pixels else math.nan,
            "aupro_30": aupro[0.3],
            "aupro_05": aupro[0.05],
            "aupro_01": aupro[0.01],
            "false_alarm_rate": false_alarm_rate(scores, labels, limits),
            "miss_rate": miss_rate(scores, labels, limits),
        }

    def maps_and_masks(self) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
        """Maps `(H, W)` at their mask's size with the masks, None for good images; empty where no mask is known."""
        from blemish.data.images import load_mask

        maps: list[np.ndarray] = []
        masks: list[np.ndarray | None] = []
        for sample, prediction in zip(self.samples, self.predictions, strict=True):
            if sample.label and sample.mask is None:
                continue  # where the defect lies is unknown: neither its pixels nor its area can be counted
            mask = load_mask(sample.mask) if sample.label and sample.mask is not None else None
            maps.append(prediction.map if mask is None else resized(prediction.map, mask.shape))
            masks.append(mask)
        known = any(mask is not None for mask in masks)
        return (maps, masks) if known else ([], [])

    def images(self) -> tuple[ScoredImage, ...]:
        """One record an image, without maps."""
        return tuple(
            ScoredImage(
                file=prediction.source,
                category=self.part.category,
                recognised=prediction.category,
                defect=sample.defect,
                label=int(sample.label or 0),
                score=prediction.score,
                p_value=prediction.p_value,
                threshold=prediction.threshold,
                is_defective=prediction.is_defective,
            )
            for sample, prediction in zip(self.samples, self.predictions, strict=True)
        )

    def examples(self, count: int, scratch: Path | None) -> dict[str, tuple[tuple[Sample, Prediction], ...]]:
        """The clearest finds, the most overlooked defects and the loudest false alarms, `count` of each at most."""
        pairs = list(zip(self.samples, self.predictions, strict=True))
        kinds = {
            "found": sorted((p for p in pairs if p[0].label and p[1].is_defective), key=lambda p: -excess(p[1])),
            "missed": sorted((p for p in pairs if p[0].label and not p[1].is_defective), key=lambda p: excess(p[1])),
            "false alarm": sorted(
                (p for p in pairs if not p[0].label and p[1].is_defective), key=lambda p: -excess(p[1])
            ),
        }
        return {kind: tuple((s, put_aside(p, scratch)) for s, p in found[:count]) for kind, found in kinds.items()}


def inspect_part(inspector: Inspector, part: Part, tell: Told, clock: Clock, given_category: bool = False) -> Answers:
    """Inspect a part's test images, telling the model their category or not. Raises DatasetError when none can be
    read."""
    from blemish.model.inspector import Failure

    tested = Answers(part)
    by_file = {sample.name: sample for sample in part.test}
    # Neither label nor category goes along: a pooled model has to recognise what it looks at.
    unlabelled = [Sample(sample.image, sample.points) for sample in part.test]
    answers = inspector.inspect_many(unlabelled, part.category if given_category else None)
    for done, answer in enumerate(answers, start=1):
        if isinstance(answer, Failure):
            tested.failures.append((str(answer.file), str(answer.error)))
        else:
            tested.samples.append(by_file[answer.source])
            tested.predictions.append(answer)
        tell(f"testing {part.category}", done, len(part.test))
    tested.seconds = clock.seconds()
    if not tested.predictions:
        raise DatasetError(
            f"test pictures of {part.category}", "none that can be read", "check the dataset's test folder"
        )
    return tested


def excess(prediction: Prediction) -> float:
    """How far a score lies beyond its own limit; comparable across categories."""
    return prediction.score / prediction.threshold if prediction.threshold > 0 else prediction.score


def resized(scores: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A map `(H, W)` float32 at its mask's `size` (bilinear); itself when it has that size."""
    if scores.shape == tuple(size):
        return scores
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(scores, dtype=np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def put_aside(prediction: Prediction, scratch: Path | None) -> Prediction:
    """The same prediction with its map in a file of `scratch`, read back only where it is looked at."""
    if scratch is None:
        return prediction
    file = scratch / f"map-{sum(1 for _ in scratch.iterdir())}.npy"
    np.save(file, prediction.map)
    return replace(prediction, map=np.load(file, mmap_mode="r"))


def evidence_of(inspector: Inspector, category: str) -> str:
    """One sentence on what the category's threshold rests on."""
    calibrations = inspector.calibrations
    calibration = calibrations.get(category) or next(iter(calibrations.values()))
    return str(calibration.evidence.words)


class SharedEncoders:
    """The encoder of every method, loaded once; on a CPU it keeps what it encoded while runs are on the same parts,
    or on some of them.

    What it keeps lies in a new folder inside `folder` (None: where the system wants it), which is gone at the end of
    this context manager. With a `cache` it lies there instead, in float16, and later evaluations find it.
    """

    def __init__(self, folder: Path | None = None, cache: Path | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="blemish-", dir=folder)
        self._cache = cache
        self._encoders: dict[tuple[object, ...], Encoder] = {}
        self._parts: tuple[Part, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def of(self, run: Run) -> Encoder:
        """The run's encoder, with the layers its detector asks for. Raises WeightsError when it cannot load."""
        from blemish.encoders.feature_cache import RememberingEncoder, lasting

        if not all(any(part is known for known in self._parts) for part in run.parts):
            for encoder in self._encoders.values():
                if isinstance(encoder, RememberingEncoder) and self._cache is None:
                    encoder.forget()
            self._parts = run.parts
        method = unlearned(run)
        name, needs, layers = method.chosen_encoder, method.detector.needs, run.settings.get("layers")
        key = (name, run.device, needs.layers, str(layers), needs.points_stride)
        if key not in self._encoders:
            encoder = method.built_encoder()
            if self._cache is not None:
                encoder = lasting(encoder, self._cache)
            elif str(getattr(encoder, "device", "")) == "cpu":  # there, features do not depend on the batch
                encoder = RememberingEncoder(encoder, Path(self._folder.name) / str(len(self._encoders)))
            self._encoders[key] = encoder
        return self._encoders[key]


class Clock:
    """Seconds since it was made, as if nothing had been encoded before."""

    def __init__(self, encoder: Encoder | None = None) -> None:
        self._encoder = encoder
        self._started, self._saved = time.perf_counter(), self._saved_seconds()

    def seconds(self) -> float:
        return time.perf_counter() - self._started + self._saved_seconds() - self._saved

    def _saved_seconds(self) -> float:
        return float(getattr(self._encoder, "saved_seconds", 0.0))


class PeakMemory:
    """The largest resident memory of this process since the object was made, the interpreter and weights included.

    Linux can forget an earlier peak; elsewhere the peak of the whole process is given, which earlier runs may have set.
    """

    def __init__(self) -> None:
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self.resettable = True
        except OSError:
            self.resettable = False

    def megabytes(self) -> float:
        """The peak so far, in 10⁶ bytes; nan where the system does not tell."""
        if self.resettable:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return float(line.split()[1]) * 1024 / 1e6
        try:
            import resource
        except ImportError:  # Windows
            return math.nan
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def mean_rows(rows: Iterable[Mapping[str, Any]], by: Sequence[str]) -> list[dict[str, Any]]:
    """Means of the MEASURES over all rows that agree in `by`, with `n` rows each; nan values are left out of a mean."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    means = []
    for key, members in groups.items():
        facts: dict[str, Any] = dict(zip(by, key, strict=True)) | {"n": len(members)}
        for name in MEASURES:
            values = [float(row[name]) for row in members if not math.isnan(row[name])]
            facts[name] = sum(values) / len(values) if values else math.nan
        means.append(facts)
    return means


def csv_cell(value: Any) -> Any:
    """Six digits are more than any measure means; nan is an empty cell, truth is written small."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "" if value != value else f"{value:.6g}"
    return value
