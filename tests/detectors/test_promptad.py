"""PromptAD's losses and scores against plain loops, prompts learned at a tiny size, and a model from end to end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_text_parts import DIMS, WIDTH, write_model
from torch.nn.functional import normalize

from blemish import encoders
from blemish.detectors.promptad import BANKS, PromptAD
from blemish.encoders.image_text.state_prompts import (
    LearnablePrompts,
    StateEmbeddings,
    StatePrompts,
    learnable_prompts,
)
from blemish.encoders.image_text.text_tower import clip_text_tower
from blemish.encoders.text.prompts import ABNORMAL_STATES
from blemish.errors import NotFittedError, SettingsError
from blemish.model.inspector import Inspector
from blemish.types import ALIGNED, RGB, WHOLE, Batch, Features, Prompts

GRID = (3, 4)
QUICK: dict[str, Any] = {"epochs": 2, "image_size": 40}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("promptad") / "clip")


@pytest.fixture(scope="module")
def prompts(folder: Path) -> LearnablePrompts:
    return learnable_prompts("metal_nut", encoders.build(folder, alignment="v-v-all", precision="fp32"))


def features(count: int = 2, seed: int = 0, category: str = "metal_nut") -> Features:
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(count, *shape, generator=random) + torch.arange(shape[-1]) / shape[-1]

    layers = tuple(draw(*GRID, 6) for _ in range(4))
    found = Features({RGB: layers, ALIGNED: (draw(*GRID, DIMS),), WHOLE: (draw(1, 1, DIMS),)})
    return found.with_categories([category] * count)


def batch_of(prompts: Prompts, count: int = 2) -> Batch:
    return Batch(features(count), prompts={"metal_nut": prompts})


@pytest.fixture(scope="module")
def detector(prompts: LearnablePrompts) -> PromptAD:
    return PromptAD(epochs=20, image_size=40).fit([batch_of(prompts)])


def rows(count: int, seed: int) -> torch.Tensor:
    return normalize(torch.randn(count, DIMS, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize("margin", [0.0, 0.4])
def test_the_loss_is_the_equations_written_out(margin: float) -> None:
    embedded, vectors = StateEmbeddings(rows(3, 0), rows(6, 1), rows(4, 2)), rows(5, 3)
    detector = PromptAD(margin=margin, match_weight=0.5, temperature=0.2)

    def mean_of(these: torch.Tensor) -> np.ndarray:
        mean = np.mean([row.numpy() for row in these], axis=0)
        return mean / np.linalg.norm(mean)

    abnormal = [row.numpy() for row in (*embedded.manual, *embedded.learned)]
    normal_mean, abnormal_mean = mean_of(embedded.normal), mean_of(torch.stack(list(embedded.abnormal)))
    entropy, triplet = [], []
    for vector in vectors.numpy():
        own = np.exp(vector @ normal_mean / 0.2)
        entropy.append(-np.log(own / (own + sum(np.exp(vector @ one / 0.2) for one in abnormal))))
        nearer = np.linalg.norm(vector - normal_mean) - np.linalg.norm(vector - abnormal_mean)
        triplet.append(max(0.0, nearer + margin))
    difference = embedded.manual.numpy().mean(0) - embedded.learned.numpy().mean(0)
    expected = np.mean(entropy) + np.mean(triplet) + 0.5 * np.sum(difference**2)
    assert float(detector.loss_of(embedded, vectors)) == pytest.approx(expected, rel=1e-5)


def test_scores_are_the_equations_written_out(detector: PromptAD) -> None:
    known, inspected = features(2), features(3, seed=5)
    scores = detector.score(inspected)
    assert scores.images is not None

    def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(torch.nn.functional.cosine_similarity(a, b, dim=0))

    def probability(vector: torch.Tensor, level: str) -> float:
        normal, abnormal = (cosine(vector, row) / 0.01 for row in detector.text_[level]["metal_nut"])
        return float(1 / (1 + np.exp(normal - abnormal)))

    for i in range(3):
        distances = np.zeros(GRID)
        for y, x in np.ndindex(*GRID):
            for number in (0, 2):
                own = inspected.layers[RGB][number][i, y, x]
                near = min((1 - cosine(own, row)) / 2 for row in known.layers[RGB][number].flatten(0, 2))
                distances[y, x] += near / 2
            by_text = probability(inspected.layers[ALIGNED][0][i, y, x], "patch")
            expected = 2 / (1 / by_text + 1 / distances[y, x]) if by_text and distances[y, x] else 0.0
            assert float(scores.patches[i, y, x]) == pytest.approx(expected, rel=1e-3, abs=1e-7)
        whole = probability(inspected.layers[WHOLE][0][i, 0, 0], "image")
        assert float(scores.images[i]) == pytest.approx(2 / (1 / whole + 1 / distances.max()), rel=1e-3, abs=1e-7)


def test_margins_are_differences_of_cosines(detector: PromptAD) -> None:
    inspected = features(2, seed=7)
    found = detector.text_margins(inspected)
    normal, abnormal = detector.text_["patch"]["metal_nut"]
    vector = normalize(inspected.layers[ALIGNED][0][1, 2, 3], dim=0)
    assert float(found[1, 2, 3]) == pytest.approx(float(vector @ abnormal - vector @ normal), abs=1e-6)


def test_sentences_are_prefix_words_and_suffix(prompts: LearnablePrompts) -> None:
    """Every prompt by itself, tokens put together by hand."""
    tower = prompts.tower
    torch.manual_seed(0)
    model = StatePrompts(tower, "metal nut", ("{} with flaw",), (2, 3), (4, 1))
    with torch.no_grad():
        found = model()
        start, *name, stop, end = tower.words("metal nut.")
        flaw = tower.words("metal nut with flaw.")

        def embedded(*tokens: torch.Tensor) -> torch.Tensor:
            return normalize(tower.embed(torch.stack(tokens)[None]), dim=-1)[0]

        for p, prefix in enumerate(model.prefixes):
            torch.testing.assert_close(found.normal[p], embedded(start, *prefix, *name, stop, end))
            torch.testing.assert_close(found.manual[p], embedded(start, *prefix, *flaw[1:]))
            for a, suffix in enumerate(model.suffixes):
                torch.testing.assert_close(
                    found.learned[2 * a + p], embedded(start, *prefix, *name, *suffix, stop, end)
                )
    assert (found.normal.shape, found.manual.shape, found.learned.shape) == ((2, DIMS), (2, DIMS), (8, DIMS))
    assert model.prefixes.shape == (2, 3, WIDTH)


def test_learning_lowers_the_loss_and_draws_normal_prompts_near(detector: PromptAD, prompts: LearnablePrompts) -> None:
    image, patch = detector.losses_["metal_nut"]
    assert image.isfinite().all()
    assert patch.isfinite().all()
    assert float(image[-1]) < 0.9 * float(image[0])
    assert float(patch[-1]) < 0.9 * float(patch[0])
    untrained = PromptAD(epochs=1, learning_rate=1e-9, image_size=40).fit([batch_of(prompts)])
    assert float(detector.text_margins(features()).mean()) < float(untrained.text_margins(features()).mean())
    assert not any(parameter.requires_grad for parameter in prompts.tower._model.parameters())


def test_learning_is_reproducible_and_follows_the_seed(prompts: LearnablePrompts) -> None:
    one, again, other = (PromptAD(**QUICK, seed=seed).fit([batch_of(prompts)]) for seed in (0, 0, 1))
    assert torch.equal(again.text_["patch"]["metal_nut"], one.text_["patch"]["metal_nut"])
    assert not torch.equal(other.text_["patch"]["metal_nut"], one.text_["patch"]["metal_nut"])


def test_no_defect_is_named_unless_it_is_given(prompts: LearnablePrompts) -> None:
    assert PromptAD().states == list(ABNORMAL_STATES)
    general, named = (
        PromptAD(**QUICK, states=states).fit([batch_of(prompts)]).text_["patch"]["metal_nut"]
        for states in (ABNORMAL_STATES, ["{} with damage"])
    )
    assert not torch.equal(general, named)
    with pytest.raises(SettingsError, match=r"a phrase with one \{\}"):
        PromptAD(states=["scratch"])


def test_the_state_comes_back(detector: PromptAD) -> None:
    state = detector.state()
    assert set(state) == {f"{kind}/metal_nut" for kind in ("image", "patch", *BANKS, "losses")}
    again = PromptAD(**detector.settings).load_state({name: rows.clone() for name, rows in state.items()})
    mine, other = detector.score(features(2, 3)), again.score(features(2, 3))
    assert torch.equal(mine.patches, other.patches)
    assert mine.images is not None
    assert other.images is not None
    assert torch.equal(mine.images, other.images)


def test_each_image_is_kept_once_and_no_more_than_asked_for(prompts: LearnablePrompts) -> None:
    def twice() -> Iterator[Batch]:
        for first in (0, 2):
            yield Batch(features(2, first), prompts={"metal_nut": prompts}, images=(first, first))

    found = PromptAD(**QUICK | {"epochs": 1}).fit(twice())
    assert len(found.state()["first.bank/metal_nut"]) == 2 * GRID[0] * GRID[1]
    capped = PromptAD(**QUICK | {"epochs": 1}, max_images=1).fit(twice())
    assert len(capped.state()["first.bank/metal_nut"]) == GRID[0] * GRID[1]


def test_plain_sentences_and_other_encoders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        PromptAD().score(features())
    with pytest.raises(SettingsError, match="the text tower to learn tokens"):
        PromptAD(**QUICK).fit([batch_of(Prompts(rows(2, 0), rows(2, 1)))])
    with pytest.raises(SettingsError, match="at least one good picture"):
        PromptAD(**QUICK).fit([])
    tips = encoders.build(write_model(tmp_path / "tips", "tipsv2"), alignment="v-v-all", precision="fp32")
    with pytest.raises(SettingsError, match="the text tower of a CLIP"):
        clip_text_tower(tips)
    with pytest.raises(SettingsError, match="the text tower of a CLIP"):
        clip_text_tower(encoders.build("pixels"))


def test_a_model_is_fitted_saved_and_loaded(folder: Path, part: Any, tmp_path: Path) -> None:
    inspector = Inspector(encoder=folder, detector="promptad", image_size=40, device="cpu", epochs=3)
    model = inspector.fit([part("disc", seed=i) for i in range(3)], category="disc")
    found = model.inspect(part("disc", seed=5))
    again = Inspector.load(model.save(tmp_path / "model"), device="cpu").inspect(part("disc", seed=5))
    assert again.score == found.score
    assert np.array_equal(again.map, found.map)
    assert next(iter(model.calibrations.values())).source.held_out == 3
