from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from blemish.errors import DatasetError, SettingsError
from blemish.evaluation.evaluation import (
    COLUMNS,
    MEASURES,
    Answers,
    Clock,
    Part,
    PeakMemory,
    Run,
    RunDetail,
    SharedEncoders,
    check_runs,
    drawn,
    evaluate,
    mean_rows,
    plan_runs,
    put_aside,
    resized,
    run_details,
)
from blemish.types import Prediction, Sample


def write_part(folder: Path, draw, name: str = "disc", good: int = 6, test: int = 3) -> Part:  # type: ignore[no-untyped-def]
    """Made-up parts on disk: good ones, and a test set whose masks cover the dark square."""
    folder.mkdir(parents=True, exist_ok=True)

    def saved(stem: str, pixels: np.ndarray) -> Path:
        Image.fromarray(pixels).save(folder / f"{stem}.png")
        return folder / f"{stem}.png"

    learned = [Sample(saved(f"train{i}", draw(name, i)), label=0) for i in range(good)]
    tested = [Sample(saved(f"good{i}", draw(name, 50 + i)), label=0) for i in range(test)]
    mask = np.zeros((64, 80), dtype=np.uint8)
    mask[28:40, 32:44] = 255
    for i in range(test):
        pixels = draw(name, 70 + i, defective=True)
        paths = saved(f"bad{i}", pixels), saved(f"bad{i}_mask", mask)
        tested.append(Sample(paths[0], label=1, mask=paths[1], defect="square"))
    return Part("made", name, tuple(learned), tuple(tested))


def prediction(score: float, limit: float = 1.0, scores: np.ndarray | None = None, source: str = "a") -> Prediction:
    shown = np.zeros((4, 4), dtype=np.float32) if scores is None else scores
    return Prediction(score, 0.5, limit, score > limit, shown, source=source)


def a_run(part: Part, **changes: object) -> Run:
    facts: dict[str, object] = {"detector": "toy", "encoder": "pixels", "image_size": 64, "device": "cpu"}
    return Run(parts=(part,), **(facts | changes))  # type: ignore[arg-type]


def test_plan_is_every_combination() -> None:
    parts = [Part("d", name, (), ()) for name in "ab"]
    runs = plan_runs(parts, ["x", "y"], [1, None], [0, 1, 2], encoder="pixels")
    assert len(runs) == 2 * 2 * 2 * 3
    assert {run.encoder for run in runs} == {"pixels"}
    assert len({(run.detector, run.shots, run.parts[0].category, run.seed) for run in runs}) == len(runs)
    pooled = plan_runs(parts, ["x"], [1], [0], pooled=True)
    assert [[part.category for part in run.parts] for run in pooled] == [["a", "b"]]


def test_a_run_fills_every_column(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    (detail,) = run_details(a_run(write_part(tmp_path, part), shots=4), scratch=None)
    assert tuple(detail.row) == COLUMNS
    assert detail.row["n_train"] == 4
    assert (detail.row["n_good"], detail.row["n_defective"]) == (3, 3)
    assert detail.row["image_auroc"] == 1
    assert all(0 <= detail.row[name] <= 1 for name in MEASURES if not name.endswith(("seconds", "picture", "mb")))
    assert len(detail.images) == 6
    assert {image.defect for image in detail.images if image.label} == {"square"}
    assert "good picture" in detail.evidence


def test_measures_agree_with_scikit_learn(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    """From the images' own records alone, another library finds the row's numbers."""
    (detail,) = run_details(a_run(write_part(tmp_path, part, test=5), settings={"power": 0.5}))
    labels = [image.label for image in detail.images]
    scores = [image.score for image in detail.images]
    assert detail.row["image_auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert detail.row["image_ap"] == pytest.approx(average_precision_score(labels, scores))
    flagged = np.array([image.is_defective for image in detail.images])
    truth = np.array(labels, dtype=bool)
    assert detail.row["miss_rate"] == pytest.approx(np.mean(~flagged[truth]))
    assert detail.row["false_alarm_rate"] == pytest.approx(np.mean(flagged[~truth]))


def test_pixel_measures_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(0)
    masks = [None, random.random((9, 7)) > 0.8, random.random((9, 7)) > 0.7]
    maps = [random.random((9, 7)).astype(np.float32) for _ in masks]
    samples = [Sample(Path(f"{i}"), label=int(m is not None), mask=m) for i, m in enumerate(masks)]
    tested = Answers(Part("d", "c", (), tuple(samples)), samples, [prediction(1.0, scores=m) for m in maps])
    truth = np.concatenate([np.zeros(63) if m is None else m.ravel() for m in masks])
    scores = np.concatenate([m.ravel() for m in maps])
    measures = tested.measures(None)
    assert measures["pixel_auroc"] == pytest.approx(roc_auc_score(truth, scores))
    assert measures["pixel_ap"] == pytest.approx(average_precision_score(truth, scores))


def test_without_masks_pixel_measures_have_no_meaning() -> None:
    samples = [Sample(Path("a"), label=0), Sample(Path("b"), label=1)]
    tested = Answers(Part("d", "c", (), ()), samples, [prediction(0.5), prediction(2.0)])
    measures = tested.measures(None)
    assert measures["image_auroc"] == 1
    assert all(math.isnan(measures[name]) for name in ("pixel_auroc", "aupro_30", "aupro_01"))


def test_pooled_runs_recognise_what_they_see(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    parts = [write_part(tmp_path / name, part, name) for name in ("disc", "ring")]
    facts = {"encoder": "pixels", "image_size": 64, "device": "cpu"}
    details = list(evaluate(parts, ["toy"], [2], [0], pooled=True, **facts))
    assert [detail.row["category"] for detail in details] == ["disc", "ring"]
    for detail in details:
        assert detail.row["pooled"] is True
        good = [image for image in detail.images if not image.label]
        assert all(image.recognised == image.category for image in good)


def test_shots_are_drawn_as_documented(tmp_path: Path, part) -> None:  # type: ignore[no-untyped-def]
    made = write_part(tmp_path, part)
    order = np.random.RandomState(7).permutation(6)[:3]
    assert [s.image for s in drawn(a_run(made, shots=3, seed=7))] == [made.good[i].image for i in order]
    assert {s.category for s in drawn(a_run(made))} == {"disc"}


def test_impossible_runs_are_refused_before_any_is_done(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    made = write_part(tmp_path, part)
    check_runs([a_run(made)])
    with pytest.raises(DatasetError):
        check_runs([a_run(made), a_run(made, shots=7)])
    with pytest.raises(SettingsError):
        check_runs([a_run(made), a_run(made, detector="none such")])


def test_examples_are_the_most_telling_and_their_maps_may_lie_on_disk(tmp_path: Path) -> None:
    scores = [0.2, 1.5, 3.0, 0.9, 5.0, 0.1]
    labels = [0, 0, 0, 1, 1, 1]
    samples = [Sample(Path(f"{i}"), label=label) for i, label in enumerate(labels)]
    maps = [np.full((3, 3), score, dtype=np.float32) for score in scores]
    tested = Answers(
        Part("d", "c", (), ()), samples, [prediction(s, scores=m) for s, m in zip(scores, maps, strict=True)]
    )
    examples = tested.examples(1, tmp_path)
    assert {kind: [p.score for _, p in pairs] for kind, pairs in examples.items()} == {
        "found": [5.0],
        "missed": [0.1],
        "false alarm": [3.0],
    }
    for pairs in examples.values():
        for _, kept in pairs:
            assert isinstance(kept.map, np.memmap)
            assert (kept.map == np.float32(kept.score)).all()
    assert put_aside(tested.predictions[0], None) is tested.predictions[0]


def test_a_map_is_measured_at_its_masks_size() -> None:
    scores = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert resized(scores, (3, 4)) is scores
    assert resized(scores, (6, 8)).shape == (6, 8)
    assert resized(scores, (6, 8)).mean() == pytest.approx(scores.mean())


def test_unreadable_test_images_are_named(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    made = write_part(tmp_path, part)
    (tmp_path / "good0.png").write_bytes(b"")
    (detail,) = run_details(a_run(made))
    assert detail.row["n_good"] == 2
    ((file, error),) = detail.failures
    assert file.endswith("good0.png")
    assert "0 bytes" in error


def test_progress_ends_where_it_should(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    told: list[tuple[str, int, int]] = []
    list(run_details(a_run(write_part(tmp_path, part)), told=lambda *words: told.append(words)))
    assert told[-1] == ("testing disc", 6, 6)


def test_sharing_what_was_encoded_changes_times_alone(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    parts = [write_part(tmp_path / name, part, name) for name in ("disc", "ring")]
    runs = [a_run(p, shots=shots) for p in parts for shots in (1, None)]
    alone = [detail for run in runs for detail in run_details(run)]
    with SharedEncoders() as encoders:
        shared = [detail for run in runs for detail in run_details(run, encoders=encoders)]
        assert len({id(encoders.of(run)) for run in runs}) == 1
    timed = {"fit_seconds", "ms_per_picture", "peak_memory_mb"}
    for one, other in zip(alone, shared, strict=True):
        assert one.images == other.images
        assert {k: v for k, v in one.row.items() if k not in timed} == {
            k: v for k, v in other.row.items() if k not in timed
        }
        assert other.row["ms_per_picture"] > 0


def test_a_shared_encoder_counts_what_it_saved(tmp_path: Path) -> None:
    from blemish.encoders import build
    from blemish.encoders.feature_cache import RememberingEncoder

    class Slow:
        """The pixels encoder, 20 ms slower an image."""

        def __init__(self) -> None:
            self.encoder, self.calls = build("pixels"), 0

        def __getattr__(self, name: str) -> object:
            return getattr(self.encoder, name)

        def encode(self, images: np.ndarray) -> object:
            self.calls += 1
            time.sleep(0.02)
            return self.encoder.encode(images)

    slow = Slow()
    encoder = RememberingEncoder(slow, tmp_path / "kept")  # type: ignore[arg-type]
    images = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    first = encoder.encode(images)
    clock = Clock(encoder)
    again = encoder.encode(images)
    assert clock.seconds() >= 0.06
    assert slow.calls == 3
    for one, other in zip(first.layers["rgb"], again.layers["rgb"], strict=True):
        assert (one == other).all()
    encoder.forget()
    assert not list((tmp_path / "kept").iterdir())
    encoder.most_bytes = 0
    encoder.encode(images)
    assert not list((tmp_path / "kept").iterdir())


def test_means_leave_out_what_has_no_meaning() -> None:
    base = dict.fromkeys(MEASURES, math.nan) | {"category": "a"}
    rows = [base | {"image_auroc": 0.5}, base | {"image_auroc": 1.0}, base | {"category": "b", "image_auroc": 0.2}]
    first, second = mean_rows(rows, ("category",))
    assert (first["image_auroc"], first["n"]) == (0.75, 2)
    assert second["image_auroc"] == 0.2
    assert math.isnan(first["aupro_30"])


def test_peak_memory_sees_what_was_used_since() -> None:
    memory = PeakMemory()
    before = memory.megabytes()
    block = np.ones(20_000_000)  # 160 MB
    assert block[0] == 1
    during = memory.megabytes()
    assert during >= before + 100 or not memory.resettable
    del block
    if memory.resettable:
        assert PeakMemory().megabytes() < during - 100


def test_a_detail_needs_no_more_than_its_row() -> None:
    assert RunDetail({}, (), {}).failures == ()
