"""The generated set: what each image shows, that nothing but the co-occurrence tells, and its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blemish.data import load_dataset, load_image, load_mask
from blemish.errors import DatasetError, SettingsError
from blemish.research.cooccurrence import (
    APART,
    HEXAGON,
    KINDS,
    MARGIN,
    RADIUS,
    SQUARE,
    _places,
    cooccurrence,
    draw_nuts,
    generate_cooccurrence,
    nuts_of,
)

FEW = {"train": 2, "good": 2, "defective": 4, "size": 64}


def test_good_images_show_two_of_a_kind_and_defective_ones_do_not() -> None:
    assert {nuts_of("good", i) for i in range(8)} == {(HEXAGON, HEXAGON), (SQUARE, SQUARE)}
    assert {frozenset(nuts_of("wrong_pair", i)) for i in range(8)} == {frozenset((HEXAGON, SQUARE))}
    assert {nuts_of("wrong_count", i) for i in range(8)} == {(k,) * n for k in (HEXAGON, SQUARE) for n in (1, 3)}


def test_splits_labels_and_masks() -> None:
    made = cooccurrence(**FEW)
    assert [s.label for s in made.train] == [0, 0]
    assert [(s.label, s.defect) for s in made.test] == [(0, "")] * 2 + [(1, kind) for kind in KINDS for _ in range(4)]
    assert made.has_masks
    assert all(s.mask is None for s in [*made.train, *made.good])
    nut = np.pi * RADIUS**2 * 0.75 * 64 * 64  # at least the inscribed circle without the hole
    for sample in made.defective:
        count = len(nuts_of(sample.defect, 0)) if sample.defect == "wrong_pair" else None
        area = np.asarray(sample.mask).sum() / nut
        assert 1 <= area < 4.5
        assert count is None or 2 <= area < 3


def test_an_image_depends_on_seed_and_place_alone() -> None:
    small, large = cooccurrence(**FEW), cooccurrence(**FEW | {"train": 5, "good": 3})
    assert all(np.array_equal(a.image, b.image) for a, b in zip(small.train, large.train[:2], strict=True))
    assert np.array_equal(small.defective[0].image, large.defective[0].image)
    assert not np.array_equal(small.train[0].image, cooccurrence(1, **FEW).train[0].image)
    images = {np.asarray(s.image).tobytes() for s in [*large.train, *large.test]}
    assert len(images) == len(large.train) + len(large.test)


def test_nuts_lie_apart_and_inside() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        places = _places(3, random)
        assert ((places >= MARGIN) & (places <= 1 - MARGIN)).all()
        apart = np.linalg.norm(places[:, None] - places, axis=-1)[np.triu_indices(3, 1)]
        assert apart.min() >= APART
    assert RADIUS * np.sqrt(2) < MARGIN  # a square's corner


def test_the_kinds_of_nut_change_nothing_else() -> None:
    """With the same random numbers, ground, light and places are the same whichever nuts lie there."""
    images = [draw_nuts(nuts, 96, np.random.default_rng(3)) for nuts in ((HEXAGON, HEXAGON), (HEXAGON, SQUARE))]
    (one, covered), (other, beside) = images
    differs = (one != other).any(axis=-1)
    assert differs.any()
    assert (covered & beside).sum() > 0.7 * covered.sum()
    y, x = np.nonzero(differs)
    assert max(np.ptp(y), np.ptp(x)) < 4 * RADIUS * 96  # one nut and its shadow


def test_grounds_of_good_and_defective_images_are_alike() -> None:
    made = cooccurrence(train=1, good=24, defective=24, size=64)

    def ground(samples: list) -> np.ndarray:
        return np.array([np.median(np.asarray(s.image), axis=(0, 1)) for s in samples])  # (n, 3)

    good, bad = ground(made.good), ground(made.defective)
    assert np.abs(good.mean(0) - bad.mean(0)).max() < 0.6 * good.std(0).min()


def test_files_in_the_mvtec_layout(tmp_path: Path) -> None:
    folder = generate_cooccurrence(tmp_path / "nuts", seed=4, **FEW)
    made, dataset = cooccurrence(4, **FEW), load_dataset(folder)
    assert list(dataset.categories) == ["nuts"]
    read = dataset.categories["nuts"]
    for written, kept in zip([*read.train, *read.test], [*made.train, *made.test], strict=True):
        assert (written.label, written.defect, written.split) == (kept.label, kept.defect, kept.split)
        assert np.array_equal(load_image(written.image), kept.image)
        if kept.mask is not None:
            assert np.array_equal(load_mask(written.mask), kept.mask)


def test_refusals(tmp_path: Path) -> None:
    for wrong in ({"train": 0}, {"good": 0}, {"defective": -1}, {"size": 8}, {"seed": -1}):
        with pytest.raises(SettingsError):
            cooccurrence(**FEW | wrong)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="empty folder"):
        generate_cooccurrence(tmp_path, **FEW)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="the file"):
        generate_cooccurrence(tmp_path / "file", **FEW)
