"""WinCLIP's arithmetic against plain loops; models from a name alone, and from a few images, from end to end."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_text_parts import write_model
from torch.nn.functional import normalize

from blemish.data.data_warnings import collected_warnings
from blemish.detectors import references
from blemish.detectors.base import LeavesOut, ZeroShot
from blemish.detectors.language import class_scores, prototypes
from blemish.detectors.winclip import WinCLIP, harmonic_means
from blemish.errors import DatasetError, NotFittedError, SettingsError, WeightsError
from blemish.model.inspector import Inspector
from blemish.numeric.neighbours import Neighbours
from blemish.types import RGB, WHOLE, WINDOWS, Batch, Features, Prompts

GRID, WIDTH, DIMS = (5, 6), 7, 4


def features(count: int, seed: int = 0) -> Features:
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(count, *shape, generator=random)

    windows = tuple(draw(GRID[0] - k + 1, GRID[1] - k + 1, DIMS) for k in (2, 3))
    return Features({RGB: (draw(*GRID, WIDTH),), WINDOWS: windows, WHOLE: (draw(1, 1, DIMS),)}).with_categories(
        ["nut"] * count
    )


def sentences(seed: int = 1) -> Prompts:
    random = torch.Generator().manual_seed(seed)
    return Prompts(*(normalize(torch.randn(n, DIMS, generator=random), dim=-1) for n in (6, 3)))


def cosine(a: Any, b: Any) -> float:
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


def probability(vector: Any, prompts: Prompts, temperature: float) -> float:
    """The paper's ascore of one vector, written out."""
    assert prompts.abnormal is not None
    normal, abnormal = (cosine(vector, rows.numpy().mean(0)) for rows in (prompts.normal, prompts.abnormal))
    return 1 / (1 + math.exp((normal - abnormal) / temperature))


def plain_map(window_scores: Any, side: int, grid: tuple[int, int]) -> np.ndarray:
    """Harmonic means of the windows over each patch, one patch at a time."""
    found = np.zeros(grid)
    for row, column in itertools.product(*map(range, grid)):
        over = [
            window_scores[top, left]
            for top, left in itertools.product(range(grid[0] - side + 1), range(grid[1] - side + 1))
            if top <= row < top + side and left <= column < left + side
        ]
        found[row, column] = len(over) / sum(1 / s for s in over)
    return found


def plain_scores(
    image: Features, prompts: Prompts, references: Features | None, temperature: float
) -> tuple[np.ndarray, float]:
    """Map and image score of one image by loops over patches, windows and references."""
    layers = {"1": image.layers[RGB][-1], "2": image.layers[WINDOWS][0], "3": image.layers[WINDOWS][1]}
    known = (
        {}
        if references is None
        else {"1": references.layers[RGB][-1], "2": references.layers[WINDOWS][0], "3": references.layers[WINDOWS][1]}
    )
    whole = probability(image.layers[WHOLE][0][0, 0, 0].numpy(), prompts, temperature)
    inverse, near = np.full(GRID, 1 / whole), []
    for name, layer in layers.items():
        vectors, side = layer[0].numpy(), int(name)
        places = list(np.ndindex(vectors.shape[:2]))
        if side > 1:
            scores = np.zeros(vectors.shape[:2])
            for place in places:
                scores[place] = probability(vectors[place], prompts, temperature)
            inverse += 1 / plain_map(scores, side, GRID)
        if known:
            rows = known[name].flatten(0, 2).numpy()
            distances = np.zeros(vectors.shape[:2])
            for place in places:
                distances[place] = min((1 - cosine(vectors[place], row)) / 2 for row in rows)
            near.append(plain_map(distances, side, GRID))
    if not near:
        return 3 / inverse, whole
    associated = np.mean(near, axis=0)
    return 3 / inverse + associated, (whole + associated.max()) / 2


@pytest.mark.parametrize("temperature", [0.07, 0.3])
@pytest.mark.parametrize("shots", [0, 1, 3])
def test_scores_are_those_of_a_plain_loop(shots: int, temperature: float) -> None:
    detector, prompts, inspected = WinCLIP(temperature=temperature), sentences(), features(2, seed=5)
    references = features(shots) if shots else None
    if references is None:
        detector.fit_zero_shot({"nut": prompts})
    else:
        detector.fit([Batch(references.take(slice(i, i + 1)), prompts={"nut": prompts}) for i in range(shots)])
    scores = detector.score(inspected)
    assert scores.images is not None
    for i in range(2):
        expected, image = plain_scores(inspected.take(slice(i, i + 1)), prompts, references, temperature)
        np.testing.assert_allclose(scores.patches[i].numpy(), expected, rtol=1e-5, atol=1e-5)
        assert float(scores.images[i]) == pytest.approx(image, rel=1e-5)


def test_harmonic_means_lie_between_the_windows_and_forget_what_is_0() -> None:
    even = torch.full((1, 4, 5), 0.25)
    torch.testing.assert_close(harmonic_means(even, 2, GRID), torch.full((1, *GRID), 0.25))
    even[0, 0, 0] = 0
    means = harmonic_means(even, 2, GRID)
    assert float(means[0, 0, 0]) == 0
    assert torch.equal(means[0] == 0, torch.tensor([[r < 2 and c < 2 for c in range(6)] for r in range(5)]))
    with pytest.raises(SettingsError, match="windows of a grid"):
        harmonic_means(even, 3, GRID)


def test_sentences_alike_leave_a_half() -> None:
    rows = normalize(torch.randn(5, DIMS), dim=-1)
    text = prototypes(Prompts(rows, rows), "nut")
    torch.testing.assert_close(class_scores(torch.randn(3, DIMS), text, 0.07), torch.full((3,), 0.5))


def test_the_search_among_all_references_is_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Counted(Neighbours):
        def __init__(self, *args: Any) -> None:
            made.append(len(args[0]))
            super().__init__(*args)

    monkeypatch.setattr(references, "Neighbours", Counted)
    known, inspected = features(3), features(4, seed=5)
    detector = WinCLIP().fit([Batch(known, prompts={"nut": sentences()}, images=(0, 1, 2))])
    first = detector.score(inspected)
    assert made == [90, 60, 36]  # rows of three images: patches, windows of 2×2 and of 3×3
    without = detector.score_without(inspected, (1,))
    assert len(made) == 3 + 4 * 3
    assert not torch.equal(without.patches, first.patches)
    assert torch.equal(detector.score(inspected).patches, first.patches)
    assert len(made) == 3 + 4 * 3


def test_the_temperature_never_changes_how_zero_shot_images_rank() -> None:
    inspected = features(8, seed=2)
    ranks = []
    for temperature in (0.3, 1.0, 3.0):  # further down, random sentences saturate
        images = WinCLIP(temperature=temperature).fit_zero_shot({"nut": sentences()}).score(inspected).images
        assert images is not None
        ranks.append(images.argsort().tolist())
    assert ranks[0] == ranks[1] == ranks[2]


def test_without_an_image_it_is_the_model_of_the_others() -> None:
    prompts = {"nut": sentences()}
    batches = [Batch(features(1, seed=i), prompts=prompts, images=(i,)) for i in range(3)]
    detector, other = WinCLIP().fit(batches), WinCLIP().fit([batches[0], batches[2]])
    assert isinstance(detector, LeavesOut)
    assert isinstance(detector, ZeroShot)
    assert detector.can_leave_out("nut")
    inspected = features(2, seed=7)
    torch.testing.assert_close(detector.score_without(inspected, [1]).patches, other.score(inspected).patches)
    again = WinCLIP().load_state(detector.state())
    assert not again.can_leave_out("nut")
    assert not WinCLIP().fit(batches[:1]).can_leave_out("nut")


def test_of_many_images_the_first_are_references() -> None:
    batches = [Batch(features(1, seed=i), prompts={"nut": sentences()}, images=(i,)) for i in range(4)]
    few = WinCLIP(max_images=2).fit(batches)
    assert torch.equal(few.state()["patches/nut"], WinCLIP().fit(batches[:2]).state()["patches/nut"])


def test_what_it_cannot_use_is_refused() -> None:
    with pytest.raises(SettingsError, match="prompts about good and defective parts"):
        WinCLIP(prompts="object")
    with pytest.raises(SettingsError, match="sentences about a product"):
        WinCLIP().fit([Batch(features(1))])
    with pytest.raises(SettingsError, match="abnormal sentences"):
        WinCLIP().fit_zero_shot({"nut": Prompts(sentences().normal)})
    with pytest.raises(SettingsError, match="embeds windows"):
        WinCLIP().fit_zero_shot({"nut": sentences()}).score(Features({RGB: (torch.zeros(1, 5, 6, 7),)}))
    with pytest.raises(NotFittedError):
        WinCLIP().score(features(1))


# From end to end, on a tiny random encoder.


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("winclip") / "clip")


def inspector(encoder: Path | str, **more: Any) -> Inspector:
    return Inspector(encoder=encoder, detector="winclip", image_size=40, device="cpu", **more)


def test_a_name_alone_ranks_pictures_and_judges_none(encoder: Path, part: Any, tmp_path: Path) -> None:
    model = inspector(encoder).fit_zero_shot("metal nut")
    found = model.inspect(part("disc", seed=1))
    assert (found.verdict, found.p_value, found.threshold, found.category) == ("unsure", 1.0, 1.0, "metal nut")
    assert 0 < found.score < 1
    assert found.map.shape == part("disc").shape[:2]
    assert found.regions
    assert model.calibrations["metal nut"].words.startswith("No limit yet")
    again = Inspector.load(model.save(tmp_path / "model"), device="cpu").inspect(part("disc", seed=1))
    assert (again.verdict, again.score) == ("unsure", found.score)
    assert np.array_equal(again.map, found.map)


def test_wide_pictures_of_which_no_scale_is_known_are_warned_about(encoder: Path, part: Any) -> None:
    wide = part("disc").astype(np.uint16) << 4
    with collected_warnings() as unknown:
        inspector(encoder).fit_zero_shot("nut").inspect(wide)
    assert "16 bits are assumed" in next(str(one) for one in unknown if one.kind == "scale")
    with collected_warnings() as known:
        stated = inspector(encoder, bit_depth=12).fit_zero_shot("nut").inspect(wide)
    assert not [one for one in known if one.kind == "scale"]
    assert stated.score == inspector(encoder).fit_zero_shot("nut").inspect(part("disc")).score


def test_good_pictures_given_later_make_a_threshold(encoder: Path, part: Any, tmp_path: Path) -> None:
    model = inspector(encoder).fit_zero_shot("nut")
    with pytest.raises(DatasetError, match="calibrate it with a few good pictures first"):
        model.calibrate_unlabelled([part("disc", seed=i) for i in range(12)])
    change = model.calibrate([part("disc", seed=i) for i in range(5)])
    assert change.added == {"nut": 5}
    calibration = model.calibrations["nut"]
    assert "5 good pictures" in calibration.words
    assert calibration.unsure_threshold <= calibration.threshold < 1
    again = Inspector.load(model.save(tmp_path / "model"), device="cpu")
    assert again.calibrations["nut"].threshold == calibration.threshold


def test_a_few_good_pictures_make_references_and_thresholds(encoder: Path, part: Any, tmp_path: Path) -> None:
    model = inspector(encoder).fit([part("disc", seed=i) for i in range(4)], category="metal nut")
    good, bad = (model.inspect(part("disc", seed=9, defective=defective)) for defective in (False, True))
    assert bad.score > good.score
    assert bad.map.max() > good.map.max()
    assert model.calibrations["metal nut"].source.held_out == 4
    again = Inspector.load(model.save(tmp_path / "model"), device="cpu")
    assert again.inspect(part("disc", seed=9)).score == good.score


def test_features_from_the_disk_are_those_of_the_encoder(encoder: Path, part: Any, tmp_path: Path) -> None:
    images = [part("disc", seed=i) for i in range(2)]
    first = inspector(encoder).fit(images, cache=tmp_path / "cache")
    second = inspector(encoder).fit(images, cache=tmp_path / "cache")
    assert first.inspect(part("disc", seed=5)).score == second.inspect(part("disc", seed=5)).score


@pytest.mark.parametrize(
    ("product", "expected"),
    [("", "a product's name in words"), (" _-", "a product's name in words"), ("n" * 300, "at most 80 characters")],
)
def test_a_name_that_says_nothing_or_too_much_is_refused(encoder: Path, product: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        inspector(encoder).fit_zero_shot(product)


def test_a_category_with_a_name_too_long_is_refused(encoder: Path, part: Any) -> None:
    with pytest.raises(SettingsError, match="at most 80 characters"):
        inspector(encoder).fit([part("disc")], category="n" * 300)


def test_encoders_that_cannot_speak_are_refused(encoder: Path, part: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="reads sentences as well"):
        inspector("pixels").fit_zero_shot("nut")
    (tmp_path / "config.json").write_text('{"model_type": "clip_text_model"}', encoding="utf-8")
    with pytest.raises(SettingsError, match="no image tower"):
        inspector(tmp_path).fit([part("disc")])
    with pytest.raises(WeightsError, match="hf download"):
        inspector("clip-vit-b16-plus-240").fit_zero_shot("nut")
    with pytest.raises(SettingsError, match="fitted by a product's name"):
        Inspector(encoder="pixels", detector="patchcore", device="cpu").fit_zero_shot("nut")
