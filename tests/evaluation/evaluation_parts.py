"""Categories and predictions that the tests of evaluation share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from blemish.evaluation import CategoryData, Run
from blemish.types import Prediction, Sample, Verdict


def write_category(folder: Path, draw: Any, name: str = "disc", good: int = 6, test: int = 3) -> CategoryData:
    """Synthetic parts on disk: normal ones, and a test set whose masks cover the dark square."""
    folder.mkdir(parents=True, exist_ok=True)

    def saved(stem: str, pixels: np.ndarray) -> Path:
        Image.fromarray(pixels).save(folder / f"{stem}.png")
        return folder / f"{stem}.png"

    train = [Sample(saved(f"train{i}", draw(name, i)), label=0) for i in range(good)]
    tested = [Sample(saved(f"good{i}", draw(name, 50 + i)), label=0) for i in range(test)]
    mask = np.zeros((64, 80), dtype=np.uint8)
    mask[28:40, 32:44] = 255
    for i in range(test):
        paths = saved(f"bad{i}", draw(name, 70 + i, defective=True)), saved(f"bad{i}_mask", mask)
        tested.append(Sample(paths[0], label=1, mask=paths[1], defect="square"))
    return CategoryData("made", name, tuple(train), tuple(tested))


def prediction(
    score: float,
    threshold: float = 1.0,
    scores: np.ndarray | None = None,
    verdict: Verdict | None = None,
    p_value: float = 0.5,
) -> Prediction:
    """A prediction whose verdict follows from the score, unless it is given."""
    shown = np.zeros((4, 4), dtype=np.float32) if scores is None else scores
    follows: Verdict = "defective" if score > threshold else "good"
    return Prediction(score, p_value, threshold, verdict or follows, shown, source="a")


def toy_run(category: CategoryData, **changes: Any) -> Run:
    """A run of the toy detector."""
    facts: dict[str, Any] = {"detector": "toy", "encoder": "pixels", "image_size": 64, "device": "cpu"}
    return Run(categories=(category,), **(facts | changes))
