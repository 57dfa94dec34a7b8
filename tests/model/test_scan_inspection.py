"""Images with measured points through the whole program, over stand-ins small enough to read."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
import pytest
import torch
from PIL import Image

from blemish import Failure, Inspector, Prediction, Sample, Scan, registry
from blemish.augmentation.perturb import slight_copies
from blemish.cli.summaries import model_in_words
from blemish.data.samples import as_rgb, load_sample
from blemish.data.scans import load_scan
from blemish.detectors.base import Explains, Needs, Progress
from blemish.detectors.settings import Configurable, Count
from blemish.encoders import build
from blemish.errors import DatasetError, DataWarning, ImageError, SettingsError
from blemish.evaluation import CategoryData, Run, evaluate_run
from blemish.model.feature_loader import FeatureLoader
from blemish.model.held_out_scores import UNIMODAL_SCANS
from blemish.preprocessing.framing import FRAMINGS, Frame
from blemish.scoring.describe import modalities_in_words, region_in_words
from blemish.types import POINTS, RGB, Batch, Features, PatchScores, Prompts, Region

SIDE = 64


class Slopes:
    """Points → mean and spread of the heights in each cell."""

    name, modalities, dims, licence, weights_sha256 = "slopes", (POINTS,), (2,), "none needed", "0"

    def __init__(self, stride: int) -> None:
        self.stride = stride

    def encode_points(self, points: np.ndarray) -> Features:
        count, height, width, _ = points.shape
        cells = 100 * (points[..., 2] - 0.5).reshape(
            count, height // self.stride, self.stride, width // self.stride, -1
        )
        known = np.isfinite(cells)
        there = known.sum(axis=(2, 4))
        mean = np.nansum(cells, axis=(2, 4)) / there.clip(1)
        spread = np.sqrt(np.nansum((cells - mean[:, :, None, :, None]) ** 2, axis=(2, 4)) / there.clip(1))
        layer = torch.from_numpy(np.stack([mean, spread], axis=-1).astype(np.float32))
        return Features({POINTS: (layer,)}, valid={POINTS: torch.from_numpy(there > 0)})


@dataclass(kw_only=True, eq=False, repr=False)
class NearestMeans(Configurable):
    """Distance of every patch to the mean patch of the normal images, and of the normal points; they add up."""

    image_size: Count = SIDE
    made_up: bool = False
    text: str | None = None

    @property
    def needs(self) -> Needs:
        return Needs(
            modalities=(RGB, POINTS),
            prompts=self.text,  # type: ignore[arg-type]
            points_stride=4,
            rotations=8,
            augmentation=self.made_up,
            synthetic_anomalies=self.made_up,
            image_size=self.image_size,
            framing="scan",
            pooling="top:4",
        )

    def fit(self, batches: Iterable[Batch], progress: Progress | None = None) -> Self:
        seen = list(batches)
        self.means_ = {m: torch.cat([b.features[m].flatten(0, 2) for b in seen]).mean(0) for m in (RGB, POINTS)}
        self.spreads_ = {m: torch.cat([b.features[m].flatten(0, 2) for b in seen]).std(0) + 0.05 for m in (RGB, POINTS)}
        if self.text:
            assert seen[0].prompts is not None
            self.means_["text"] = seen[0].prompts[(seen[0].features.categories or ("",))[0]].normal.mean(0)
        return self

    def explain(self, features: Features) -> Mapping[str, torch.Tensor]:
        far = {m: ((features[m] - self.means_[m]) / self.spreads_[m]).square().mean(-1) for m in (RGB, POINTS)}
        return {m: values * features.valid[m] for m, values in far.items()}

    def score(self, features: Features) -> PatchScores:
        return PatchScores(torch.stack(list(self.explain(features).values())).sum(0))

    def state(self) -> dict[str, torch.Tensor]:
        means = {f"mean.{m}": t for m, t in self.means_.items()}
        return means | {f"spread.{m}": t for m, t in self.spreads_.items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> Self:
        self.means_ = {name[5:]: t for name, t in state.items() if name.startswith("mean.")}
        self.spreads_ = {name[7:]: t for name, t in state.items() if name.startswith("spread.")}
        return self


class WholeScan:
    """A framing that takes a scan as it is."""

    poses = None

    def __init__(self, image_size: int = SIDE, multiple: int = 8, square: bool = False) -> None:
        self.settings = {"image_size": image_size, "multiple": multiple}

    def fit(self, images: Iterable[np.ndarray]) -> Self:
        return self

    def frame(self, image: Scan) -> Frame:
        return Frame(image, image.shape)

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def load_state(self, state: Mapping[str, np.ndarray]) -> Self:
        return self


def module(name: str, **members: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(members)
    return made


def defective_scan(scan: Scan, rng: np.random.Generator) -> tuple[Scan, np.ndarray]:
    mask = np.zeros(scan.shape, bool)
    mask[8:16, 8:16] = True
    return scan.map(rgb=lambda rgb: rgb, xyz=lambda xyz: xyz + np.float32(0.1) * mask[..., None]), mask


class Reader:
    """A text encoder: a sentence is its length and its number of spaces."""

    name = "reader"

    def embed(self, sentences: Iterable[str]) -> torch.Tensor:
        return torch.tensor([[float(len(one)), float(one.count(" "))] for one in sentences])


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"scans:slopes": lambda name, *, stride, **_: Slopes(stride), "scans:means": NearestMeans}
    usual = registry.resolve

    def resolve(target: str) -> Any:
        return own.get(target) or (WholeScan if target == "scans:whole" else usual(target))

    for place in ("registry", "encoders.factory", "detectors.factory", "preprocessing.framing"):
        monkeypatch.setattr(f"blemish.{place}.resolve", resolve)
    entry = registry.EncoderEntry("scans:slopes", "none needed", 0, "", modality="points")
    monkeypatch.setitem(registry.ENCODERS, "slopes", entry)
    monkeypatch.setitem(registry.DETECTORS, "means", registry.DetectorEntry("scans:means", "", ""))
    monkeypatch.setitem(FRAMINGS, "scan", "scans:whole")
    for made in (
        module("blemish.augmentation.scan_defects", synthetic_scan_anomaly=defective_scan),
        module("blemish.encoders.text.factory", build=lambda name, device: Reader()),
        module(
            "blemish.encoders.text.prompts",
            prompts_for=lambda name, kind: [f"a {kind} of a {name}"],
            embed_sentences=lambda sentences, encoder: Prompts(encoder.embed(sentences)),
        ),
    ):
        monkeypatch.setitem(sys.modules, made.__name__, made)


def scan_sample(kind: str = "disc", seed: int = 0, defect: str = "") -> Sample:
    """A round or a square part on ground without points; a defect changes its "colour" or its "surface" alone."""
    random = np.random.default_rng((seed, len(kind)))
    y, x = np.mgrid[:SIDE, :SIDE]
    away = np.hypot(y - 32, x - 32) if kind == "disc" else np.maximum(abs(y - 32), abs(x - 32))
    inside = away < 24
    image = np.full((SIDE, SIDE, 3), 90.0)
    image[inside] = (180, 170, 60) if kind == "disc" else (60, 90, 200)
    image += random.normal(0, 4, image.shape)
    height = (0.02 * np.sqrt(np.maximum(0, 1 - (away / 26) ** 2)) if kind == "disc" else 0.01 * (x % 8 < 4)) + 0.5
    height = height + random.normal(0, 0.0005, height.shape)
    place = slice(28, 38), slice(24, 34)
    if defect == "colour":
        image[place] = 5
    if defect == "surface":
        height[place] += 0.03
    points = np.where(inside[..., None], np.stack([x / 1000, y / 1000, height], axis=-1), np.nan)
    return Sample(image.clip(0, 255).astype(np.uint8), points.astype(np.float32), category=kind, defect=defect)


def good(count: int = 6, *kinds: str) -> list[Sample]:
    return [scan_sample(kind, seed) for kind in kinds or ("disc",) for seed in range(count)]


def fresh(**settings: Any) -> Inspector:
    return Inspector(encoder="pixels+slopes", detector="means", device="cpu", **settings)


@pytest.fixture(scope="module")
def kept() -> dict[str, Inspector]:
    return {}  # learned once, read by all tests


@pytest.fixture
def pooled(kept: dict[str, Inspector]) -> Inspector:
    if "pooled" not in kept:
        kept["pooled"] = fresh().fit(good(6, "disc", "block"))
    return kept["pooled"]


def seen(answer: Prediction | Failure) -> Prediction:
    assert isinstance(answer, Prediction)
    return answer


def test_each_modality_finds_its_own_defect_and_says_so(pooled: Inspector) -> None:
    assert pooled.framing == "scan"
    assert pooled.encoder_.stride == 4  # what the detector asked for reached the encoder of points
    assert isinstance(pooled.detector_, Explains)
    assert not pooled.inspect(scan_sample(seed=50)).is_defective
    for defect, modality, words in (("colour", RGB, "mostly colour"), ("surface", POINTS, "mostly the surface")):
        found = pooled.inspect(scan_sample(seed=51, defect=defect))
        assert found.is_defective
        region = found.regions[0]
        left, top, right, bottom = region.box
        assert left < 29 < right
        assert top < 33 < bottom
        assert region.modalities[modality] > 0.5
        assert sum(region.modalities.values()) == pytest.approx(1)
        assert words in region.words
        assert found.to_dict()["regions"][0]["modalities"][modality] > 0.5


def test_a_missing_modality_is_done_without(pooled: Inspector) -> None:
    for kind in ("disc", "block"):
        whole = scan_sample(kind, 60)
        image, points = Sample(whole.image), Sample(None, whole.points)
        for part in (whole, image, points):
            answer = pooled.inspect(part)
            assert answer.category == kind
            assert np.isfinite(answer.map).all()
            assert answer.map.shape == (SIDE, SIDE)
    surface, colour = scan_sample(seed=61, defect="surface"), scan_sample(seed=61, defect="colour")
    # By its points alone the dented part is unlike any disc, which is not good either.
    assert pooled.inspect(Sample(None, surface.points)).verdict == "unknown"
    assert pooled.inspect(Sample(surface.image)).verdict == "good"
    assert pooled.inspect(Sample(colour.image)).verdict == "defective"
    assert pooled.inspect(Sample(None, colour.points)).verdict == "good"
    found = pooled.inspect_many([surface, Sample(None, surface.points), Sample(surface.image)], batch_size=3)
    assert [seen(one).verdict for one in found] == ["defective", "unknown", "good"]


def test_a_scan_ten_times_as_large_is_unknown_and_named(pooled: Inspector) -> None:
    whole = scan_sample(seed=63)
    assert isinstance(whole.points, np.ndarray)
    with pytest.warns(DataWarning, match=r"extends .* mm, good scans .* mm: check its unit and its camera"):
        found = pooled.inspect(replace(whole, points=10 * whole.points, units="m"))
    assert found.verdict == "unknown"


def test_save_and_load_give_bit_identical_answers(pooled: Inspector, tmp_path: Path) -> None:
    back = Inspector.load(pooled.save(tmp_path / "model"), device="cpu")
    surface = scan_sample("block", 62, "surface")
    for part in (surface, Sample(surface.image), Sample(None, surface.points)):
        one, other = pooled.inspect(part), back.inspect(part)
        assert np.array_equal(one.map, other.map)
        assert (one.score, one.category, one.regions) == (other.score, other.category, other.regions)
    assert back.encoder_name == "pixels+slopes"


def test_learning_needs_both(tmp_path: Path) -> None:
    whole = good(3)
    with pytest.raises(DatasetError, match=r"points.*4 of 7.*part0\.png"):
        fresh().fit([*whole, *(Sample(Path(f"part{i}.png")) for i in range(4))])
    with pytest.raises(DatasetError, match="picture"):
        fresh().fit([*whole, *(Sample(None, one.points) for one in good(4))])
    with pytest.warns(DataWarning, match=r"part\.png.*no points.*left out"):
        model = fresh().fit([*whole, Sample(Path("part.png"))])
    assert len(model.model_.fingerprints) == 3


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(SettingsError, match="pictures and points"):
        Inspector(encoder="pixels", detector="means", device="cpu").fit(good(3))
    with pytest.raises(SettingsError, match="joined"):
        Inspector(encoder="slopes", detector="means", device="cpu").fit(good(3))
    with pytest.raises(SettingsError, match="pictures alone"):
        Inspector(encoder="pixels+slopes", detector="patchcore", device="cpu").fit(good(3))
    with pytest.raises(SettingsError, match="scan"):
        fresh(framing="plain").fit(good(3))
    with pytest.raises(ImageError, match="neither"):
        Sample(None)


def test_detectors_of_images_ignore_points(toy: str) -> None:
    with_points = Inspector(encoder="pixels", detector=toy, device="cpu").fit(good(3))
    without = Inspector(encoder="pixels", detector=toy, device="cpu").fit(
        [Sample(s.image, category=s.category) for s in good(3)]
    )
    probe = scan_sample(seed=9, defect="colour")
    assert np.array_equal(with_points.inspect(probe).map, without.inspect(probe).map)
    assert not with_points.inspect(probe).regions[0].modalities
    assert "modalities" not in with_points.inspect(probe).to_dict()["regions"][0]
    with pytest.raises(ImageError, match="points alone"):
        with_points.inspect(Sample(None, probe.points))


def test_thresholds_are_renewed_and_learned_scans_left_out(pooled: Inspector, tmp_path: Path) -> None:
    model = Inspector.load(pooled.save(tmp_path / "model"), device="cpu")
    with pytest.raises(DatasetError):
        model.calibrate(good(2, "disc"))
    model.calibrate([scan_sample(seed=90 + i) for i in range(4)])
    assert model.calibrations["disc"].source.added == 4


def test_scans_that_lack_a_modality_have_limits_of_their_own(pooled: Inspector, tmp_path: Path) -> None:
    """Renewed by such scans, and left alone by whole ones."""
    model = Inspector.load(pooled.save(tmp_path / "model"), device="cpu")
    before = pooled.calibrations["disc"]
    assert set(before.unimodal) == {RGB, POINTS}
    assert model.calibrations["disc"].unimodal[POINTS].threshold == before.unimodal[POINTS].threshold
    whole = scan_sample(seed=60)
    for part, own in (
        (whole, before),
        (Sample(whole.image, category="disc"), before.unimodal[RGB]),
        (Sample(None, whole.points, category="disc"), before.unimodal[POINTS]),
    ):
        answer = model.inspect(part, "disc")
        assert answer.threshold == own.threshold
        assert answer.p_value == own.p_value(answer.score)
    assert before.unimodal[RGB].threshold < before.threshold  # points do not add to it
    model.calibrate([Sample(scan_sample(seed=90 + i).image, category="disc") for i in range(4)])
    after = model.calibrations["disc"]
    assert (after.threshold, after.unimodal[RGB].source.added) == (before.threshold, 4)
    assert after.unimodal[POINTS].threshold == before.unimodal[POINTS].threshold
    model.calibrate([scan_sample(seed=90 + i) for i in range(5)], "disc", false_alarm_rate=0.2)
    assert model.calibrations["disc"].source.added == 5
    assert model.calibrations["disc"].unimodal[RGB].source.added == 4
    assert model.calibrations["disc"].unimodal[RGB].threshold < after.unimodal[RGB].threshold  # at the new rate
    assert model.inspect(Sample(scan_sample(seed=61, defect="colour").image)).is_defective


@pytest.mark.parametrize("count", [3, 12])
def test_limits_of_one_modality_rest_on_few_scans_or_copies_of_them(count: int) -> None:
    model = fresh().fit(good(count))
    found = model.calibrations["disc"]
    assert found.unimodal[RGB].source.held_out == min(count, UNIMODAL_SCANS)
    assert all(np.isfinite(own.scores).all() for own in found.unimodal.values())
    assert model_in_words(model)[-1] == (
        f"disc: Limit {found.unimodal[RGB].threshold:.4g} with the picture alone, "
        f"{found.unimodal[POINTS].threshold:.4g} with the points alone."
    )


def test_every_walk_shows_all_scans_however_their_sizes_differ() -> None:
    """With synthetic anomalies too: detectors that learn in one epoch would miss whole categories."""
    scans, names = [], []
    for index, side in enumerate((32,) * 9 + (40, 48)):
        scans.append(load_scan(scan_sample(seed=index)).crop(slice(side), slice(side)))
        names.append(str(side))
    needs = Needs(modalities=(RGB, POINTS), synthetic_anomalies=True)
    good = FeatureLoader.of(scans, build("pixels+points-shape", points_stride=4), needs, lambda scan: scan, names)
    for _ in range(2):
        batches = list(good)
        assert {name for batch in batches for name in batch.features.categories or ()} == set(names)
        assert all(batch.altered is not None for batch in batches)


def test_a_cache_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    usual = Slopes.encode_points
    monkeypatch.setattr(Slopes, "encode_points", lambda self, p: (calls.append(len(p)), usual(self, p))[1])
    first = fresh().fit(good(6), cache=tmp_path)
    before = sum(calls)
    again = fresh().fit(good(6), cache=tmp_path)
    assert sum(calls) - before == before - 6  # but for changed copies, nothing is encoded a second time
    probe = scan_sample(seed=70, defect="surface")
    assert np.array_equal(first.inspect(probe).map, again.inspect(probe).map)
    plain = fresh().fit(good(6)).inspect(probe)
    assert first.inspect(probe).score == pytest.approx(plain.score, rel=0.02)


def test_cleaning_sees_scans() -> None:
    odd = scan_sample(seed=80, defect="surface")
    inspector = fresh().fit([*good(12), Sample(odd.image, odd.points, category="disc")], clean=True)
    assert len(inspector.model_.fingerprints) >= 12


def test_sentences_reach_the_detector_and_are_saved_by_name(tmp_path: Path) -> None:
    inspector = fresh(text="object").fit(good(3))
    assert inspector.detector_.means_["text"].tolist() == [len("a object of a disc"), 4.0]  # type: ignore[attr-defined]
    folder = inspector.save(tmp_path / "model")
    assert json.loads((folder / "settings.json").read_text())["text_encoder"] == "reader"
    assert Inspector.load(folder, device="cpu").text_encoder == "reader"


def test_batches_of_scans_are_not_turned_and_carry_synthetic_anomalys() -> None:
    needs = NearestMeans(made_up=True).needs
    encoder = build("pixels+slopes", points_stride=4)
    prompts = {"disc": Prompts(torch.ones(1, 2))}
    arrays = [load_sample(sample, needs.modalities) for sample in good(3)]
    images = FeatureLoader.of(arrays, encoder, needs, lambda p: p, ["disc"] * 3, batch_size=3, prompts=prompts)
    (batch,) = images
    assert len(batch.features) == 3
    assert batch.prompts is prompts
    assert batch.altered is not None
    assert batch.altered_mask is not None
    assert batch.altered_mask.float().sum().item() == 3 * 4  # 8 × 8 pixels in cells of 4
    moved = (batch.altered[POINTS] - batch.features[POINTS]).abs().amax(-1) > 1
    assert torch.equal(moved, batch.altered_mask & batch.altered.valid[POINTS])
    assert not batch.features.valid[POINTS].all()
    plain = FeatureLoader.of(arrays, encoder, NearestMeans().needs, lambda p: p, ["disc"] * 3)
    assert [len(b.features) for b in plain] == [3]
    once, again = (next(iter(plain)).features for _ in range(2))
    assert torch.equal(once.valid[POINTS], again.valid[POINTS])


def test_copies_of_scans_move_points_with_their_pixels() -> None:
    scan = load_scan(scan_sample())
    heights = scan.xyz[..., 2]
    for copy in slight_copies(scan, 5, seed=1):
        assert copy.shape == scan.shape
        known = np.isfinite(copy.xyz[..., 2])
        assert 0.85 < known.mean() / np.isfinite(heights).mean() < 1.15
        assert np.array_equal(known, np.isfinite(copy.xyz).all(-1))
        assert np.nanmin(copy.xyz[..., 2]) >= np.nanmin(heights) - 1e-6  # between measured points, never beyond
        assert np.nanmax(copy.xyz[..., 2]) <= np.nanmax(heights) + 1e-6
        part = copy.rgb[..., 2] < 75  # yellow on grey ground: what has a point shows the part
        assert (part == known).mean() > 0.97
    assert slight_copies(scan.only(POINTS), 1, seed=1)[0].rgb is None
    (image,), (copy,) = slight_copies(scan.rgb, 1, seed=1), slight_copies(scan.only(RGB), 1, seed=1)
    assert np.array_equal(copy.rgb, image)


def test_a_moved_ramp_stays_a_ramp() -> None:
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    scan = Scan(np.full((SIDE, SIDE, 3), 90, np.uint8), np.stack([x, y, 2 * x + 3 * y], axis=-1))
    for copy in slight_copies(scan, 3, seed=2):
        px, py, pz = np.moveaxis(copy.xyz, -1, 0)
        known = np.isfinite(pz)
        assert known.mean() > 0.7
        np.testing.assert_allclose(pz[known], (2 * px + 3 * py)[known], rtol=1e-4, atol=1e-3)


def test_a_scan_in_memory_is_inspected_like_its_sample(pooled: Inspector) -> None:
    part = scan_sample("block", 62, "surface")
    scan = load_scan(part)
    one, other = pooled.inspect(part), pooled.inspect(scan)
    assert np.array_equal(one.map, other.map)
    assert (one.score, one.category, one.verdict) == (other.score, other.category, other.verdict)
    for modality, half in ((RGB, Sample(part.image)), (POINTS, Sample(None, part.points))):
        assert pooled.inspect(scan.only(modality)).score == pooled.inspect(half).score


def test_what_people_look_at() -> None:
    part = scan_sample()
    assert as_rgb(load_sample(Sample(part.image))) is part.image
    assert as_rgb(load_sample(Sample(part.image), (RGB, POINTS))) is part.image
    depth = as_rgb(load_sample(Sample(None, part.points), (RGB, POINTS)))
    assert (depth.shape, depth.dtype) == ((SIDE, SIDE, 3), np.uint8)
    assert np.array_equal(depth.any(-1), np.isfinite(part.points).all(-1))


def on_disk(folder: Path, samples: Iterable[Sample]) -> list[Sample]:
    folder.mkdir()
    written = []
    for number, sample in enumerate(samples):
        image, points = folder / f"{number}.png", folder / f"{number}.npy"
        Image.fromarray(np.asarray(sample.image)).save(image)
        np.save(points, np.asarray(sample.points))
        label = int(bool(sample.defect))
        mask = np.zeros((SIDE, SIDE), bool)
        mask[28:38, 24:34] = True
        written.append(Sample(image, points, label, mask if label else None, sample.category, sample.defect))
    return written


def test_evaluation_counts_what_was_recognised(tmp_path: Path) -> None:
    parts = []
    for kind in ("disc", "block"):
        tests = [scan_sample(kind, 40 + i, defect) for i, defect in enumerate(("", "", "colour", "surface"))]
        written = on_disk(tmp_path / kind, [*good(6, kind), *tests])
        parts.append(CategoryData("made", kind, tuple(written[:6]), tuple(written[6:])))
    facts: dict[str, Any] = {"detector": "means", "encoder": "pixels+slopes", "device": "cpu", "pooled": True}
    found = list(evaluate_run(Run(categories=tuple(parts), **facts)))
    assert [detail.recognised_right for detail in found] == [(4, 4), (4, 4)]
    assert all(detail.row["image_auroc"] == 1 for detail in found)
    given = list(evaluate_run(Run(categories=tuple(parts), given_category=True, **facts)))
    assert [detail.recognised_right for detail in given] == [None, None]
    assert [[p.score for p in d.images] for d in given] == [[p.score for p in d.images] for d in found]


def test_an_inspection_shows_the_surface(pooled: Inspector, tmp_path: Path) -> None:
    from blemish.cli.inspection import Job, inspect_into
    from blemish.cli.result_folder import Wanted

    samples = on_disk(tmp_path / "parts", [scan_sample(seed=30), scan_sample(seed=31, defect="surface")])
    points_alone = Sample(None, samples[1].points)
    job = Job(samples=[*samples, points_alone], title="scans", wanted=Wanted(maps=True))
    done = inspect_into(tmp_path / "out", pooled, job)
    assert not done.failures
    assert (done.report.counts["defective"], done.report.counts["unknown"]) == (1, 1)
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert lines[1]["regions"][0]["modalities"]["points"] > 0.5
    assert lines[2]["file"].endswith("1.npy")
    with Image.open(tmp_path / "out" / lines[1]["overlay"]) as beside:
        assert beside.width > 2 * SIDE
    with Image.open(tmp_path / "out" / lines[2]["overlay"]) as alone:
        assert alone.width == SIDE
    report = (tmp_path / "out" / "report.html").read_text()
    assert "measured surface" in report
    assert "mostly the surface" in report


def test_shares_in_words() -> None:
    assert (
        modalities_in_words({RGB: 0.21, POINTS: 0.72, "text": 0.07})
        == "mostly the surface (72 %), colour 21 %, text 7 %"
    )
    assert modalities_in_words({RGB: 0.4, POINTS: 0.35, "text": 0.25}) == "colour 40 %, surface 35 %, text 25 %"
    region = Region((0, 0, 4, 4), 16, 2.0, 1.5, (2, 2), modalities={RGB: 0.9, POINTS: 0.1})
    assert region_in_words(region, (40, 40), 1.0).endswith("; mostly colour (90 %), surface 10 %")


def in_millimetres(sample: Sample, units: str | None = None) -> Sample:
    return replace(sample, points=1000 * np.asarray(sample.points), units=units)


def test_the_unit_of_points_is_stated_once_and_kept_by_the_model(pooled: Inspector, tmp_path: Path) -> None:
    probe = scan_sample(seed=61, defect="surface")
    model = fresh(units="mm").fit([in_millimetres(sample) for sample in good(6, "disc", "block")])
    for own in (model, Inspector.load(model.save(tmp_path / "model"), device="cpu")):
        score = own.inspect(in_millimetres(probe)).score
        assert score == pytest.approx(pooled.inspect(probe).score, rel=1e-3)
        assert own.inspect(replace(probe, units="m")).score == pytest.approx(
            score, rel=1e-3
        )  # a sample's own goes first
    with pytest.raises(ImageError, match=r"looks like millimetres.*--units mm"):
        pooled.inspect(in_millimetres(probe))
    with pytest.raises(ImageError, match="looks like millimetres"):
        fresh().fit([in_millimetres(sample) for sample in good(3)])
    with pytest.raises(SettingsError, match="furlongs"):
        fresh(units="furlongs")


def test_results_of_scans_in_millimetres_show_their_surface(tmp_path: Path) -> None:
    """In the run that inspects them, and in a later one that decodes them for its report alone."""
    from blemish.cli.inspection import Job, inspect_into
    from blemish.cli.result_folder import Origin

    model = fresh(units="mm").fit([in_millimetres(sample) for sample in good(6)])
    parts = on_disk(tmp_path / "parts", [in_millimetres(scan_sample(seed=30 + i, defect="surface")) for i in range(2)])
    for some, skipped in ((parts[:1], 0), (parts, 1)):
        done = inspect_into(tmp_path / "out", model, Job(samples=some, title="scans", origin=Origin(model="0" * 64)))
        assert (done.failures, done.skipped) == (0, skipped)
        assert "measured surface" in (tmp_path / "out" / "report.html").read_text()
