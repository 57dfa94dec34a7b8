"""The generated kits: what each image shows, that masks are exact, and its files in the layout of MVTec LOCO AD."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from blemish.data import load_dataset, load_image
from blemish.data.masks import defect_masks
from blemish.errors import DatasetError, SettingsError
from blemish.research.kits import KINDS, LOGICAL, draw_kit, generate_kits, kits, parts_of

FEW = {"train": 2, "good": 2, "defective": 4, "size": 64}


def shown(kind: str, index: int) -> Counter[str]:
    return Counter(part.kind for part in parts_of(kind, index))


def test_what_is_laid_down() -> None:
    good = [shown("good", i) for i in range(4)]
    assert good[0] == good[2] == {"hexagon": 2, "brass": 2, "pin": 1}
    assert good[1] == good[3] == {"square": 2, "zinc": 2, "pin": 1}
    assert [shown("count", i)["hexagon"] for i in (0, 2)] == [1, 3]
    assert all(shown("missing", i)["pin"] == 0 for i in range(4))
    assert [shown("extra", i).total() - good[i].total() for i in range(4)] == [1] * 4
    assert all(shown("wrong_place", i) == good[i] for i in range(4))
    assert shown("wrong_pair", 0) == {"hexagon": 2, "zinc": 2, "pin": 1}
    assert all(shown("scratch", i) == good[i] for i in range(4))


def test_an_image_depends_on_seed_and_place_alone() -> None:
    small, large = kits(**FEW), kits(**FEW | {"train": 4, "good": 3})
    assert all(np.array_equal(a.image, b.image) for a, b in zip(small.train, large.train[:2], strict=True))
    assert np.array_equal(small.defective[-1].image, large.defective[-1].image)
    assert not np.array_equal(small.train[0].image, kits(1, **FEW).train[0].image)
    assert len({np.asarray(s.image).tobytes() for s in [*large.train, *large.test]}) == 4 + 3 + 4 * len(KINDS)


def test_samples_and_saturations() -> None:
    made = kits(**FEW)
    assert [s.defect for s in made.test] == [""] * 2 + [kind for kind in KINDS for _ in range(4)]
    for sample in made.defective:
        ((mask, pixels),) = defect_masks(sample)
        assert 0 < pixels <= mask.sum()
        if sample.defect in ("wrong_place", "wrong_pair", "scratch"):
            assert pixels == mask.sum()
        if sample.defect == "missing":
            assert mask.sum() > 5 * pixels


def test_a_mask_is_where_the_same_image_without_it_differs() -> None:
    """A scratch: the image with the same random numbers and no scratch differs inside its mask and next to it alone."""
    image, mask, pixels = draw_kit("scratch", 2, 128, np.random.default_rng(5))
    assert pixels == mask.sum()
    darker = image[mask].mean()
    assert darker < 0.75 * image[_grown(mask, 4) & ~_grown(mask, 2)].mean()


def _grown(mask: np.ndarray, by: int) -> np.ndarray:
    grown = mask.copy()
    for _ in range(by):
        grown[1:] |= grown[:-1].copy()
        grown[:-1] |= grown[1:].copy()
        grown[:, 1:] |= grown[:, :-1].copy()
        grown[:, :-1] |= grown[:, 1:].copy()
    return grown


def test_files_in_the_loco_layout(tmp_path: Path) -> None:
    folder = generate_kits(tmp_path / "kits", seed=4, **FEW)
    made, dataset = kits(4, **FEW), load_dataset(folder)
    assert dataset.layout == "mvtec_loco"
    read = dataset.categories["kits"]
    assert Counter(s.defect for s in read.defective) == {
        "logical_anomalies": 4 * len(LOGICAL),
        "structural_anomalies": 4 * (len(KINDS) - len(LOGICAL)),
    }
    for written, kept in zip(read.test, made.test, strict=True):
        assert np.array_equal(load_image(written.image), kept.image)
        for one, other in zip(defect_masks(written), defect_masks(kept), strict=True):
            assert np.array_equal(one[0], other[0])
            assert one[1] == other[1]


def test_refusals(tmp_path: Path) -> None:
    for wrong in ({"train": 0}, {"good": 0}, {"defective": -1}, {"size": 8}, {"seed": -1}, {"kinds": ("odd",)}):
        with pytest.raises(SettingsError):
            kits(**FEW | wrong)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="empty folder"):
        generate_kits(tmp_path, **FEW)
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="the file"):
        generate_kits(tmp_path / "file", **FEW)
