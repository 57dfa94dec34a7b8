from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from evaluation_parts import toy_run, write_category
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from blemish.errors import SettingsError
from blemish.evaluation import (
    COLUMNS,
    MEASURES,
    CategoryData,
    RunDetail,
    TestResults,
    evaluate,
    evaluate_run,
    fit_run,
    inspect_test_images,
    runner,
)
from blemish.evaluation.runner import unlabelled
from blemish.types import Sample


def test_a_run_fills_every_column(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    (detail,) = evaluate_run(toy_run(write_category(tmp_path, part), shots=4), scratch=None)
    assert tuple(detail.row) == COLUMNS
    assert detail.row["n_train"] == 4
    assert (detail.row["n_good"], detail.row["n_defective"]) == (3, 3)
    assert detail.row["image_auroc"] == 1
    blank = {name for name in MEASURES if name.startswith("spro") or name.endswith(("_logical", "_structural"))}
    assert all(math.isnan(detail.row[name]) for name in blank)  # the category has no saturations, nor groups
    shares = [name for name in MEASURES if name not in blank and not name.endswith(("seconds", "picture", "mb"))]
    assert all(0 <= detail.row[name] <= 1 for name in shares)
    assert detail.row["target_false_alarm_rate"] == 0.05
    assert len(detail.images) == 6
    assert {image.defect for image in detail.images if image.label} == {"square"}
    assert "good picture" in detail.threshold_source


def test_products_of_one_name_are_never_learned_as_one(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    one = write_category(tmp_path, part)
    other = CategoryData("another", one.name, one.train, one.test)
    with pytest.raises(SettingsError, match="disc, disc"):
        next(evaluate([one, other], ["toy"], [2], [0], pooled=True, encoder="pixels"))


def test_measures_agree_with_scikit_learn(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    """From the images' own records alone, another library finds the row's numbers."""
    (detail,) = evaluate_run(toy_run(write_category(tmp_path, part, test=5), settings={"power": 0.5}))
    labels = [image.label for image in detail.images]
    scores = [image.score for image in detail.images]
    assert detail.row["image_auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert detail.row["image_ap"] == pytest.approx(average_precision_score(labels, scores))
    flagged = np.array([image.is_alarm for image in detail.images])
    truth = np.array(labels, dtype=bool)
    assert detail.row["miss_rate"] == pytest.approx(np.mean(~flagged[truth]))
    assert detail.row["false_alarm_rate"] == pytest.approx(np.mean(flagged[~truth]))


def test_pooled_runs_recognise_what_they_see(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    categories = [write_category(tmp_path / name, part, name) for name in ("disc", "ring")]
    facts = {"encoder": "pixels", "image_size": 64, "device": "cpu"}
    details = list(evaluate(categories, ["toy"], [2], [0], pooled=True, **facts))
    assert [detail.row["category"] for detail in details] == ["disc", "ring"]
    for detail in details:
        assert detail.row["pooled"] is True
        good = [image for image in detail.images if not image.label]
        assert all(image.recognised == image.category for image in good)


def test_peak_memory_is_that_of_learning_and_inspecting(
    tmp_path: Path,
    part,  # type: ignore[no-untyped-def]
    toy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What computing the measures takes is in no row, nor in that of the next category."""
    peak = [0.0]

    class Peak:
        def __init__(self) -> None:
            peak[0] = 100.0

        def megabytes(self) -> float:
            return peak[0]

    def measures(results: TestResults, *args: int | None) -> dict[str, float]:
        peak[0] = 900.0
        return computed(results, *args)

    computed = TestResults.measures
    monkeypatch.setattr(runner, "PeakMemory", Peak)
    monkeypatch.setattr(TestResults, "measures", measures)
    categories = [write_category(tmp_path / name, part, name) for name in ("disc", "ring")]
    facts = {"encoder": "pixels", "image_size": 64, "device": "cpu"}
    details = evaluate(categories, ["toy"], [2], [0], pooled=True, **facts)
    assert [detail.row["peak_memory_mb"] for detail in details] == [100.0, 100.0]


def test_unreadable_test_images_are_named(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    made = write_category(tmp_path, part)
    (tmp_path / "good0.png").write_bytes(b"")
    (detail,) = evaluate_run(toy_run(made))
    assert detail.row["n_good"] == 2
    ((file, error),) = detail.failures
    assert file.endswith("good0.png")
    assert "0 bytes" in error


def test_progress_ends_where_it_should(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    calls: list[tuple[object, ...]] = []
    list(evaluate_run(toy_run(write_category(tmp_path, part)), progress=lambda *call: calls.append(call)))
    assert calls[-1] == (6, 6, {"step": "testing disc"})


def test_a_detail_says_which_level_is_white(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    made = write_category(tmp_path, part)
    for path in tmp_path.glob("*[0-9].png"):
        grey = np.asarray(Image.open(path).convert("L"))
        Image.fromarray(grey.astype(np.uint16) << 4).save(path)
    (detail,) = evaluate_run(toy_run(made))
    assert detail.full_scale is not None
    assert detail.full_scale.bits == 12


def test_a_detail_needs_no_more_than_its_row() -> None:
    assert RunDetail({}, (), {}).failures == ()


def test_images_in_memory_keep_their_labels(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    """They all have one name, so only their order says which prediction belongs to which label."""
    train = tuple(Sample(part(seed=i), label=0) for i in range(4))
    mask = np.zeros((64, 80), bool)
    mask[28:40, 32:44] = True
    good = [Sample(part(seed=50 + i), label=0) for i in range(4)]
    bad = [Sample(part(seed=70 + i, defective=True), label=1, mask=mask, defect="square") for i in range(4)]
    test = tuple(sample for pair in zip(bad, good, strict=True) for sample in pair)
    (detail,) = evaluate_run(toy_run(CategoryData("memory", "disc", train, test)))
    assert (detail.row["n_good"], detail.row["n_defective"]) == (4, 4)
    assert detail.row["image_auroc"] == 1
    assert [image.label for image in detail.images] == [1, 0] * 4
    assert all((image.defect == "square") == bool(image.label) for image in detail.images)


def test_predictions_stay_beside_their_samples_where_one_cannot_be_read(  # type: ignore[no-untyped-def]
    tmp_path: Path, part, toy: str
) -> None:
    made = write_category(tmp_path, part)
    (tmp_path / "good1.png").write_bytes(b"")
    inspector, counts = fit_run(toy_run(made))
    results = inspect_test_images(inspector, made)
    assert counts == {"disc": 6}
    assert [str(s.image) for s in results.samples] == [p.source for p in results.predictions]
    assert len(results.samples) == 5


def test_missing_masks_are_reported(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    made = write_category(tmp_path, part)
    test = [s if i % 2 else Sample(s.image, label=s.label, defect=s.defect) for i, s in enumerate(made.test)]
    (detail,) = evaluate_run(toy_run(CategoryData("d", "disc", made.train, tuple(test))))
    assert detail.notes == ("masks for 2 of 3 defective pictures; pixel figures are of these alone",)
    assert (detail.row["n_masks"], detail.row["n_defective"]) == (2, 3)


def test_the_model_is_shown_the_image_and_the_unit_of_its_points_alone() -> None:
    known = Sample(Path("a"), Path("a.tiff"), 1, Path("m"), "disc", "dent", "test", units="mm")
    (shown,) = unlabelled(CategoryData("d", "disc", (), (known,)))
    assert (shown.image, shown.points, shown.units) == (known.image, known.points, "mm")
    assert (shown.label, shown.mask, shown.category, shown.defect, shown.split) == (None, None, None, "", "")
