"""One model, four threads: the predictions are those of one thread, bit by bit, of every registered detector."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from image_text_parts import write_model

from blemish import Inspector, Prediction, Sample, encoders, registry
from blemish.detectors.settings import setting_names
from blemish.encoders.image_text.learned_prompts import write_prompts
from blemish.model.prompt_fitting import PromptTraining, fit_prompts
from blemish.types import POINTS

THREADS, ROUNDS, SIZE = 4, 3, 56
QUICK = {"steps": 2, "depth": 1, "decoder_depth": 1, "heads": 2, "width": 8, "rotations": 2, "epochs": 1, "text": False}


@pytest.fixture(autouse=True)
def threads_change_often() -> Iterator[None]:
    """A hundred times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 100)
    yield
    sys.setswitchinterval(usual)


@cache
def measured_surface() -> np.ndarray:
    """Points `(64, 80, 3)` float32 in metres of a dome on a plane."""
    y, x = (np.mgrid[:64, :80] - 32.0) / 300
    z = 0.4 - 0.03 * np.sqrt(np.clip(1 - (x**2 + y**2) / 0.06**2, 0, 1))
    return np.stack([x, y, z + np.random.default_rng(0).normal(0, 2e-4, z.shape)], axis=-1).astype(np.float32)


def sample(part: Any, name: str, seed: int, defective: bool = False) -> Sample:
    has_points = POINTS in registry.resolve(registry.DETECTORS[name].target)().needs.modalities
    return Sample(part(seed=seed, defective=defective), measured_surface() if has_points else None)


def fitted(part: Any, name: str, folder: Path) -> Inspector:
    """A quickly fitted model, by encoders that need no weights."""
    made = registry.resolve(registry.DETECTORS[name].target)()
    known = setting_names(type(made))
    settings: dict[str, Any] = {key: value for key, value in QUICK.items() if key in known}
    encoder: Any = "+".join(["pixels"] * len(made.needs.modalities))
    if "points" in made.needs.modalities:
        encoder = "pixels+points-shape"
    if made.needs.alignment:
        encoder = write_model(folder / "clip")
    if name == "anomalyclip":
        settings["text_encoder"] = str(prompts_for(part, encoder, folder / "prompts"))
    inspector = Inspector(encoder, name, image_size=SIZE, device="cpu", **settings)
    return inspector.fit([sample(part, name, seed) for seed in range(max(3, made.needs.min_images))])


def prompts_for(part: Any, encoder: Path, file: Path) -> Path:
    """A file of prompts learned in one step on defects of another product."""
    defect = np.zeros((64, 80), bool)
    defect[28:40, 32:44] = True
    samples = [Sample(part("ring", i, i == 1), label=i, mask=defect if i else None, category="ring") for i in (0, 1)]
    how = PromptTraining(epochs=1, batch_size=2, image_size=40)
    found = fit_prompts(encoders.build(encoder, alignment="v-v-layers", precision="fp32"), samples, how)
    write_prompts(file, found.learned, found.embeddings, found.facts)
    return file


def facts(found: Prediction) -> tuple[Any, ...]:
    """All of a prediction but the time that it took."""
    return found.score, found.p_value, found.verdict, found.map.tobytes(), found.regions, found.category


@pytest.mark.parametrize("name", sorted(registry.DETECTORS))
def test_four_threads_predict_as_one_does(name: str, part: Any, tmp_path: Path) -> None:
    folder = fitted(part, name, tmp_path).save(tmp_path / "model")
    samples = [sample(part, name, 50 + i, i % 2 == 1) for i in range(THREADS)]
    expected = [facts(Inspector.load(folder, device="cpu").inspect(one)) for one in samples]
    assert len({one[0] for one in expected}) == THREADS  # mixed up, they would be seen
    inspector = Inspector.load(folder, device="cpu")  # nothing that is made at first use is there yet
    start = Barrier(THREADS)

    def inspected(number: int) -> list[tuple[Any, ...]]:
        start.wait()
        return [facts(inspector.inspect(samples[number])) for _ in range(ROUNDS)]

    with ThreadPoolExecutor(THREADS) as pool:
        for number, rounds in enumerate(pool.map(inspected, range(THREADS))):
            assert rounds == [expected[number]] * ROUNDS
