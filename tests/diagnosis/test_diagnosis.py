"""The five signs: each shows on a model built to fail that way, and none on healthy ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np
import pytest
import torch

from blemish import Inspector, Prediction, Region, Sample
from blemish.detectors.base import Needs, Progress
from blemish.detectors.patchcore import PatchCore
from blemish.diagnosis import Diagnosis, InspectedImage, Sign, Thresholds, diagnose
from blemish.diagnosis.domain_gap import PatchEncoder, spot_distances
from blemish.diagnosis.material import Material, collect, spot_where_judged, thinned
from blemish.diagnosis.overfitting import most_alarms_by_chance, overfitting
from blemish.diagnosis.scaling import is_bank, with_fewer_patches
from blemish.encoders.image.pixels import load_pixels
from blemish.errors import DatasetError, NotFittedError, SettingsError
from blemish.scoring.calibration import Calibration
from blemish.scoring.uncalibrated import Uncalibrated
from blemish.types import RGB, Batch, Features, PatchScores

Draw = Any
NAMES = ("identity mapping", "over-fitting", "domain gap", "growth")
PROMPTS = "prompts do not separate"  # not measured of detectors without any


class AutoEncoder:
    """Rebuilds patches from `width` principal components, in steps of `step`, as any network has an error of its own.

    With as many components as channels it is wide open: whatever comes is rebuilt.
    """

    def __init__(self, *, width: int = 2, step: float = 0.2) -> None:
        self.width, self.step = width, step

    @property
    def needs(self) -> Needs:
        return Needs(image_size=64, score_exponent=2)

    @property
    def settings(self) -> dict[str, Any]:
        return {"width": self.width, "step": self.step}

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        patches = torch.cat([batch.features[RGB].flatten(0, 2) for batch in batches])  # (N, D)
        self.mean_ = patches.mean(0)
        self.axes_ = torch.linalg.svd(patches - self.mean_, full_matrices=False)[2][: self.width]  # (width, D)
        return self

    def score(self, features: Features) -> PatchScores:
        centred = features[RGB] - self.mean_
        rebuilt = (centred @ self.axes_.T @ self.axes_ / self.step).round() * self.step
        return PatchScores((centred - rebuilt).square().mean(-1))

    def state(self) -> dict[str, torch.Tensor]:
        return {"mean": self.mean_, "axes": self.axes_}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> Self:
        self.mean_, self.axes_ = state["mean"], state["axes"]
        return self


class Blind:
    """The pixel encoder's shape, filled with noise that depends on nothing but the image's sum."""

    def __init__(self) -> None:
        inner = load_pixels()
        self.name, self.layers, self.dims, self.licence, self.weights_sha256 = "blind", (0,), inner.dims, "", "none"
        self.modalities, self.stride, self.size_multiple = inner.modalities, inner.stride, inner.size_multiple

    def encode(self, images: np.ndarray) -> Features:
        rows = []
        for image in images:
            random = np.random.default_rng(int(image.sum()))
            shape = (image.shape[0] // 8, image.shape[1] // 8, 15)
            rows.append(torch.from_numpy(random.standard_normal(shape).astype(np.float32)))
        return Features({RGB: (torch.stack(rows),)})


def fitted(images: list[np.ndarray], detector: Any = "patchcore", **settings: Any) -> Inspector:
    if isinstance(detector, str):
        settings = {"image_size": 64} | ({} if detector == "hybrid" else {"rotations": 1}) | settings
    return Inspector(encoder=settings.pop("encoder", "pixels"), detector=detector, device="cpu", **settings).fit(images)


def findings(found: Diagnosis) -> dict[str, str]:
    assert tuple(sign.name for sign in found.signs) == (*NAMES, PROMPTS)
    assert found.signs[-1].finding == "not measured"
    return {sign.name: sign.finding for sign in found.signs[:-1]}


def sign(found: Diagnosis, name: str) -> Sign:
    return found.signs[NAMES.index(name)]


def confetti(seed: int) -> np.ndarray:
    """Squares of any colour: no two images are alike, however good."""
    squares = np.random.default_rng(seed).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    return squares.repeat(8, axis=0).repeat(8, axis=1)


@pytest.fixture
def discs(part: Draw) -> list[np.ndarray]:
    return [part(seed=i) for i in range(14)]


@pytest.mark.parametrize("detector", ["patchcore", "closeup", "closeup-vit", AutoEncoder(width=2)])
def test_healthy_models_show_no_sign(discs: list[np.ndarray], detector: Any) -> None:
    found = diagnose(fitted(discs[:8], detector), discs)
    assert set(findings(found).values()) == {"ok"}, found.to_dict()
    assert not found.warnings
    assert all(measure.finding == "ok" for one in found.signs[:-1] for measure in one.measures)


def test_learned_images_alone_serve_as_well(discs: list[np.ndarray]) -> None:
    found = diagnose(fitted(discs[:8]), discs[:8])
    assert set(findings(found).values()) == {"ok"}
    alarms = sign(found, "over-fitting").measures[1]
    assert alarms.value is None
    assert "no new good picture" in alarms.why
    assert any("changed copies" in words for words in found.rests_on)
    assert not any("Give some of those it learned from" in words for words in found.rests_on)


def test_pictures_learned_from_are_asked_for_where_only_new_ones_are_given(discs: list[np.ndarray]) -> None:
    found = diagnose(fitted(discs[:8]), discs[8:])
    assert any("Give some of those it learned from" in words for words in found.rests_on)


def test_a_wide_open_auto_encoder_maps_identically(discs: list[np.ndarray]) -> None:
    found = diagnose(fitted(discs[:8], AutoEncoder(width=15)), discs)
    assert findings(found)["identity mapping"] == "warn"
    assert findings(found)["domain gap"] == findings(found)["growth"] == "ok"
    way = sign(found, "over-fitting").measures[0]
    assert way.value is None  # where defects score like good parts, there is no way to them
    assert any("width" in line for line in sign(found, "identity mapping").advice)
    ((_, faintest),) = sign(found, "identity mapping").shown
    assert faintest.mask is not None
    assert faintest.mask.any()


def test_a_bank_of_two_images_that_no_other_resembles_is_over_fitted() -> None:
    model = fitted(
        [confetti(0), confetti(1)],
        PatchCore(rotations=1, coreset_ratio=1.0, reweighting_neighbours=0, image_size=64, square=False),
    )
    found = diagnose(model, [confetti(i) for i in range(12)])
    assert findings(found)["over-fitting"] == "warn", found.to_dict()
    assert sign(found, "over-fitting").facts["median score, good, learned"] < 0.01
    assert findings(found)["growth"] == "ok"


def test_false_alarms_on_new_good_parts_are_over_fitting(discs: list[np.ndarray]) -> None:
    model = fitted(discs[:8])
    evidence = model.calibrations[None].source
    low = Calibration.of([0.01] * 30, [0.01] * 30, 0.05, evidence)
    model = Inspector.of(replace(model.model_, calibrations={None: low}))
    found = diagnose(model, discs[8:])
    way, alarms = sign(found, "over-fitting").measures
    assert way.value is None
    assert "learned from" in way.why
    assert alarms.finding == "warn"
    assert any("blemish calibrate" in line for line in sign(found, "over-fitting").advice)


def test_defective_alone_is_a_false_alarm(discs: list[np.ndarray]) -> None:
    """An unsure one is left to a person; an unknown image says nothing of the part."""
    model = fitted(discs[:8])
    image, verdicts = discs[9], ("good", "unsure", "defective", "good", "unknown")
    new = [InspectedImage(image, replace(model.inspect(image), verdict=one)) for one in verdicts]  # type: ignore[arg-type]
    material = Material(model, [], new, [], True, [], 0)
    assert overfitting(material, Sign("identity mapping", "", ()), Thresholds()).measures[1].value == 1 / 4


def test_images_of_another_kind_are_a_domain_gap(discs: list[np.ndarray], part: Draw) -> None:
    found = diagnose(fitted(discs[:8]), [*discs[:8], *(part("stripes", seed=i) for i in range(6))])
    assert findings(found) == dict.fromkeys(NAMES, "ok") | {"domain gap": "warn"}
    words, strange = sign(found, "domain gap").shown[0]
    assert "unlike anything" in words
    assert not strange.prediction.is_known
    only = diagnose(fitted(discs[:8]), [part("stripes", seed=i) for i in range(6)])
    assert findings(only)["domain gap"] == "warn"
    assert findings(only)["identity mapping"] == "not measured"


def test_an_encoder_that_sees_nothing_is_a_domain_gap(discs: list[np.ndarray]) -> None:
    found = diagnose(fitted(discs[:8], PatchCore(rotations=1, image_size=64), encoder=Blind()), discs)
    assert findings(found)["domain gap"] == "warn"
    assert sign(found, "domain gap").measures[1].value == pytest.approx(0.5, abs=0.15)


def test_a_bank_that_keeps_everything_grows(discs: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Far smaller than what would slow inspection down, at limits as much smaller."""
    model = fitted(
        discs[:8], PatchCore(rotations=1, coreset_ratio=1.0, max_patches=10**6, reweighting_neighbours=0, image_size=64)
    )
    bank = model.detector_.state()["bank"]
    rows = bank[torch.arange(120_000) % len(bank)]
    model.detector_.load_state({"bank": rows + 0.01 * torch.randn(rows.shape, generator=torch.manual_seed(0))})
    limits = Thresholds(milliseconds=1.0, megabytes=7.0)
    measured = sign(diagnose(model, discs[8:10], thresholds=limits), "growth")
    assert measured.measures[1].finding == "warn"
    assert measured.facts["patches stored"] == 120_000
    assert measured.facts["patches stored for each picture learned"] == 15_000
    assert any("coreset_ratio" in line for line in measured.advice)
    times = [
        float(measured.facts[f"milliseconds in the detector with {share} % of the patches"]) for share in (50, 100)
    ]  # type: ignore[arg-type]
    assert min(times) > 0
    # What follows from times is tested with given ones: a busy machine may disturb any that are measured.
    for spent, finding, power in (([1.0, 2.0, 4.0], "warn", 1.0), ([3.8, 3.9, 4.0], "ok", 0.0365)):
        monkeypatch.setattr("blemish.diagnosis.scaling.detector_milliseconds", lambda *_, spent=spent: spent)
        given = sign(diagnose(model, discs[8:10], thresholds=limits), "growth")
        assert given.measures[0].finding == finding
        assert given.facts["growth of the time with the patches, as a power"] == pytest.approx(power, abs=1e-3)


def test_of_a_detector_that_cannot_be_saved_all_but_growth_is_measured(discs: list[np.ndarray]) -> None:
    class Unsavable(AutoEncoder):
        state = load_state = None  # type: ignore[assignment]

    found = diagnose(fitted(discs[:8], Unsavable()), discs)
    assert findings(found) == dict.fromkeys(NAMES, "ok") | {"growth": "not measured"}
    assert all("no state()" in measure.why for measure in sign(found, "growth").measures)


@pytest.mark.parametrize("images", [0, 4])
def test_a_model_without_a_single_score_is_measured_in_numbers(discs: list[np.ndarray], images: int) -> None:
    """As one made from a product's name: how good parts score, the new ones say."""
    model = fitted(discs[:8]).model_
    nothing = Uncalibrated.at_rates(0.05, None, 1)
    unseen = replace(model, calibrations={None: nothing}, fingerprints=frozenset())
    found = diagnose(Inspector.of(unseen), discs[8 : 8 + images])
    json.dumps(found.to_dict(), allow_nan=False)
    if images:
        assert np.median(found.scores["good, not learned"]) == pytest.approx(1.0)


def test_without_images_only_growth_is_measured(discs: list[np.ndarray]) -> None:
    found = diagnose(fitted(discs[:8]))
    assert findings(found) == dict.fromkeys(NAMES, "not measured") | {"growth": "ok"}
    assert any("give good pictures" in words for words in found.rests_on)
    assert all(m.why for one in found.signs for m in one.measures if m.value is None)


def test_one_image_is_enough_for_an_answer(discs: list[np.ndarray]) -> None:
    found = diagnose(fitted(discs[:1]), discs[:1])
    assert findings(found)["identity mapping"] == findings(found)["domain gap"] == "ok"
    assert findings(found)["over-fitting"] == "not measured"


def test_several_categories_are_measured_together(part: Draw) -> None:
    images = [Sample(part(kind, seed=i), category=kind) for kind in ("disc", "ring") for i in range(6)]
    model = fitted(images)  # type: ignore[arg-type]
    found = diagnose(model, [*images, *(part(kind, seed=i) for kind in ("disc", "ring") for i in range(20, 24))])
    assert set(findings(found).values()) == {"ok"}, found.to_dict()
    assert len(found.scores["good, learned"]) == 12
    assert np.allclose(found.scores["good, not learned"], 1, atol=0.5)  # each against its own category


def test_the_same_seed_gives_the_same_answer_ready_for_json(discs: list[np.ndarray]) -> None:
    model = fitted(discs[:6])
    one, other = (diagnose(model, discs[:10], seed=3).to_dict() for _ in range(2))
    assert one["signs"][:3] == other["signs"][:3]
    assert json.loads(json.dumps(one, allow_nan=False)) == one


def test_progress_is_told(discs: list[np.ndarray]) -> None:
    told: list[tuple[int, int]] = []
    diagnose(fitted(discs[:6]), discs[:8], progress=lambda done, total, facts: told.append((done, total)))
    assert told
    assert all(0 < done <= total for done, total in told)


def test_a_broken_image_is_named_and_the_others_serve(discs: list[np.ndarray], tmp_path: Any) -> None:
    (tmp_path / "broken.png").write_bytes(b"none")
    found = diagnose(fitted(discs[:6]), [tmp_path / "broken.png", *discs[6:9]])
    assert "broken.png" in found.failures[0][0]
    assert findings(found)["identity mapping"] == "ok"


def test_what_cannot_be_is_refused(discs: list[np.ndarray], tmp_path: Any) -> None:
    model = fitted(discs[:3])
    with pytest.raises(DatasetError):
        diagnose(model, [Sample(discs[0], label=1)])
    with pytest.raises(DatasetError):
        diagnose(model, tmp_path)
    with pytest.raises(SettingsError, match="category"):
        diagnose(model, discs, category="bolt")
    with pytest.raises(NotFittedError):
        diagnose(Inspector(encoder="pixels", detector="patchcore"), discs)


@pytest.mark.parametrize(("count", "most"), [(0, 0), (1, 1), (2, 1), (20, 4), (100, 11)])
def test_more_false_alarms_than_chance(count: int, most: int) -> None:
    from scipy.stats import binom

    assert most_alarms_by_chance(count, 0.05) == most
    assert count == 0 or binom.sf(most, count, 0.05) < 0.01


def test_banks_are_found_in_any_detector(discs: list[np.ndarray]) -> None:
    assert [is_bank(n) for n in ("bank", "bank/disc", "local.bank/a.b", "scale", "loss", "banks", "bank.x")] == [
        *[True] * 3,
        *[False] * 4,
    ]
    model = fitted(discs[:4], "hybrid", encoder="pixels+pixels", image_size=96)
    whole, half = model.detector_.state(), with_fewer_patches(model.detector_, 0.5).state()
    for name in whole:
        assert len(half[name]) == (round(len(whole[name]) / 2) if is_bank(name) else len(whole[name]))


def test_spots_lie_where_the_model_judges(discs: list[np.ndarray]) -> None:
    """The left half, up to the middle of the discs, is ignored."""
    inspector = Inspector("pixels", "patchcore", image_size=64, rotations=1, device="cpu")
    inspector.fit(discs[:8], ignore="0,0,40,64")
    material = collect(inspector, discs, None, seed=0, progress=None)
    assert len(material.pairs) == 6
    for untouched, altered in material.pairs:
        assert altered.mask is not None
        assert altered.mask.any()
        assert not altered.mask[:, :40].any()
        assert (altered.image != untouched.image)[altered.mask].any()
        assert np.array_equal(altered.image[~altered.mask], untouched.image[~altered.mask])
    for one in spot_distances(material, None, [good for good, _ in material.pairs]):
        assert one.image.mask is not None
        assert not one.image.mask[:, :40].any()


def test_no_spot_is_made_where_nothing_of_the_part_is_judged(part: Draw) -> None:
    area = np.zeros((64, 80), bool)
    area[:, 8:72] = True  # all of the disc
    for seed in range(5):
        _, mask = spot_where_judged(part(seed=seed), area, np.random.default_rng(seed))
        assert mask.any()
        assert not mask[area].any()


def test_the_encoder_is_judged_by_the_patches_that_the_model_judges(discs: list[np.ndarray]) -> None:
    inspector = Inspector("pixels", "patchcore", image_size=64, rotations=1, device="cpu")
    inspector.fit(discs[:8], ignore="0,0,40,64")
    patches, whole = PatchEncoder.of(inspector.model_, None), PatchEncoder.of(fitted(discs[:8]).model_, None)
    scribbled, mask = discs[9].copy(), np.zeros((64, 80), bool)
    scribbled[:, :40] = np.random.default_rng(0).integers(0, 256, (64, 40, 3))
    mask[24:40, 50:66] = True
    assert 0 < len(patches.encode(discs[9])) < len(whole.encode(discs[9]))
    assert torch.equal(patches.encode(scribbled), patches.encode(discs[9]))
    assert torch.equal(patches.under(scribbled, mask), patches.under(discs[9], mask))
    assert 0 < len(patches.under(discs[9], mask)) < len(patches.encode(discs[9]))


def test_huge_images_are_kept_in_small(discs: list[np.ndarray], part: Draw) -> None:
    region = Region((100, 201, 300, 401), 8000, 1, 1, (200, 300))
    scores = np.zeros((2000, 1600), np.float32)
    prediction = Prediction(1, 0.1, 0.5, "defective", scores, (region,))
    seen = InspectedImage(np.zeros((2000, 1600, 3), np.uint8), prediction, np.ones((2000, 1600), bool))
    small = thinned(seen)
    assert small.mask is not None
    assert small.image.shape[:2] == small.mask.shape == small.prediction.map.shape == (1000, 800)
    assert small.prediction.regions == (Region((50, 100, 150, 201), 2000, 1, 1, (100, 150)),)
    assert thinned(small) is small
    model = fitted(
        [part(seed=i, size=(1540, 160)) for i in range(3)], PatchCore(rotations=1, image_size=64, square=True)
    )
    found = diagnose(model, [part(seed=i, size=(1540, 160)) for i in range(4)])
    assert findings(found)["identity mapping"] == findings(found)["domain gap"] == "ok"
