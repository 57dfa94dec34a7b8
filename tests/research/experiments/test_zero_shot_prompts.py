"""What the experiment about sentences measures, against plain loops, and what it says of rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment_parts import TINY, write_dataset

from blemish.cli.evaluate import categories_of
from blemish.errors import SettingsError, WeightsError
from blemish.evaluation import CategoryData
from blemish.research.experiments.runner import ExperimentRunner, configured
from blemish.research.experiments.zero_shot_prompts import (
    GENERIC,
    NAMED,
    OWN,
    Seen,
    Shown,
    ZeroShotPrompts,
    drawn,
    measures_of,
    on_defect,
    sentences_about,
    speaking_encoders,
)
from blemish.types import Sample

NAME = "zero-shot-prompts"


def shown(label: int, mask: np.ndarray | None = None) -> Shown:
    sample = Sample(np.zeros((8, 8, 3), np.uint8), label=label, mask=mask)
    return Shown(sample, (8, 8), (8, 8), mask)


def seen_of(margins: list[np.ndarray]) -> Seen:
    return Seen([float(m.max()) for m in margins], [(m + 1) / 2 for m in margins], margins)


def test_gaps_are_means_over_patches() -> None:
    random = np.random.default_rng(0)
    mask = np.zeros((8, 8), bool)
    mask[2:5, 4:8] = True  # of the patches of 2 × 2 pixels: rows 1 and half of 2, columns 2 and 3
    margins = [random.normal(0, 0.1, (4, 4)).astype(np.float32) for _ in range(3)]
    margins[2][1:3, 2:] += 0.5
    found = measures_of([shown(0), shown(0), shown(1, mask)], seen_of(margins), torch.eye(2))
    good = [float(value) for one in margins[:2] for value in one.ravel()]
    bad = [float(margins[2][y, x]) for y in (1, 2) for x in (2, 3)]
    assert found["margin_good"] == pytest.approx(np.mean(good), abs=1e-6)
    assert found["margin_defect"] == pytest.approx(np.mean(bad), abs=1e-6)
    assert found["similarity_gap"] == pytest.approx(np.mean(bad) - np.mean(good), abs=1e-6)
    assert found["separation"] == pytest.approx((np.mean(bad) - np.mean(good)) / np.std(good), rel=1e-5)
    assert found["image_auroc"] == 1
    assert found["pixel_auroc"] > 0.9
    assert found["sentence_similarity"] == 0
    assert (found["n_good"], found["n_defective"]) == (2, 1)


def test_small_defects_have_the_patch_they_cover_most() -> None:
    mask = np.zeros((8, 8), bool)
    mask[5, 2] = True
    assert np.argwhere(on_defect(mask, (4, 4))).tolist() == [[2, 1]]
    mask[:4, :4] = True
    assert on_defect(mask, (4, 4)).sum() == 4
    assert not on_defect(np.zeros((8, 8), bool), (4, 4)).any()


def test_without_masks_pixels_and_gaps_stay_empty() -> None:
    margins = [np.full((4, 4), value, np.float32) for value in (0.1, 0.3)]
    found = measures_of([shown(0), shown(1)], seen_of(margins), torch.eye(2))
    assert all(math.isnan(found[name]) for name in ("pixel_auroc", "aupro_30", "similarity_gap", "separation"))
    assert found["picture_gap"] == pytest.approx(0.2)


def test_own_words_are_a_third_kind_and_change_what_is_measured(dataset: Path, tmp_path: Path) -> None:
    file = tmp_path / "words.yaml"

    def run(out: str) -> tuple[ExperimentRunner, list[dict[str, Any]]]:
        options = {**TINY[NAME], "words": str(file), "seeds": [0]}
        runner = ExperimentRunner(NAME, configured(NAME, options), categories_of([dataset], None), tmp_path / out)
        runner.run(lambda *_: None)
        return runner, runner.store.rows

    file.write_text("disc:\n  abnormal: [damage]\n", encoding="utf-8")
    runner, rows = run("out")
    assert [row["variant"] for row in rows] == [GENERIC, NAMED, OWN]
    assert all(0 <= row[name] <= 1 for row in rows for name in ("image_auroc", "pixel_auroc", "aupro_30"))
    assert all(math.isfinite(row["separation"]) for row in rows)
    assert any("disc" in note for note in runner.experiment.notes(rows[:2]))
    assert not any("No own words" in note for note in runner.experiment.notes(rows))
    assert run("out")[0].stale == 0
    file.write_text("disc:\n  abnormal: [flaw]\n", encoding="utf-8")
    again, others = run("out")
    assert again.stale == 1
    assert others[0]["similarity_gap"] == rows[0]["similarity_gap"]
    assert others[2]["similarity_gap"] != rows[2]["similarity_gap"]


def test_each_kind_has_its_sentences() -> None:
    found = sentences_about("metal_nut", {})
    assert list(found) == [GENERIC, NAMED, OWN]
    assert {len(own.normal) for own in found.values()} == {154}
    assert [len(own.abnormal) for own in found.values()] == [88, 88, 176]
    assert "a photo of a object." in found[GENERIC].normal
    assert "a photo of the metal nut with scratch." in found[OWN].abnormal
    assert list(sentences_about("disc", {})) == [GENERIC, NAMED]


def test_seeds_draw_test_images_where_there_are_more(tmp_path: Path) -> None:
    write_dataset(tmp_path, test=6)
    (category,) = categories_of([tmp_path], None)
    picked = [[s.name for s in drawn(category, 3, seed).test] for seed in (0, 0, 1)]
    assert picked[0] == picked[1] != picked[2]
    assert len(picked[0]) == 6
    assert drawn(category, None, 0) is category


def test_no_mean_is_over_encoders() -> None:
    """One encoder separates well, the other not at all: their mean would say that sentences separate the product."""
    facts = {"dataset": "made", "category": "nut", "variant": GENERIC, "seed": 0}
    rows = [
        {**facts, "encoder": e, "image_auroc": a, "pixel_auroc": a, "aupro_30": a, "separation": s, "similarity_gap": s}
        for e, a, s in (("one", 0.9, 1.5), ("other", 0.5, -0.2))
    ]
    made = ZeroShotPrompts()
    sentences = made.verdict(rows).sentences
    assert f"Sentences of the kind '{GENERIC}' do not separate nut of other." in sentences
    assert [s for s in sentences if "AUROC of one" in s and "0.900" in s]
    assert made.tables(rows)[0].cells == {("nut of one", GENERIC): (0.9,), ("nut of other", GENERIC): (0.5,)}
    assert [chart.bars for chart in made.charts(rows)[:2]] == [{GENERIC: (0.9,)}, {GENERIC: (0.5,)}]  # type: ignore[union-attr]
    assert made.tables(rows[:1])[0].cells == {("nut", GENERIC): (0.9,)}


def test_the_verdict_compares_kinds_and_names_what_is_not_separated() -> None:
    facts = {"dataset": "made", "encoder": "e", "seed": 0}
    values = {
        ("nut", GENERIC): (0.6, 0.1),
        ("nut", OWN): (0.9, 1.5),
        ("disc", GENERIC): (0.5, -0.2),
        ("disc", OWN): (0.9, 0.3),
    }
    rows = [
        {**facts, "category": c, "variant": v, "image_auroc": a, "aupro_30": a, "separation": s}
        for (c, v), (a, s) in values.items()
    ]
    said = ZeroShotPrompts().verdict(rows).sentences
    assert said[0].startswith(f"By mean picture AUROC: {OWN} 0.900")
    assert "+0.350" in said[1]
    assert said[-2] == f"Sentences of the kind '{GENERIC}' do not separate nut, disc."
    assert said[-1] == f"Sentences of the kind '{OWN}' do not separate disc."


def test_encoders_without_a_text_tower_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert speaking_encoders(["tiny-clip", "./folder", "tiny-clip"]) == ["tiny-clip", "./folder"]
    with pytest.raises(SettingsError, match="with a text tower"):
        speaking_encoders(["pixels"])
    with pytest.raises(SettingsError, match="known encoder"):
        speaking_encoders(["pixelz"])
    monkeypatch.setattr(
        "blemish.research.experiments.zero_shot_prompts.availability", lambda name: type("None_", (), {"loads": False})
    )
    with pytest.raises(WeightsError, match="hf download"):
        speaking_encoders(["auto"])
    for wrong in ({"alignment": "windows"}, {"temperature": 0.0}, {"words": "none.yaml"}):
        with pytest.raises(SettingsError):
            configured(NAME, wrong).cells([CategoryData("made", "disc", (), ())])
