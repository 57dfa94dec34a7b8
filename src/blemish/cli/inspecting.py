"""Inspect images into an output folder: what `blemish inspect` and `blemish demo` share."""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from blemish.types import POINTS, Prediction, Sample

if TYPE_CHECKING:
    from blemish.model.inspector import Inspector

SHOWN = 40  # images of each verdict that a report can show
_NO_MAP = np.zeros((1, 1), dtype=np.float32)


@dataclass
class Inspection:
    """What became of all images. Maps are kept, in small, only for those a report can show."""

    predictions: list[Prediction] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0
    _kept: dict[tuple[bool, bool, int | None], list[tuple[float, int, Prediction]]] = field(default_factory=dict)

    @property
    def defective(self) -> int:
        return sum(p.is_defective for p in self.predictions)

    @property
    def unknown(self) -> int:
        return sum(not p.is_known for p in self.predictions)

    def add(self, prediction: Prediction, label: int | None = None) -> None:
        """Take one answer in; of each verdict and label, the `SHOWN` furthest above their limit keep a map."""
        verdict = (prediction.is_known, prediction.is_defective, label)
        excess = prediction.score / prediction.threshold if prediction.threshold > 0 else prediction.score
        place = len(self.predictions)
        self.predictions.append(replace(prediction, map=_NO_MAP, regions=()))
        heap = self._kept.setdefault(verdict, [])
        if len(heap) == SHOWN and excess <= heap[0][0]:
            return
        from blemish.report import light_copy

        heapq.heappush(heap, (excess, -place, light_copy(prediction)))
        if len(heap) > SHOWN:
            heapq.heappop(heap)

    def shown(self) -> list[Prediction]:
        """All predictions, those that were kept with their map."""
        predictions = list(self.predictions)
        for heap in self._kept.values():
            for _, place, prediction in heap:
                predictions[-place] = prediction
        return predictions

    def tell(self, out: Path) -> None:
        """Say in a few lines what was found; unreadable pictures go to stderr."""
        from blemish.cli.console import say, say_where

        for _, error in self.failures:
            say(f"not read: {error}", err=True)
        count = len(self.predictions)
        said = [f"{self.defective} defective", f"{count - self.defective - self.unknown_good} good"]
        said += [f"{self.unknown} unlike anything the model learned"] * bool(self.unknown)
        said += [f"{len(self.failures)} unreadable"] * bool(self.failures)
        rate = f" ({count / self.seconds:.1f} pictures a second)" if count else ""
        say(f"{count} inspected: {', '.join(said)}{rate}")
        say_where("Report", out / "report.html")

    @property
    def unknown_good(self) -> int:
        """Pictures that were not called defective, but are far from every known category."""
        return sum(not p.is_known and not p.is_defective for p in self.predictions)


def inspect_into(
    out: Path,
    inspector: Inspector,
    samples: Sequence[Sample],
    title: str,
    category: str | None = None,
    overlays: bool = True,
    maps: bool = False,
) -> Inspection:
    """Inspect the samples, write everything into `out`, give back what became of them. Raises OutputError."""
    from blemish.cli.output import staged
    from blemish.cli.progress import tracked
    from blemish.cli.results import ResultWriter
    from blemish.model.inspector import Failure

    done = Inspection()
    known = {sample.name: sample for sample in samples}
    started = time.perf_counter()
    with staged(out, folders=("overlays", "maps")) as stage:
        with ResultWriter(stage, overlays, maps, POINTS in inspector.modalities) as results:
            # What is known about a sample does not go along: the model has to find out.
            unlabelled = [Sample(sample.image, sample.points) for sample in samples]
            answers = inspector.inspect_many(unlabelled, category=category)
            for answer in tracked("inspecting", answers, len(samples)):
                if isinstance(answer, Failure):
                    done.failures.append((str(answer.file), str(answer.error)))
                    results.write_failure(*done.failures[-1])
                else:
                    results.write(answer, known[answer.source])
                    done.add(answer, known[answer.source].label)
        done.seconds = time.perf_counter() - started
        write_report(stage / "report.html", inspector, done, samples, title)
    return done


def write_report(path: Path, inspector: Inspector, done: Inspection, samples: Sequence[Sample], title: str) -> None:
    """The page about an inspection, with labels and true masks where the samples bring them."""
    from blemish.cli.summaries import calibration_facts, model_facts
    from blemish.data import load_mask
    from blemish.report import write_inspection_report
    from blemish.report.views import image_view, relief_view

    known = {sample.name: sample for sample in samples}
    scans = POINTS in inspector.modalities

    def relief(prediction: Prediction) -> np.ndarray | None:
        sample = known[prediction.source]
        return None if sample.image is None else relief_view(sample)  # else it stands in the image's place already

    masks = {name: sample.mask for name, sample in known.items() if sample.mask is not None}
    write_inspection_report(
        path,
        title=title,
        model_facts=model_facts(inspector),
        predictions=done.shown(),
        images=lambda prediction: image_view(known[prediction.source]),
        failures=done.failures,
        calibration=calibration_facts(inspector),
        labels={name: sample.label for name, sample in known.items() if sample.label is not None},
        masks=(lambda prediction: load_mask(masks[prediction.source]) if prediction.source in masks else None),
        reliefs=relief if scans else None,
    )
