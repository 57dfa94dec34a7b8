"""Thresholds renewed with further normal images: what counts, what does not, and what changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish import Inspector, Sample
from blemish.errors import DatasetError, DataWarning, ImageError, SettingsError
from blemish.scoring.calibration import (
    COPIES_UNSURE_RATE,
    UNSURE_RATE,
    AddedScore,
    Calibration,
    CalibrationSource,
)

Draw = Any


def fresh(toy: str, **settings: Any) -> Inspector:
    return Inspector(encoder="pixels", detector=toy, device="cpu", **settings)


@pytest.fixture
def inspector(toy: str, part: Draw) -> Inspector:
    return fresh(toy).fit([part(seed=i) for i in range(6)])


@pytest.fixture
def pooled(toy: str, part: Draw) -> Inspector:
    return fresh(toy).fit([Sample(part(k, seed=i), category=k) for k in ("disc", "ring") for i in range(5)])


def test_new_scores_are_pooled_with_the_old_and_accumulate(inspector: Inspector, part: Draw, tmp_path: Path) -> None:
    image = part(seed=200, defective=True)
    before, old = inspector.inspect(image), inspector.calibrations[None]
    first = inspector.calibrate([part(seed=i) for i in range(100, 110)])
    again = Inspector.load(inspector.save(tmp_path / "m"), device="cpu")
    second = again.calibrate([part(seed=i) for i in range(105, 130)], false_alarm_rate=0.1)
    after = again.calibrations[None]
    assert again.inspect(image).score == before.score  # nothing was fitted again
    assert again.inspect(image).threshold == after.threshold != before.threshold
    assert (first.added, second.added, second.repeated) == ({None: 10}, {None: 20}, 5)
    assert len(after.scores) == len(after.peaks) == len(old.scores) + 30
    assert set(old.scores) < set(after.scores)
    assert (after.source.held_out, after.source.added, after.source.parts) == (6, 30, 36)
    assert "6 good pictures, each scored by" in after.source.words
    assert "from 30 good pictures that it did not learn from" in after.source.words
    assert again.false_alarm_rate == 0.1


def test_one_new_image_never_replaces_many(inspector: Inspector, part: Draw) -> None:
    old = inspector.calibrations[None]
    inspector.calibrate([part(seed=100)])
    assert len(inspector.calibrations[None].scores) == len(old.scores) + 1


def test_new_scores_take_the_place_of_the_old_where_that_is_asked_for(inspector: Inspector, part: Draw) -> None:
    change = inspector.calibrate([part(seed=i) for i in range(100, 130)], replace=True)
    after = inspector.calibrations[None]
    assert len(after.scores) == after.source.added == 30
    assert after.source.words == "Limit from 30 good pictures that the model did not learn from."
    assert not set(after.scores) & set(change.before[None].scores)


def test_an_image_counts_once_however_often_and_in_which_file_it_comes(
    inspector: Inspector, part: Draw, tmp_path: Path
) -> None:
    image = part(seed=100)
    for name in ("a.png", "b.bmp"):
        Image.fromarray(image).save(tmp_path / name)
    change = inspector.calibrate([image] * 20 + [tmp_path / "a.png", tmp_path / "b.bmp", part(seed=101)])
    assert (change.added, change.repeated) == ({None: 2}, 21)
    assert inspector.calibrations[None].source.added == 2


def test_an_image_saved_again_as_jpeg_counts_once(inspector: Inspector, part: Draw, tmp_path: Path) -> None:
    image = part(seed=100, size=(192, 240))
    files = [tmp_path / f"{quality}.jpg" for quality in (95, 92, 90, 88)]
    for file in files:
        Image.fromarray(image).save(file, quality=int(file.stem))
    change = inspector.calibrate([image, *files, part(seed=101, size=(192, 240))])
    assert (change.added, change.repeated) == ({None: 2}, 4)


def test_images_fitted_on_do_not_count(inspector: Inspector, part: Draw) -> None:
    with pytest.raises(DatasetError, match="did not learn from"):
        inspector.calibrate([part(seed=i) for i in range(6)])
    change = inspector.calibrate([part(seed=i) for i in range(8)])
    assert (change.added, change.fitted_on) == ({None: 2}, 6)


def test_copies_that_fitting_left_out_as_repeats_do_not_count(toy: str, part: Draw, tmp_path: Path) -> None:
    """A copy of a learned picture looks more familiar than any new part does."""
    images = [part(seed=i, size=(192, 240)) for i in range(6)]
    copy = tmp_path / "copy.jpg"
    Image.fromarray(images[0]).save(copy, quality=92)
    with pytest.warns(DataWarning, match="nearly the same"):
        fitted = fresh(toy).fit([*images, str(copy)])
    assert (len(fitted.model_.fingerprints), fitted.model_.repeats) == (6, 1)
    again = Inspector.load(fitted.save(tmp_path / "m"), device="cpu")
    for replace in (False, True):
        change = again.calibrate([*images, str(copy), part(seed=100 + replace, size=(192, 240))], replace=replace)
        assert (change.added, change.fitted_on, change.repeated) == ({None: 1}, 7, 0)


def test_images_of_another_product_are_refused_and_named(inspector: Inspector, part: Draw, tmp_path: Path) -> None:
    before = inspector.calibrations[None].threshold
    for i in range(20):
        Image.fromarray(part("stripes", seed=i)).save(tmp_path / f"other{i:02}.png")
    with pytest.raises(DatasetError, match=r"20 of 20 unlike any of them: .*other00\.png.*and 15 more"):
        inspector.calibrate(tmp_path)
    assert inspector.calibrations[None].threshold == before


def test_a_few_unknown_parts_are_reported_and_do_not_count(inspector: Inspector, part: Draw, tmp_path: Path) -> None:
    stranger = tmp_path / "other.png"
    Image.fromarray(part("stripes")).save(stranger)
    change = inspector.calibrate([*(part(seed=i) for i in range(100, 105)), stranger])
    assert (change.added, change.unknown) == ({None: 5}, (str(stranger),))
    without = fresh(inspector.detector_name).fit([part(seed=i) for i in range(6)])
    without.calibrate([part(seed=i) for i in range(100, 105)])
    assert inspector.calibrations[None].threshold == without.calibrations[None].threshold


def test_what_flips_is_said(inspector: Inspector, part: Draw) -> None:
    held_out = inspector.calibrations[None].scores
    strict = inspector.calibrate([part(seed=100)], false_alarm_rate=0.6, unsure_rate=0.0)
    threshold = inspector.calibrations[None].threshold
    assert [flip.score for flip in strict.flips] == [s for s in held_out if s > threshold]
    assert {(flip.before, flip.after) for flip in strict.flips} == {("good", "defective")}
    back = inspector.calibrate([part(seed=101)], false_alarm_rate=0.05, unsure_rate=0.0)
    assert {(flip.before, flip.after) for flip in back.flips} == {("defective", "good")}
    assert back.before[None].threshold == threshold
    assert back.after[None].threshold == inspector.calibrations[None].threshold


def test_calibrating_one_category_keeps_the_other(pooled: Inspector, part: Draw) -> None:
    before = pooled.calibrations["ring"]
    change = pooled.calibrate([part("disc", seed=i) for i in range(100, 104)])
    assert np.array_equal(pooled.calibrations["ring"].scores, before.scores)
    assert pooled.calibrations["ring"].source == before.source
    assert change.added == {"disc": 4, "ring": 0}


def test_a_model_of_one_unnamed_product_takes_pictures_whose_folder_names_one(
    inspector: Inspector, part: Draw, tmp_path: Path
) -> None:
    folder = tmp_path / "disc" / "train" / "good"
    folder.mkdir(parents=True)
    for i in range(40, 43):
        Image.fromarray(part(seed=i)).save(folder / f"{i}.png")
    assert inspector.calibrate(tmp_path / "disc").added == {None: 3}
    new = [Sample(part(seed=i), category="disc") for i in range(50, 80)]
    assert inspector.calibrate_unlabelled(new).added == {None: 30}
    with pytest.raises(SettingsError, match="leave the category out"):
        inspector.calibrate(tmp_path / "disc", "disc")
    with pytest.raises(SettingsError, match="leave the category out"):
        inspector.calibrate_unlabelled(new, "disc")


def test_an_unknown_category_is_refused_before_anything_is_read(pooled: Inspector, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="disc, ring"):
        pooled.calibrate([Sample(tmp_path / "not there.png")], category="bolt")


def test_copies_are_stand_ins_until_as_many_images_have_been_added(toy: str, part: Draw) -> None:
    inspector = fresh(toy).fit([part(seed=0)])
    assert inspector.calibrations[None].source.copies
    inspector.calibrate([part(seed=100)])
    after = inspector.calibrations[None]
    assert (after.source.copies, after.source.added, len(after.scores)) == (False, 1, 1)
    source = CalibrationSource(3, 3, copies=True, correction=1.36)
    copied = Calibration.of([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], 0.05, source)
    two = copied.with_added([AddedScore(str(i), "", 2.0 + i, 2.0) for i in range(2)])
    assert (two.source.copies, two.scores.tolist()) == (True, [1, 2, 2, 3, 3])
    three = two.with_added([AddedScore("2", "", 9.0, 2.0)])
    assert (three.source.copies, three.scores.tolist()) == (False, [2, 3, 9])
    assert three.with_added([AddedScore("2", "", 7.0, 2.0)]).scores.tolist() == [2, 3, 9]  # again the same image


def test_the_unsure_rate_follows_what_the_threshold_rests_on(toy: str, part: Draw) -> None:
    """Copies alone leave more to a person than copies with pictures of unknown state do."""
    alone = fresh(toy).fit([part(seed=0)])
    assert alone.calibrations[None].unsure_rate == COPIES_UNSURE_RATE
    joined = Calibration.of([1.0], [1.0], 0.05, CalibrationSource(1, 1, copies=True)).with_unlabelled(
        np.linspace(0.9, 1.1, 30), np.linspace(0.9, 1.1, 30), 0.1
    )
    assert joined.at(0.05).unsure_rate == UNSURE_RATE
    line = [part(seed=i) for i in range(300, 330)]
    alone.calibrate_unlabelled(line, expected_defects=0.0)
    assert alone.calibrations[None].unlabelled is not None
    assert alone.calibrations[None].unsure_rate == UNSURE_RATE


@pytest.mark.parametrize("shift", [-0.6, 0.5])
def test_good_images_that_contradict_the_unlabelled_ones_are_refused_at_once(shift: float) -> None:
    """And not by the first inspection that asks for a threshold; with `keep` False they count alone."""
    random = np.random.default_rng(0)
    joined = Calibration.of([1.0], [1.0], 0.05, CalibrationSource(1, 1, copies=True)).with_unlabelled(
        scores := np.exp(random.normal(0.1, 0.05, 60)), scores, 0.1
    )
    values = np.exp(random.normal(shift, 0.03, 20)).tolist()
    new = [AddedScore(str(i), f"{i}.png", value, value) for i, value in enumerate(values)]
    with pytest.raises(DatasetError, match=r"60 pictures of unknown state.*--replace"):
        joined.with_added(new)
    assert joined.with_added(new, keep=False).unlabelled is None


def test_unlabelled_images_that_cannot_be_read_are_named_and_the_rest_counts(
    inspector: Inspector, part: Draw, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    line = [part(seed=i) for i in range(300, 320)]
    stream = iter([line[0], broken, *line[1:10], 7, *line[10:]])  # a live source has no length
    seen: list[tuple[int, int]] = []
    change = inspector.calibrate_unlabelled(stream, progress=lambda done, total, facts: seen.append((done, total)))
    assert change.added == {None: 20}
    assert [one.file for one in change.unreadable] == [str(broken), "array"]
    assert "broken.png" in change.unreadable[0].error
    assert "int" in change.unreadable[1].error
    assert seen[-1] == (22, 22)
    after = inspector.calibrations[None].threshold
    inspector.calibrate_unlabelled(line)
    assert inspector.calibrations[None].threshold == after  # as without the broken ones


def test_a_stream_of_unlabelled_images_is_scored_while_it_comes(inspector: Inspector, part: Draw) -> None:
    scored = 0
    waiting: list[int] = []

    def count(done: int, total: int, facts: object) -> None:
        nonlocal scored
        scored = done

    def camera() -> Any:
        for drawn in range(20):
            waiting.append(drawn - scored)
            yield part(seed=300 + drawn)

    inspector.calibrate_unlabelled(camera(), progress=count)
    assert waiting == [0] * 20  # no frame was drawn before the one before it had been scored


def test_too_few_readable_unlabelled_images_are_named(inspector: Inspector, part: Draw, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.touch()
    with pytest.raises(DatasetError, match=r"got 9, and 1 that cannot be read: .*broken\.png"):
        inspector.calibrate_unlabelled([*(part(seed=i) for i in range(300, 309)), broken])


def test_a_broken_good_image_stops_before_anything_changes(inspector: Inspector, part: Draw, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.touch()
    before = inspector.calibrations[None]
    with pytest.raises(ImageError, match=r"broken\.png"):
        inspector.calibrate([*(part(seed=i) for i in range(100, 110)), broken])
    assert inspector.calibrations[None] is before


def test_images_that_fitting_held_out_do_not_count_twice(part: Draw, tmp_path: Path) -> None:
    """A detector that is slow to fit keeps a fifth back for its thresholds; `calibrate` with all of them adds none."""
    good = [part(seed=i) for i in range(15)]
    inspector = Inspector("pixels", "vit-autoencoder", image_size=32, device="cpu", steps=2).fit(good)
    kept = len(inspector.calibrations[None].scores)
    assert kept
    again = Inspector.load(inspector.save(tmp_path / "model"), device="cpu")
    found = again.calibrate([*good, part(seed=99)])
    assert found.added == {None: 1}
    assert len(again.calibrations[None].scores) == kept + 1


def test_images_set_aside_as_outliers_do_not_come_back_as_good_ones(toy: str, part: Draw) -> None:
    good, odd = [part(seed=i) for i in range(12)], part(seed=50, defective=True)
    inspector = fresh(toy).fit([*good, odd], clean=True)
    assert len(inspector.outliers_) == 1
    assert inspector.calibrate([odd, part(seed=99)]).added == {None: 1}
