"""What a model predicted for the labelled images of one category, and every measure of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from blemish.data.full_scale import FullScale
from blemish.data.layouts.mvtec_loco import LOGICAL, STRUCTURAL
from blemish.data.masks import defect_masks, is_turn_doubtful
from blemish.errors import DatasetError
from blemish.evaluation.runs import CategoryData
from blemish.types import ALARMS, Prediction, Sample, Verdict

GROUPS = {"logical": LOGICAL, "structural": STRUCTURAL}  # kinds of defects that are measured apart as well
MOSTLY_DEFECT = 0.5  # of an image: a mask that covers more is probably inverted
SAME_SHAPE = 0.02  # relative difference of two aspect ratios that rounding a scaled mask's size can explain


@dataclass(frozen=True)
class ScoredImage:
    """What a model predicted for one test image. `label` is 0 for normal, 1 for defective; `defect` names its kind."""

    file: str
    category: str
    recognised: str | None
    defect: str
    label: int
    score: float
    p_value: float
    threshold: float
    verdict: Verdict

    @property
    def is_alarm(self) -> bool:
        """Whether the image is called defective or unknown; an unsure one is left to a person."""
        return self.verdict in ALARMS


@dataclass(frozen=True)
class RunDetail:
    """One row (by the names in COLUMNS; nan where a measure has no meaning) and what explains it.

    `examples` are the most telling predictions, by kind: "found", "missed", "false alarm", the clearest first.
    `threshold_source` says in a sentence what the threshold rests on, `aupro_thresholds` is None where AUPRO is exact,
    `failures` are (file, error) of test images that could not be read and are in no measure. `notes` are sentences
    that a reader of the row must know, such as masks that are missing. `full_scale` is which level of images with more
    than 8 bits is white, as the model learned it.
    """

    row: dict[str, Any]
    images: tuple[ScoredImage, ...]
    examples: Mapping[str, tuple[tuple[Sample, Prediction], ...]]
    threshold_source: str = ""
    aupro_thresholds: int | None = None
    failures: tuple[tuple[str, str], ...] = ()
    given_category: bool = False
    notes: tuple[str, ...] = ()
    full_scale: FullScale | None = None

    @property
    def recognised_right(self) -> tuple[int, int] | None:
        """How many test images were recognised as their own category, of how many; None without a choice."""
        if not self.row["pooled"] or self.given_category:
            return None
        return sum(image.recognised == image.category for image in self.images), len(self.images)


@dataclass
class TestResults:
    """The labelled images of one category, each with its prediction, in one order; `failures` could not be read."""

    category: CategoryData
    samples: list[Sample] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)

    __test__ = False  # pytest: this is no test

    def measures(self, aupro_thresholds: int | None = None) -> dict[str, Any]:
        """Counts and all measures of the row but its costs. Raises DatasetError for masks of another shape."""
        found = self._counts() | self._ranking() | self._pixels(aupro_thresholds) | self._saturated()
        return found | self._by_group() | self._verdicts()

    def _counts(self) -> dict[str, Any]:
        defective = [sample for sample in self.samples if sample.label]
        return {
            "n_good": len(self.samples) - len(defective),
            "n_defective": len(defective),
            "n_masks": sum(sample.mask is not None for sample in defective),
        }

    def _ranking(self) -> dict[str, Any]:
        from blemish.metrics import ranking_measures

        found = ranking_measures(
            np.array([prediction.score for prediction in self.predictions]),
            np.array([sample.label for sample in self.samples]),
        )
        return {"image_auroc": found.auroc, "image_ap": found.ap, "image_f1max": found.f1max}

    def _pixels(self, aupro_thresholds: int | None) -> dict[str, Any]:
        """Pixel measures over normal images and defective ones with a mask; nan where none has one."""
        from blemish.metrics import pixel_measures

        maps, masks = self.maps_and_masks()
        found = pixel_measures(maps, masks, aupro_thresholds=aupro_thresholds) if maps else None
        aupro = found.aupro if found else dict.fromkeys((0.3, 0.05, 0.01), math.nan)
        return {
            "pixel_auroc": found.auroc if found else math.nan,
            "pixel_ap": found.ap if found else math.nan,
            "pixel_f1max": found.f1max if found else math.nan,
            "aupro_30": aupro[0.3],
            "aupro_05": aupro[0.05],
            "aupro_01": aupro[0.01],
        }

    def _saturated(self) -> dict[str, Any]:
        """sPRO, and that of each group of defects beside all normal images; nan where no saturations are stated."""
        from blemish.metrics import spro

        maps, regions, groups = self.maps_and_defects()
        found: dict[str, float] = {}
        for name, group, limits in (("", None, (0.3, 0.05)), *((f"_{group}", group, (0.05,)) for group in GROUPS)):
            chosen = [i for i, own in enumerate(groups) if not regions[i] or group in (None, own)]
            areas = dict.fromkeys(limits, math.nan)
            if any(regions[i] for i in chosen):
                areas = spro(
                    [maps[i] for i in chosen],
                    [[mask for mask, _ in regions[i]] for i in chosen],
                    [[pixels for _, pixels in regions[i]] for i in chosen],
                    limits,
                )
            found |= {f"spro_{round(100 * limit):02}{name}": area for limit, area in areas.items()}
        return found

    def _by_group(self) -> dict[str, Any]:
        """Image AUROC of each group of defects beside all normal images; nan where a dataset has no such groups."""
        from blemish.metrics import auroc

        found = {}
        for name in GROUPS:
            chosen = [
                (p.score, int(s.label or 0))
                for s, p in zip(self.samples, self.predictions, strict=True)
                if not s.label or group_of(s) == name
            ]
            found[f"image_auroc_{name}"] = auroc([score for score, _ in chosen], [label for _, label in chosen])
        return found

    def _verdicts(self) -> dict[str, Any]:
        """How often verdicts are wrong, and whether p-values and certainty are worth what they say."""
        from blemish.metrics import (
            false_alarm_rate,
            kept_rate,
            miss_rate,
            oracle_miss_rate,
            risk_coverage,
            uniformity,
            verdict_rate,
        )

        labels = np.array([sample.label for sample in self.samples])
        verdicts = [prediction.verdict for prediction in self.predictions]
        on_normal = [verdict for verdict, label in zip(verdicts, labels, strict=True) if not label]
        alarms = sum(verdict_rate(on_normal, verdict) for verdict in ALARMS)  # unsure ones count in neither
        kept = kept_rate(alarms, len(on_normal))
        p_values = [p.p_value for p, label in zip(self.predictions, labels, strict=True) if not label]
        wrong = [(v == "good") == bool(label) for v, label in zip(verdicts, labels, strict=True)]
        return {
            "false_alarm_rate": false_alarm_rate(verdicts, labels),
            "miss_rate": miss_rate(verdicts, labels),
            "oracle_miss_rate": oracle_miss_rate([p.score for p in self.predictions], labels),
            "unknown_rate": verdict_rate(verdicts, "unknown"),
            "unsure_rate": verdict_rate(verdicts, "unsure"),
            "false_alarm_rate_low": kept.low,
            "false_alarm_rate_high": kept.high,
            "p_value_excess": uniformity(p_values).excess if p_values else math.nan,
            "aurc": risk_coverage([certainty(p) for p in self.predictions], wrong).aurc if wrong else math.nan,
        }

    @cached_property
    def masks(self) -> list[np.ndarray | None]:
        """The mask `(H, W)` bool of each sample in order, None where there is none; read once, when all are there."""
        return [mask_of(sample, p) for sample, p in zip(self.samples, self.predictions, strict=True)]

    def maps_and_masks(self) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
        """Maps `(H, W)` at their mask's size with the masks, None for normal images; empty where no mask is known.

        Defective images without a mask are left out: neither their pixels nor their area can be counted.
        """
        maps: list[np.ndarray] = []
        masks: list[np.ndarray | None] = []
        for sample, prediction, mask in zip(self.samples, self.predictions, self.masks, strict=True):
            if mask is not None or not sample.label:
                maps.append(prediction.map if mask is None else resized(prediction.map, mask.shape))
                masks.append(mask)
        known = any(mask is not None for mask in masks)
        return (maps, masks) if known else ([], [])

    def maps_and_defects(self) -> tuple[list[np.ndarray], list[list[tuple[np.ndarray, float]]], list[str]]:
        """Maps `(H, W)` at their masks' size, each image's defects with their saturations in pixels, and their groups.

        Of normal images, which have none, and of defective ones that state saturations; empty where none does.
        """
        maps: list[np.ndarray] = []
        regions: list[list[tuple[np.ndarray, float]]] = []
        groups: list[str] = []
        if not any(sample.saturations for sample in self.samples):
            return maps, regions, groups
        for sample, prediction in zip(self.samples, self.predictions, strict=True):
            defects = defect_masks(sample) if sample.label and sample.saturations else []
            if defects or not sample.label:
                maps.append(resized(prediction.map, defects[0][0].shape) if defects else prediction.map)
                regions.append(defects)
                groups.append(group_of(sample))
        return maps, regions, groups

    def notes(self) -> tuple[str, ...]:
        """What a reader of the pixel measures must know: masks that are missing, empty, inverted, or turned."""
        counts = self._counts()
        found = []
        if counts["n_masks"] < counts["n_defective"]:
            pixels = "pixel figures are of these alone" if counts["n_masks"] else "pixel figures are left blank"
            found.append(f"masks for {counts['n_masks']} of {counts['n_defective']} defective pictures; {pixels}")
        shares = [float(mask.mean()) for mask in self.masks if mask is not None]
        if empty := sum(share == 0 for share in shares):
            found.append(f"{empty} of {len(shares)} masks are empty: nothing is marked in them")
        if inverted := sum(share > MOSTLY_DEFECT for share in shares):
            found.append(
                f"{inverted} of {len(shares)} masks mark over {100 * MOSTLY_DEFECT:g} % of their picture: inverted?"
            )
        turned = sum(m is not None and is_turn_doubtful(m, s) for s, m in zip(self.samples, self.masks, strict=True))
        if turned:
            found.append(f"{turned} of {len(shares)} masks lie on pictures that EXIF turns: drawn as shown upright?")
        return tuple(found)

    def images(self) -> tuple[ScoredImage, ...]:
        """One record an image, without maps."""
        return tuple(
            ScoredImage(
                file=prediction.source,
                category=self.category.name,
                recognised=prediction.category,
                defect=sample.defect,
                label=int(sample.label or 0),
                score=prediction.score,
                p_value=prediction.p_value,
                threshold=prediction.threshold,
                verdict=prediction.verdict,
            )
            for sample, prediction in zip(self.samples, self.predictions, strict=True)
        )

    def examples(self, count: int, scratch: Path | None = None) -> dict[str, tuple[tuple[Sample, Prediction], ...]]:
        """The clearest finds, the lowest scores of missed defects, the highest of false alarms, `count` of each."""
        pairs = sorted(zip(self.samples, self.predictions, strict=True), key=lambda pair: pair[1].excess)
        kinds = {
            "found": [(s, p) for s, p in reversed(pairs) if s.label and p.verdict != "good"],
            "missed": [(s, p) for s, p in pairs if s.label and p.verdict == "good"],
            "false alarm": [(s, p) for s, p in reversed(pairs) if not s.label and p.verdict != "good"],
        }
        return {kind: tuple((s, put_aside(p, scratch)) for s, p in found[:count]) for kind, found in kinds.items()}


def group_of(sample: Sample) -> str:
    """Which of `GROUPS` a defective sample's kind belongs to; "" for none, and for a normal one."""
    return next((name for name, kind in GROUPS.items() if sample.defect == kind), "")


def certainty(prediction: Prediction) -> float:
    """How far a score lies from its threshold, |log(score / threshold)|; -1 for verdicts left to a person."""
    if prediction.verdict in ("unsure", "unknown"):
        return -1.0
    return abs(math.log(max(prediction.score, 1e-12) / max(prediction.threshold, 1e-12)))


def mask_of(sample: Sample, prediction: Prediction) -> np.ndarray | None:
    """The mask `(H, W)` bool of a defective sample, at any scale of its image; None where there is none.

    Raises DatasetError for one of another shape: of another image, or drawn before the image was turned upright.
    """
    from blemish.data.images import load_mask

    if not sample.label or sample.mask is None:
        return None
    mask = load_mask(sample.mask)
    (height, width), (tall, wide) = prediction.map.shape, mask.shape
    if abs(height * wide / (width * tall) - 1) > SAME_SHAPE:
        raise DatasetError(
            f"a mask in the shape of its picture, {width}x{height}, for {sample.name}",
            f"{wide}x{tall}",
            "give the mask that was drawn on this picture as it is shown upright",
        )
    return mask


def resized(scores: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A map `(H, W)` float32 at its mask's `size` (bilinear); itself when it has that size."""
    if scores.shape == tuple(size):
        return scores
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(scores, dtype=np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def with_maps_aside(detail: RunDetail, scratch: Path) -> RunDetail:
    """The same detail with the maps of its examples in files of `scratch`."""
    examples = {
        kind: tuple((sample, put_aside(prediction, scratch)) for sample, prediction in pairs)
        for kind, pairs in detail.examples.items()
    }
    return replace(detail, examples=examples)


def put_aside(prediction: Prediction, scratch: Path | None) -> Prediction:
    """The same prediction with its map in a file of `scratch`, read back only where it is needed."""
    if scratch is None:
        return prediction
    file = scratch / f"map-{sum(1 for _ in scratch.iterdir())}.npy"
    np.save(file, prediction.map)
    return replace(prediction, map=np.load(file, mmap_mode="r"))
