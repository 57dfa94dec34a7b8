"""What a model ignores changes no score, map, verdict or threshold, bit for bit; what it does not ignore does.

Perturbed copies alone move a little of it over the area's edge.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blemish import Inspector, Prediction
from blemish.errors import DatasetError, SettingsError
from blemish.model import held_out_scores
from blemish.model.model_folder import WITH_IGNORED_AREAS, read_settings

CORNER = "0,0,24,20"
HYBRID = {"encoder": "pixels+pixels", "detector": "hybrid", "image_size": 64, "rotations": 2}
METHODS: list[dict[str, Any]] = [
    {"encoder": "pixels", "detector": "toy"},
    {"encoder": "pixels", "detector": "patchcore", "image_size": 64, "reweighting_neighbours": 3},
    {"encoder": "pixels", "detector": "padim", "image_size": 64, "framing": "plain"},
    HYBRID,
]


def scribbled(image: np.ndarray, seed: int = 0) -> np.ndarray:
    """The image with other levels in the corner that is ignored."""
    made = image.copy()
    made[:20, :24] = np.random.default_rng(seed).integers(0, 256, (20, 24, 3))
    return made


def facts(prediction: Prediction) -> dict[str, Any]:
    return prediction.to_dict() | {"seconds": 0, "map": prediction.map.tobytes()}


def calibration_facts(inspector: Inspector) -> list[dict[str, Any]]:
    return [one.to_dict() for one in inspector.calibrations.values()]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method["detector"])
@pytest.mark.parametrize("count", [1, 4])
def test_whatever_lies_in_the_area_changes_nothing(toy: str, part: Any, method: dict[str, Any], count: int) -> None:
    """Neither while fitting (copies of one image, leave-one-out of four) nor while inspecting; elsewhere it does."""
    images = [part(seed=i) for i in range(count)]
    plain = Inspector(device="cpu", **method).fit(images, ignore=CORNER)
    marked = Inspector(device="cpu", **method).fit([scribbled(one, i) for i, one in enumerate(images)], ignore=CORNER)
    if count > 1:
        assert calibration_facts(plain) == calibration_facts(marked)
    else:  # perturbed copies are moved by a little
        thresholds = [one.calibrations[None].threshold for one in (plain, marked)]
        assert thresholds[1] == pytest.approx(thresholds[0], rel=0.01)
    good, bad = part(seed=50), part(seed=51, defective=True)
    for image in (good, bad):
        before, after = plain.inspect(image), plain.inspect(scribbled(image, 9))
        assert facts(before) == facts(after)
        assert marked.inspect(image).score == before.score
        assert not before.map[:20, :24].any()
    assert plain.inspect(bad).score > 2 * plain.inspect(good).score
    judged = Inspector(device="cpu", **method).fit(images)
    assert judged.inspect(scribbled(good)).score > 2 * judged.inspect(good).score
    assert judged.inspect(good).ignored is None


@pytest.mark.parametrize("unlabelled", [False, True])
def test_calibrating_ignores_the_area(toy: str, part: Any, unlabelled: bool) -> None:
    found = []
    for change in (lambda image: image, scribbled):
        inspector = Inspector("pixels", toy, device="cpu").fit([part(seed=i) for i in range(4)], ignore=CORNER)
        more = [change(part(seed=100 + i)) for i in range(12)]
        change_of = inspector.calibrate_unlabelled(more) if unlabelled else inspector.calibrate(more)
        assert sum(change_of.added.values()) == 12
        # Fingerprints are of whole images.
        facts_of = calibration_facts(inspector)
        for one in facts_of:
            one["added"] = [added["score"] for added in one.get("added", ())]
        found.append(facts_of)
    assert found[0] == found[1]


def test_an_image_set_aside_is_so_for_what_is_judged(toy: str, part: Any) -> None:
    images = [part(seed=i) for i in range(8)]
    marked = [*images[:-1], scribbled(images[-1])]
    with_area = Inspector("pixels", toy, device="cpu").fit(marked, clean=True, ignore=CORNER)
    assert not with_area.outliers_
    assert len(Inspector("pixels", toy, device="cpu").fit(marked, clean=True).outliers_) == 1


def test_the_area_is_saved_with_the_model(toy: str, part: Any, tmp_path: Path) -> None:
    images = [part(seed=i) for i in range(4)]
    inspector = Inspector("pixels", toy, device="cpu").fit(images, ignore=CORNER)
    image = scribbled(part(seed=51, defective=True))
    folder = inspector.save(tmp_path / "model")
    back = Inspector.load(folder, device="cpu")
    assert facts(back.inspect(image)) == facts(inspector.inspect(image))
    assert np.array_equal(back.model_.ignored[""], inspector.model_.ignored[""])
    settings = read_settings(folder)
    assert settings["ignored_share"] == {"": pytest.approx(24 * 20 / (64 * 80))}
    assert settings["format_version"] == WITH_IGNORED_AREAS
    # Earlier versions, which would judge all of the image, refuse it; models without an area stay readable by them.
    plain = Inspector("pixels", toy, device="cpu").fit(images).save(tmp_path / "plain")
    assert read_settings(plain)["format_version"] < WITH_IGNORED_AREAS
    assert "ignored_share" not in json.loads((plain / "settings.json").read_text())


def test_what_was_ignored_is_said(toy: str, part: Any) -> None:
    inspector = Inspector("pixels", toy, device="cpu").fit([part(seed=i) for i in range(4)], ignore=CORNER)
    found = inspector.inspect(part(seed=50))
    assert found.ignored is not None
    assert found.to_dict()["ignored_share"] == found.ignored_share == pytest.approx(24 * 20 / (64 * 80))


def test_an_area_that_leaves_nothing_is_refused(toy: str, part: Any) -> None:
    inspector = Inspector("pixels", toy, device="cpu")
    with pytest.raises(DatasetError, match="left to judge"):
        inspector.fit([part(seed=i) for i in range(3)], ignore="0,0,100%,100%")
    with pytest.raises(DatasetError, match="left to judge"):  # of patches nothing is left
        inspector.fit([part(seed=i) for i in range(3)], ignore="0,0,79,63")
    assert not inspector.is_fitted


def test_an_image_that_shows_nothing_judged_is_unknown(toy: str, part: Any) -> None:
    inspector = Inspector("pixels", toy, device="cpu").fit([part(seed=i) for i in range(3)], ignore=CORNER)
    model = inspector.model_
    everything = replace(model, ignored={"": np.ones((64, 80), dtype=bool)})
    found = Inspector.of(everything).inspect(part(seed=50))
    assert found.verdict == "unknown"
    assert found.score == 0
    assert not found.map.any()


@pytest.mark.parametrize("framing", ["plain", "part"])
def test_each_category_has_its_own_area(part: Any, framing: str) -> None:
    """Categories are recognised by the whole image, for what it ignores is not known before."""
    from blemish.types import Sample

    def turned(seed: int, defective: bool = False) -> np.ndarray:
        return np.ascontiguousarray(part(seed=seed, defective=defective)[..., ::-1])

    samples = [Sample(part(seed=i), category="a") for i in range(3)]
    samples += [Sample(turned(i), category="b") for i in range(3)]
    inspector = Inspector("pixels", "patchcore", 64, device="cpu", framing=framing)
    inspector.fit(samples, ignore={"b": CORNER})
    for name, make in (("a", part), ("b", turned)):
        clean, marked = inspector.inspect(make(seed=50)), inspector.inspect(scribbled(make(seed=50)))
        assert clean.category == marked.category == name
        assert (clean.score == marked.score) == (name == "b")
        assert (clean.ignored is None) == (name == "a")
    with pytest.raises(SettingsError, match="a, b; got 'c'"):
        inspector.fit(samples, ignore={"c": CORNER})


def test_with_two_left_out_the_area_is_ignored_as_well(toy: str, part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image that is held out, in whatever way, comes with what of it is ignored."""
    seen = []
    scores_and_peaks = held_out_scores.scores_and_peaks

    def noted(detector: Any, features: Any, input_size: tuple[int, int]) -> Any:
        seen.append(features.ignored is not None)
        return scores_and_peaks(detector, features, input_size)

    monkeypatch.setattr(held_out_scores, "scores_and_peaks", noted)
    Inspector("pixels", toy, device="cpu").fit([part(seed=i) for i in range(4)], ignore=CORNER)
    Inspector("pixels", toy, device="cpu").fit([part(seed=0)], ignore=CORNER)
    assert len(seen) > 6
    assert all(seen)
