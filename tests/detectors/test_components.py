"""Wrong counts, missing, extra and misplaced parts of made-up features, which a memory bank by itself does not see."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from blemish.detectors import components
from blemish.detectors.components import MEASURED_ON, MIN_IMAGES, Components, distant_rows, place_of
from blemish.errors import DatasetError, NotFittedError, SettingsError
from blemish.numeric.compositions import cells_along, composition
from blemish.numeric.pooling import image_score
from blemish.scoring.detector_scores import detector_scores
from blemish.types import CONTEXT, RGB, Batch, Features

SIDE, DIM = 16, 3
ONE = {"patches": "closeup", "rotations": 1, "words": [6]}
GOOD = ((1, 0), (1, 0), (2, 1))  # (part, side): two of part 1 on the left, one of part 2 on the right


def image(parts: tuple[tuple[int, int], ...], seed: int, dim: int = DIM) -> torch.Tensor:
    """Features `(1, SIDE, SIDE, dim)`: background, and squares of 3 patches anywhere on the side that is named."""
    generator = torch.Generator().manual_seed(seed)
    patches = 0.05 * torch.randn(SIDE, SIDE, dim, generator=generator)
    patches[..., 0] += 1
    sides = torch.tensor([side for _, side in parts])  # (P,)
    while True:  # all are placed again until none touch
        tops, lefts = torch.randint(13, (len(parts),), generator=generator), 9 * sides  # never across the middle
        lefts = lefts + torch.randint(5, (len(parts),), generator=generator)
        apart = torch.maximum((tops[:, None] - tops).abs(), (lefts[:, None] - lefts).abs())  # (P, P)
        if len(parts) < 2 or int((apart + 99 * torch.eye(len(parts), dtype=torch.long)).min()) > 3:
            break
    for (part, _), top, left in zip(parts, tops.tolist(), lefts.tolist(), strict=True):
        patches[top : top + 3, left : left + 3] += torch.eye(dim)[part] * 2
    return patches[None]


def features(patches: torch.Tensor, category: str | None = None) -> Features:
    names = None if category is None else [category] * len(patches)
    return Features({RGB: (patches,)}).with_categories(names)


def batches(count: int = 24, category: str | None = None) -> list[Batch]:
    return [Batch(features(image(GOOD, i), category), images=(i,), originals=(True,)) for i in range(count)]


@pytest.fixture(scope="module")
def fitted() -> Components:
    return Components(**ONE).fit(batches())


def scores(detector: Components, parts: tuple[tuple[int, int], ...]) -> np.ndarray:
    return np.array([detector_scores(detector, features(image(parts, seed)))[0][0] for seed in range(100, 108)])


WRONG = {
    "one fewer": ((1, 0), (2, 1)),
    "one more": ((1, 0), (1, 0), (1, 0), (2, 1)),
    "missing": ((1, 0), (1, 0)),
    "extra": ((1, 0), (1, 0), (2, 1), (2, 1)),
    "wrong place": ((1, 0), (1, 1), (2, 1)),
    "swapped": ((1, 0), (2, 0), (1, 1)),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_no_single_patch_shows_is_found(fitted: Components, kind: str) -> None:
    """Seven of eight score above the highest of eight normal images, which those of the bank by itself do not."""
    normal, wrong = scores(fitted, GOOD), scores(fitted, WRONG[kind])
    assert (wrong > normal.max()).sum() >= 7
    bank = [
        np.array([detector_scores(fitted._bank, features(image(parts, seed)))[0][0] for seed in range(100, 108)])
        for parts in (GOOD, WRONG[kind])
    ]
    assert (bank[1] > bank[0].max()).sum() < 5


def test_a_structural_defect_is_found_where_it_lies(fitted: Components) -> None:
    """Also where it changes the composition more than normal images differ (seed 200)."""
    for seed in range(200, 206):
        patches = image(GOOD, seed)
        patches[0, 14:, 14:, 1:] -= 2
        found = fitted.score(features(patches))
        assert float(found.images[0]) > scores(fitted, GOOD).max()
        assert min(divmod(int(found.patches[0].argmax()), SIDE)) >= 13


def test_a_usual_composition_leaves_the_bank_its_scores_and_map(fitted: Components) -> None:
    """New normal images lie a little further from the nearest composition than those learned from: that is nothing."""
    unit, as_bank = fitted.units_[""], 0
    for seed in range(300, 324):
        found, bank = fitted.score(features(image(GOOD, seed))), fitted._bank.score(features(image(GOOD, seed)))
        own = (bank.patches / unit.score).float()
        pooled = image_score(bank.patches[0].numpy(), fitted.pooling) / unit.score
        assert float(found.images[0]) >= pooled * (1 - 1e-6)
        if torch.equal(found.patches, own):
            assert float(found.images[0]) <= max(pooled, 1.0) * (1 + 1e-6)
            as_bank += 1
    assert as_bank >= 20


def test_models_of_earlier_versions_keep_their_scores(fitted: Components) -> None:
    """They learned no margin, and their limits were made without one."""
    state = fitted.state()
    earlier = Components(**ONE).load_state(state | {"unit": state["unit"][:3]})
    assert earlier.units_[""].margin == 0
    assert Components(**ONE).load_state(state).units_ == fitted.units_
    for parts in (GOOD, WRONG["extra"]):
        assert (scores(earlier, parts) >= scores(fitted, parts)).all()
    std, margin = fitted.units_[""].std, fitted.units_[""].margin
    wrong = scores(fitted, WRONG["swapped"])  # far beyond what the bank finds
    np.testing.assert_allclose(np.log(scores(earlier, WRONG["swapped"])) - np.log(wrong), std * margin, rtol=1e-3)


def test_the_map_shows_the_part_that_is_extra_or_on_the_wrong_side(fitted: Components) -> None:
    for parts, part, side in ((WRONG["extra"], 2, 1), (WRONG["swapped"], 2, 0)):
        hits = 0
        for seed in range(100, 108):
            patches = image(parts, seed)
            y, x = divmod(int(fitted.score(features(patches)).patches[0].argmax()), SIDE)
            near = patches[0, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2, part].max() > 1
            hits += bool(near) or (kind_lacks(side, x))
        assert hits >= 7


def kind_lacks(side: int, x: int) -> bool:
    """Whether a column lies on the other side, where the swapped part is missed."""
    return side == 0 and x >= SIDE // 2


def test_rules_are_learned_and_broken(fitted: Components) -> None:
    rules = fitted.rules_[""]
    assert rules
    assert {rule.images for rule in rules} == {24}
    normal = [len(fitted.broken_rules(features(image(GOOD, seed)))[0]) for seed in range(100, 108)]
    missing = [len(fitted.broken_rules(features(image(WRONG["missing"], seed)))[0]) for seed in range(100, 108)]
    assert np.mean(missing) > np.mean(normal) + 0.5
    broken = fitted.broken_rules(features(image(WRONG["missing"], 100)))[0][0]
    assert not broken.low <= broken.found <= broken.high
    assert broken.images == 24


def test_ignored_parts_are_neither_extra_nor_missing(fitted: Components) -> None:
    """What is filled in counts for nothing: an ignored image scores 0, and an ignored extra part changes no count."""
    nothing = features(image(GOOD, 100)).with_ignored(np.ones((SIDE, SIDE), bool))
    assert float(fitted.score(nothing).images[0]) == 0


def test_ignored_patches_are_not_the_largest_ones_that_the_map_is_measured_by() -> None:
    """What is filled in may look like nothing normal; it has no part in the unit of the map."""
    pixels = np.zeros((SIDE, SIDE), bool)
    pixels[:3, :3] = True
    units = []
    for size in (0.0, 50.0):
        good = []
        for i in range(8):
            patches = image(GOOD, i).clone()
            patches[:, :3, :3] = size * torch.randn(3, 3, DIM, generator=torch.Generator().manual_seed(i))
            good.append(Batch(features(patches).with_ignored(pixels), images=(i,), originals=(True,)))
        units.append(Components(**ONE | {"patches": "closeup-vit"}).fit(good).units_[""])
    assert units[1].peak == pytest.approx(units[0].peak)


def test_without_images_it_is_as_if_they_were_unknown() -> None:
    detector = Components(**ONE).fit(batches(8))
    assert detector.can_leave_out("")
    known = features(image(GOOD, 3))
    assert float(detector.score_without(known, (3,)).images[0]) > float(detector.score(known).images[0])


def test_categories_have_words_of_their_own() -> None:
    both = [*batches(8, "a"), *(Batch(b.features, images=(8 + i,)) for i, b in enumerate(batches(8, "b")))]
    detector = Components(**ONE).fit(both)
    assert set(detector.rules_) == {"a", "b"}
    again = Components(**ONE).load_state(detector.state())
    assert again.rules_ == detector.rules_
    tested = features(image(GOOD, 100), "b")
    assert torch.equal(again.score(tested).patches, detector.score(tested).patches)
    assert torch.equal(again.score(tested).images, detector.score(tested).images)


def test_each_number_of_words_is_a_vocabulary_of_its_own() -> None:
    """The score is that of the one which deviates most; the state keeps all of them."""
    tested = features(image(WRONG["swapped"], 100))
    both = Components(**ONE | {"words": [8, 2]}).fit(batches(8))
    alone = [Components(**ONE | {"words": [count]}).fit(batches(8)) for count in (2, 8)]
    assert [len(one.words.centres) for one in both.vocabularies_[""]] == [2, 8]
    found = [float(one.score(tested).images[0]) for one in alone]
    assert float(both.score(tested).images[0]) == max(found)
    assert found[0] < found[1]
    again = Components(**ONE | {"words": [8, 2]}).load_state(both.state())
    assert torch.equal(again.score(tested).images, both.score(tested).images)


def test_words_are_learned_from_patches_far_from_the_mean() -> None:
    """One patch in a hundred is of a part; a quarter of those that words are learned from are, or more."""
    rows = 0.1 * torch.randn(5000, 4, generator=torch.Generator().manual_seed(0))
    rows[:50, 0] += 3
    drawn = distant_rows(rows, seed=1)
    assert len(drawn) == 2500 == len(drawn.unique(dim=0))
    assert (drawn[:, 0] > 2).sum() >= 49
    assert torch.equal(drawn, distant_rows(rows, seed=1))
    assert len(distant_rows(torch.ones(3, 2), seed=0)) == 1


@pytest.mark.parametrize(("grid", "cells"), [((5, 5), (2, 2)), ((7, 9), (2, 2)), ((1, 4), (2, 1)), ((8, 6), (1, 2))])
def test_the_map_looks_at_the_cells_that_compositions_were_counted_in(
    grid: tuple[int, int], cells: tuple[int, int]
) -> None:
    ys, xs = (cells_along(length, count).tolist() for length, count in zip(grid, cells, strict=True))
    for y, x in np.ndindex(grid):
        shown = torch.zeros(*grid, 1)
        shown[y, x] = 1
        assert composition(shown, cells)[ys[y], xs[x], 0] == 1


def test_one_patch_too_many_in_the_middle_row_is_shown_where_it_lies() -> None:
    memberships = torch.zeros(5, 5, 1)
    memberships[2, 2] = 1
    place = place_of(torch.zeros(1, 5, 5), memberships, composition(memberships, (2, 2)))
    assert place[2, 2] == place.max() == 1


def test_images_are_measured_until_enough_are_and_for_rules_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read beyond that would be encoded again where it does not fit into memory."""
    read, measured = [], []

    class Read(list[Batch]):
        def __iter__(self) -> Iterator[Batch]:
            read.append(0)
            for batch in super().__iter__():
                read[-1] += 1
                yield batch

    measure = components.measure_words
    monkeypatch.setattr(components, "measure_words", lambda *given: measured.append(1) or measure(*given))
    Components(**ONE | {"words": [2, 3, 6]}).fit(Read(batches(MEASURED_ON + 8)))
    assert read[-1] == MEASURED_ON
    assert len(measured) == MEASURED_ON + 8


def test_scores_that_are_squares_scatter_twice_as_much() -> None:
    """Of images that are all alike the prior alone says how: cosine distances are half of squared ones."""
    good = [Batch(features(image(GOOD, 0)), images=(i,), originals=(True,)) for i in range(8)]
    distances, squares = (
        Components(**ONE | {"patches": bank}).fit(good).units_[""].std for bank in ("closeup", "closeup-vit")
    )
    assert squares == pytest.approx(2 * distances)
    assert distances == pytest.approx(0.1 * (4 / 11) ** 0.5)


def test_two_joined_encoders() -> None:
    """The default bank takes features of both, each of its own width."""
    good = [
        Batch(Features({RGB: (image(GOOD, i),), CONTEXT: (image(GOOD, i, 5),)}), images=(i,), originals=(True,))
        for i in range(8)
    ]
    detector = Components(rotations=1).fit(good)
    assert detector.vocabularies_[""][0].words.centres.shape[1] == DIM  # what a patch shows, without its context
    assert detector.needs.modalities == (RGB, CONTEXT)


def test_wrong_use_is_explained() -> None:
    assert Components().needs.min_images == MIN_IMAGES == 8
    with pytest.raises(DatasetError, match=r"at least 8 good pictures.*got 3.*hybrid"):
        Components(**ONE).fit(batches(3))
    with pytest.raises(SettingsError, match="good picture"):
        Components(**ONE).fit([])
    with pytest.raises(NotFittedError):
        Components(**ONE).score(features(image(GOOD, 0)))
    with pytest.raises(SettingsError, match="patches"):
        Components(patches="padim")
    with pytest.raises(SettingsError, match="words"):
        Components(words=[0])
