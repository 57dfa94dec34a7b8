"""AnomalyCLIP's scores written out, prompts learned at a tiny size, and a model that never saw its product."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_text_parts import write_model
from torch.nn.functional import cosine_similarity

from blemish import encoders
from blemish.detectors.anomalyclip import AnomalyCLIP
from blemish.encoders.identity import identity
from blemish.encoders.image_text.learned_prompts import write_prompts
from blemish.errors import DatasetError, SettingsError, WeightsError
from blemish.model.inspector import Inspector
from blemish.model.prompt_fitting import FittedPrompts, PromptTraining, epochs_of, fit_prompts, mask_on
from blemish.types import ALIGNED, RGB, WHOLE, Batch, Features, Prompts, Sample

HOW = PromptTraining(epochs=6, batch_size=4, image_size=40, learning_rate=0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("anomalyclip") / "clip")


def labelled(count: int = 6) -> list[Sample]:
    """Rings `(64, 80, 3)`, half of them with a dark square, and their masks."""
    found = []
    y, x = np.mgrid[:64, :80]
    radius = np.hypot(y - 32, x - 40)[..., None]
    for i in range(count):
        image = np.where((radius > 12) & (radius < 24), (60, 90, 200), (90, 90, 90)).astype(float)
        image += np.random.default_rng(i).normal(0, 4, image.shape)
        mask = np.zeros((64, 80), bool)
        mask[28:40, 32:44] = i % 2 == 1
        image[mask] = 5
        picture = image.clip(0, 255).astype(np.uint8)
        found.append(Sample(picture, label=i % 2, mask=mask if i % 2 else None, category="ring"))
    return found


@pytest.fixture(scope="module")
def learned(folder: Path) -> tuple[Any, FittedPrompts]:
    encoder = encoders.build(folder, alignment="v-v-layers", precision="fp32")
    return encoder, fit_prompts(encoder, labelled(), HOW)


def test_scores_are_the_equations_written_out() -> None:
    random = torch.Generator().manual_seed(0)
    layers = tuple(torch.randn(2, 3, 4, 5, generator=random) for _ in range(4))
    whole, rows = torch.randn(2, 1, 1, 5, generator=random), torch.randn(2, 5, generator=random)
    features = Features({RGB: (layers[0],), ALIGNED: layers, WHOLE: (whole,)})
    scores = AnomalyCLIP().fit_zero_shot({"": Prompts(rows[:1], rows[1:])}).score(features)
    assert scores.images is not None

    def probability(vector: torch.Tensor) -> float:
        normal, abnormal = (float(cosine_similarity(vector, row, dim=0)) / 0.07 for row in rows)
        return float(np.exp(abnormal) / (np.exp(normal) + np.exp(abnormal)))

    for i in range(2):
        assert float(scores.images[i]) == pytest.approx(probability(whole[i, 0, 0]), rel=1e-4)
        for y, x in np.ndindex(3, 4):
            mean = np.mean([probability(layer[i, y, x]) for layer in layers])
            assert float(scores.patches[i, y, x]) == pytest.approx(mean, rel=1e-4)


def test_prompts_are_learned(learned: tuple[Any, FittedPrompts]) -> None:
    encoder, found = learned
    assert found.loss.isfinite().all()
    assert float(found.loss[-3:].mean()) < 0.9 * float(found.loss[:3].mean())
    assert found.embeddings.shape == (2, 12)
    assert found.facts.categories == ("ring",)
    assert (found.facts.images, found.facts.weights) == (6, encoder.weights_sha256)
    assert found.facts.identity == identity(encoder)


def test_learning_is_reproducible(learned: tuple[Any, FittedPrompts]) -> None:
    encoder, found = learned
    again = fit_prompts(encoder, labelled(), HOW)
    assert torch.equal(again.embeddings, found.embeddings)
    other = fit_prompts(encoder, labelled(), replace(HOW, seed=1, epochs=1))
    assert not torch.equal(other.embeddings, found.embeddings)


def test_every_epoch_shows_every_sample_once() -> None:
    batches = epochs_of(10, PromptTraining(epochs=3, batch_size=4))
    assert len(batches) == 9
    for epoch in range(3):
        assert sorted(np.concatenate(batches[3 * epoch : 3 * epoch + 3]).tolist()) == list(range(10))


def test_masks_follow_the_frame_and_may_be_missing(learned: tuple[Any, FittedPrompts]) -> None:
    sample = labelled()[1]
    assert mask_on(sample, (32, 40)).mean() == pytest.approx(float(np.mean(sample.mask)), abs=0.01)
    assert not mask_on(replace(sample, label=0, mask=None), (32, 40)).any()
    encoder, _ = learned
    without = [replace(one, mask=None) for one in labelled()]
    assert fit_prompts(encoder, without, replace(HOW, epochs=1)).loss.isfinite().all()


def test_pictures_of_twelve_bits_in_sixteen_are_as_bright_as_those_of_eight(learned: tuple[Any, FittedPrompts]) -> None:
    encoder, _ = learned
    how = replace(HOW, epochs=1)
    wide = [replace(one, image=np.asarray(one.image).astype(np.uint16) << 4) for one in labelled()]
    assert torch.equal(fit_prompts(encoder, wide, how).loss, fit_prompts(encoder, labelled(), how).loss)


@pytest.mark.parametrize("labels", [(), (0, 0), (1, 1), (None, None)])
def test_good_and_defective_pictures_are_needed(
    labels: tuple[int | None, ...], learned: tuple[Any, FittedPrompts], part: Any
) -> None:
    samples = [Sample(part("ring"), label=label) for label in labels]
    with pytest.raises(DatasetError, match="good and defective pictures of other products"):
        fit_prompts(learned[0], samples, HOW)


def test_encoders_without_the_path_are_refused(folder: Path) -> None:
    for encoder in (encoders.build("pixels"), encoders.build(folder, alignment="value", precision="fp32")):
        with pytest.raises(SettingsError, match="the alignment v-v-layers"):
            fit_prompts(encoder, labelled(), HOW)


def test_a_product_is_inspected_that_was_never_seen(
    learned: tuple[Any, FittedPrompts], folder: Path, part: Any, tmp_path: Path
) -> None:
    _, found = learned
    write_prompts(tmp_path / "prompts", found.learned, found.embeddings, found.facts)

    def inspector(prompts: Path) -> Inspector:
        return Inspector(encoder=folder, detector="anomalyclip", image_size=40, device="cpu", text_encoder=str(prompts))

    model = inspector(tmp_path / "prompts").fit_zero_shot("disc")
    found_part = model.inspect(part("disc", seed=3))
    assert found_part.verdict == "unsure"
    again = Inspector.load(model.save(tmp_path / "model"), device="cpu")
    assert again.inspect(part("disc", seed=3)).score == found_part.score
    fitted = inspector(tmp_path / "prompts").fit([part("disc", seed=i) for i in range(3)])
    assert fitted.inspect(part("disc", seed=3)).score == found_part.score
    assert next(iter(fitted.calibrations.values())).source.held_out == 3
    with pytest.raises(WeightsError, match="a file of prompts that"):
        inspector(tmp_path / "none").fit_zero_shot("disc")


def test_nothing_is_learned_from_the_product() -> None:
    prompts = {"": Prompts(torch.ones(1, 5), -torch.ones(1, 5))}
    features = Features({RGB: (torch.randn(1, 3, 3, 5),), ALIGNED: (torch.randn(1, 3, 3, 5),)})
    with pytest.raises(SettingsError, match="embeds patches"):
        AnomalyCLIP().fit([Batch(features, prompts=prompts)]).score(features)
    with pytest.raises(SettingsError, match="at least one good picture"):
        AnomalyCLIP().fit([])
