"""fit → inspect → save → load over the small toy detector and the encoder without weights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish import Failure, Inspector, Prediction, Sample, overlay
from blemish.errors import (
    DatasetError,
    ImageError,
    ModelError,
    NotFittedError,
    SettingsError,
    WeightsError,
)
from blemish.report import draw_overlay

Draw = Any


@pytest.fixture
def inspector(toy: str, part: Draw) -> Inspector:
    return fresh(toy).fit([part(seed=i) for i in range(6)])


def fresh(toy: str, **settings: Any) -> Inspector:
    return Inspector(encoder="pixels", detector=toy, device="cpu", **settings)


def same(one: Prediction, other: Prediction) -> bool:
    """Bit-identical, but for the time it took."""
    left, right = one.to_dict(), other.to_dict()
    del left["seconds"], right["seconds"]
    return left == right and np.array_equal(one.map, other.map)


def test_a_defect_is_found_and_outlined(inspector: Inspector, part: Draw) -> None:
    good, bad = inspector.inspect(part(seed=50)), inspector.inspect(part(seed=51, defective=True))
    assert not good.is_defective
    assert bad.is_defective
    assert good.p_value > inspector.false_alarm_rate >= bad.p_value
    assert good.map.shape == (64, 80)
    assert good.map.dtype == np.float32
    left, top, right, bottom = bad.regions[0].box
    assert left < 38 < right  # the dark square lies at 32…44, 28…40
    assert top < 34 < bottom
    assert bad.category is None
    assert bad.is_known
    assert bad.seconds > 0


@pytest.mark.filterwarnings("ignore:.*another shape:blemish.errors.DataWarning")
def test_save_and_load_give_bit_identical_predictions(inspector: Inspector, part: Draw, tmp_path: Path) -> None:
    folder = inspector.save(tmp_path / "model")
    back = Inspector.load(folder, device="cpu")
    for defective in (False, True):
        image = part(seed=60, defective=defective, size=(90, 70))
        assert same(inspector.inspect(image), back.inspect(image))
    again = Inspector.load(back.save(tmp_path / "again"), device="cpu")
    assert same(again.inspect(part(seed=61)), inspector.inspect(part(seed=61)))


def test_two_encoders_side_by_side_survive_saving(part: Draw, tmp_path: Path) -> None:
    inspector = Inspector(encoder="pixels+pixels", device="cpu", image_size=96)
    assert inspector.detector_name == "hybrid"
    inspector.fit([part(seed=i) for i in range(3)])
    back = Inspector.load(inspector.save(tmp_path / "model"), device="cpu")
    assert back.encoder_name == "pixels+pixels"
    good, bad = (part(seed=80, defective=defective) for defective in (False, True))
    for image in (good, bad):
        assert same(inspector.inspect(image), back.inspect(image))
    assert inspector.inspect(bad).score > 1.3 * inspector.inspect(good).score


def test_fitting_twice_gives_the_same(toy: str, part: Draw) -> None:
    images = [part(seed=i) for i in range(4)]
    one, other = (fresh(toy).fit(images).inspect(part(seed=70, defective=True)) for _ in range(2))
    assert same(one, other)


@pytest.mark.filterwarnings("ignore:.*another shape:blemish.errors.DataWarning")
def test_many_images_come_in_order_and_a_broken_one_is_named(inspector: Inspector, part: Draw, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    images = [part(seed=1), part(seed=2, size=(80, 64)), broken, part(seed=3), Image.fromarray(part(seed=4)), 7]
    predictions = list(inspector.inspect_many(images, batch_size=2))
    assert [type(a) for a in predictions] == [Prediction, Prediction, Failure, Prediction, Prediction, Failure]
    assert "broken.png" in predictions[2].file
    assert "broken.png" in predictions[2].error
    for image, answer in zip(images, predictions, strict=True):
        if isinstance(answer, Prediction):
            assert same(answer, inspector.inspect(image))


def test_batches_do_not_change_scores(inspector: Inspector, part: Draw) -> None:
    images = [part(seed=i, defective=i % 2 == 1) for i in range(7)]
    for size in (1, 3, 7, 100):
        for one, other in zip(inspector.inspect_many(images, batch_size=size), images, strict=True):
            assert isinstance(one, Prediction)
            assert one.score == pytest.approx(inspector.inspect(other).score, rel=1e-5)


def test_an_endless_stream_is_read_only_a_little_ahead(inspector: Inspector, part: Draw) -> None:
    drawn = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal drawn
        while True:
            drawn += 1
            yield part(seed=drawn)

    predictions = inspector.inspect_many(endless(), batch_size=2)
    for _ in range(5):
        next(predictions)
    predictions.close()  # type: ignore[attr-defined]
    assert drawn < 15


def test_a_folder_stands_for_its_images(inspector: Inspector, part: Draw, tmp_path: Path) -> None:
    for name in ("b 'quoted'.png", "ä.png"):
        Image.fromarray(part(seed=9)).save(tmp_path / name)
    predictions = list(inspector.inspect_many(tmp_path))
    assert [Path(a.source).name for a in predictions if isinstance(a, Prediction)] == ["b 'quoted'.png", "ä.png"]
    with pytest.raises(ImageError, match="got a folder; give a picture, or call inspect_many"):
        inspector.inspect(tmp_path)


def test_paths_arrays_and_images_are_learned_alike(toy: str, part: Draw, tmp_path: Path) -> None:
    arrays = [part(seed=i) for i in range(3)]
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(tmp_path / f"{i}.png")
    predictions = [
        fresh(toy).fit(given).inspect(part(seed=80))
        for given in (tmp_path, arrays, [Image.fromarray(a) for a in arrays], [Sample(a) for a in arrays])
    ]
    assert all(same(predictions[0], other) for other in predictions[1:])


@pytest.fixture
def pooled(toy: str, part: Draw) -> Inspector:
    return fresh(toy).fit([Sample(part(k, seed=i), category=k) for k in ("disc", "ring") for i in range(5)])


def test_a_pooled_model_recognises_what_it_sees(pooled: Inspector, part: Draw) -> None:
    assert pooled.categories == ("disc", "ring")
    for kind in pooled.categories:
        for defective in (False, True):
            answer = pooled.inspect(part(kind, seed=90, defective=defective))
            assert (answer.category, answer.is_known) == (kind, True)
            assert answer.threshold == pooled.calibrations[kind].threshold
    assert not pooled.inspect(part("stripes")).is_known


def test_a_given_category_is_used(pooled: Inspector, part: Draw) -> None:
    answer = pooled.inspect(part("disc"), category="ring")
    assert (answer.category, answer.threshold) == ("ring", pooled.calibrations["ring"].threshold)
    with pytest.raises(SettingsError, match="disc, ring"):
        pooled.inspect(part("disc"), category="bolt")


def test_a_pooled_model_survives_saving(pooled: Inspector, part: Draw, tmp_path: Path) -> None:
    back = Inspector.load(pooled.save(tmp_path / "m"), device="cpu")
    assert same(back.inspect(part("ring", seed=3)), pooled.inspect(part("ring", seed=3)))


def on_a_plain_background(seed: int, centre: tuple[int, int] = (80, 60), defective: bool = False) -> np.ndarray:
    """A disc on a large plain background `(120, 160, 3)`; a defective one has a dark spot at its centre (x, y)."""
    y, x = np.mgrid[:120, :160]
    radius = np.hypot(x - centre[0], y - centre[1])
    image = np.where(radius[..., None] < 24, (180, 170, 60), (90, 90, 90)).astype(float)
    if defective:
        image[radius < 5] = 5
    return (image + np.random.default_rng(seed).normal(0, 3, image.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def close_up(toy: str, part: Draw) -> Inspector:
    """Discs on a plain background, which are cropped to, and stripes, which are seen whole."""
    discs = [Sample(on_a_plain_background(i, (50 + 10 * i, 60)), category="disc") for i in range(5)]
    stripes = [Sample(part("stripes", seed=i, size=(120, 160)), category="stripes") for i in range(5)]
    return fresh(toy, framing="part").fit(discs + stripes)


def test_every_category_has_its_own_framing_and_is_recognised_before_it(close_up: Inspector, part: Draw) -> None:
    assert list(close_up.model_.framings) == ["disc", "stripes"]
    disc, stripes = on_a_plain_background(50, (110, 70)), part("stripes", seed=50, size=(120, 160))
    assert close_up.model_.framings["disc"].frame(disc).to_image is not None
    assert close_up.model_.framings["stripes"].frame(stripes).to_image is None
    assert close_up.model_.recognition_framing is not None
    for name, image in (("disc", disc), ("stripes", stripes)):
        recognised, given = close_up.inspect(image), close_up.inspect(image, category=name)
        assert (recognised.category, recognised.is_known) == (name, True)
        assert same(recognised, given)
        assert not given.is_defective


def test_a_defect_seen_close_up_lands_on_the_image_again(close_up: Inspector, tmp_path: Path) -> None:
    image = on_a_plain_background(60, (115, 45), defective=True)
    answer = close_up.inspect(image)
    assert answer.is_defective
    assert answer.map.shape == image.shape[:2]
    left, top, right, bottom = answer.regions[0].box
    assert left < 115 < right
    assert top < 45 < bottom
    assert right - left < 48  # nearer to the spot, 10 px, than to the part
    back = Inspector.load(close_up.save(tmp_path / "m"), device="cpu")
    assert same(back.inspect(image), answer)


def test_whole_images_need_no_framing_for_recognition(pooled: Inspector) -> None:
    assert pooled.model_.recognition_framing is None


@pytest.mark.parametrize(("count", "words"), [(1, "changed copies"), (4, "4 rounds"), (12, "5 rounds")])
def test_where_the_held_out_scores_come_from_is_kept(toy: str, part: Draw, count: int, words: str) -> None:
    source = fresh(toy).fit([part(seed=i) for i in range(count)]).calibrations[None].source
    assert source.images == source.held_out == count
    assert words in source.words


@pytest.mark.parametrize(
    ("count", "rate", "least", "most"), [(4, 0.05, 0, 0.12), (30, 0.05, 0, 0.12), (30, 0.3, 0.1, 0.5)]
)
def test_false_alarms_are_about_as_rare_as_their_target(
    toy: str, part: Draw, count: int, rate: float, least: float, most: float
) -> None:
    inspector = fresh(toy, false_alarm_rate=rate).fit([part(seed=i) for i in range(count)])
    alarms = [inspector.inspect(part(seed=1000 + i)).is_defective for i in range(60)]
    assert least <= np.mean(alarms) <= most
    assert inspector.inspect(part(seed=1000, defective=True)).is_defective  # an infinite threshold would not do


def test_unknown_settings_name_the_valid_ones(toy: str) -> None:
    with pytest.raises(SettingsError, match=r"power, image_size.*got powr"):
        fresh(toy, powr=2)
    assert fresh(toy, power=2).detector.settings["power"] == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"false_alarm_rate": 0},
        {"image_size": 0},
        {"image_size": 51_200},
        {"framing": "none"},
        {"false_alarm_rate": 1.5},
        {"seed": -1},
        {"seed": 2**80},
    ],
)
def test_impossible_settings_are_refused(toy: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        fresh(toy, **wrong)


def test_unknown_names_are_refused(toy: str) -> None:
    with pytest.raises(SettingsError, match="detector"):
        Inspector(detector="patchcoer")
    with pytest.raises(SettingsError, match="encoder"):
        Inspector(encoder="no-such-encoder", detector=toy)
    with pytest.raises(SettingsError, match="efficientnet-lite0"):
        Inspector(encoder="random:efficientnet-lit0", detector=toy)


def test_a_mistyped_parameter_is_told_apart_from_the_detectors_settings(toy: str) -> None:
    with pytest.raises(SettingsError, match="did you mean false_alarm_rate, which is not the detector's"):
        Inspector(detector=toy, false_alarm_rat=0.1)
    with pytest.raises(SettingsError, match=r"use one of these$"):
        Inspector(detector=toy, foo=3)


def test_what_is_printed_fits_a_line(toy: str, part: Draw) -> None:
    inspector = fresh(toy)
    assert repr(inspector).endswith("on pixels at 64 px, not fitted>")
    inspector.fit([part(seed=i) for i in range(6)])
    assert repr(inspector).endswith("on pixels at 64 px, fitted on 6 images>")
    found = repr(inspector.inspect(part(seed=51, defective=True)))
    numbers = r"score \S+, threshold \S+, p-value \S+, 1 region"
    assert re.fullmatch(rf"<Prediction defective: {numbers}, map \(64, 80\), source 'array'>", found)


def test_the_overlay_of_a_prediction_is_its_picture_with_the_region_drawn(
    inspector: Inspector, part: Draw, tmp_path: Path
) -> None:
    image = part(seed=51, defective=True)
    prediction = inspector.inspect(image)
    drawn = overlay(image, prediction)
    assert (drawn.shape, drawn.dtype) == (image.shape, np.uint8)
    assert (drawn[28:40, 32:44] != image[28:40, 32:44]).any()
    assert np.array_equal(drawn, draw_overlay(image, prediction))
    Image.fromarray(image).save(tmp_path / "part.png")
    assert np.array_equal(overlay(tmp_path / "part.png", prediction), drawn)
    assert np.array_equal(overlay(Image.fromarray(image), prediction), drawn)


def test_nothing_works_before_learning(toy: str, part: Draw, tmp_path: Path) -> None:
    for act in (
        lambda i: i.inspect(part()),
        lambda i: i.inspect_many([part()]),
        lambda i: i.save(tmp_path / "m"),
        lambda i: i.calibrate([part()]),
    ):
        with pytest.raises(NotFittedError, match="fit"):
            act(fresh(toy))


def test_only_good_images_are_learned(toy: str, part: Draw, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="good pictures"):
        fresh(toy).fit([Sample(part(), label=1)])
    with pytest.raises(DatasetError):
        fresh(toy).fit(tmp_path)
    with pytest.raises(DatasetError):
        fresh(toy).fit([])
    with pytest.raises(ImageError):
        fresh(toy).fit([np.zeros((5, 5, 7), np.uint8)])


def test_too_few_images_are_said_so(toy: str, part: Draw) -> None:
    with pytest.raises(DatasetError, match="at least 5"):
        fresh(toy, images=5).fit([part(seed=i) for i in range(3)])
    fresh(toy, images=5).fit([part(seed=i) for i in range(5)])  # none to spare for folds: copies instead


def test_an_interrupted_fit_changes_nothing(inspector: Inspector, part: Draw) -> None:
    before = inspector.inspect(part(seed=5))

    def interrupt(done: int, total: int, facts: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inspector.fit([part("ring", seed=i) for i in range(3)], progress=interrupt)
    assert same(inspector.inspect(part(seed=5)), before)


def test_an_image_given_twice_counts_once(toy: str, part: Draw) -> None:
    images = [part(seed=i) for i in range(4)]
    once, twice = fresh(toy).fit(images), fresh(toy).fit(images * 2)
    assert twice.calibrations[None].source.images == 4
    assert same(once.inspect(part(seed=70)), twice.inspect(part(seed=70)))


def test_a_broken_good_image_is_named(toy: str, part: Draw, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match=r"empty\.png"):
        fresh(toy).fit([part(), tmp_path / "empty.png"])


def test_progress_is_reported(toy: str, part: Draw) -> None:
    calls: list[tuple[int, int]] = []
    fresh(toy).fit([part(seed=i) for i in range(3)], progress=lambda done, total, facts: calls.append((done, total)))
    assert calls
    assert all(0 < done <= total for done, total in calls)


def test_another_encoder_is_refused(inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = inspector.save(tmp_path / "m")
    encoder = inspector.encoder_
    monkeypatch.setattr(encoder, "weights_sha256", "0" * 64)
    with pytest.raises(WeightsError, match="learned with"):
        Inspector.load(folder, device="cpu", encoder=encoder)


def test_a_model_of_an_unknown_detector_is_refused(inspector: Inspector, tmp_path: Path) -> None:
    from blemish import registry

    folder = inspector.save(tmp_path / "m")
    del registry.DETECTORS["toy"]
    with pytest.raises(SettingsError, match="toy"):
        Inspector.load(folder, device="cpu")


def test_settings_hold_no_paths_and_no_secrets(inspector: Inspector, tmp_path: Path) -> None:
    folder = inspector.save(tmp_path / "m")
    text = (folder / "settings.json").read_text() + (folder / "calibration.json").read_text()
    assert str(tmp_path) not in text
    assert json.loads((folder / "calibration.json").read_text())["categories"][0]["source"]["images"] == 6


def test_scores_that_are_not_finite_are_refused(inspector: Inspector, part: Draw, tmp_path: Path) -> None:
    inspector.detector_.mean_[0] = float("nan")  # type: ignore[attr-defined]
    with pytest.raises(WeightsError, match="finite"):
        inspector.inspect(part())


def test_a_model_without_a_part_is_a_model_error(inspector: Inspector, tmp_path: Path) -> None:
    from blemish.model.model_folder import SavedModel, load_model, save_model

    whole = load_model(inspector.save(tmp_path / "m"))
    tensors = {k: v for k, v in whole.tensors.items() if not k.startswith("detector.")}
    save_model(tmp_path / "m", SavedModel(whole.settings, tensors, whole.calibration, whole.thumbnails))
    with pytest.raises(ModelError):
        Inspector.load(tmp_path / "m", device="cpu")
