"""The generated scans: what depends on what, which modality a defect shows in, exact masks, and the files."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.ndimage import binary_dilation

from blemish.errors import DatasetError, OutputError, SettingsError
from blemish.research.synthetic_scans import (
    BOTH,
    CLASSES,
    COLOUR,
    GEOMETRY,
    KINDS,
    ScanSetSpec,
    ScanSpec,
    read_scan,
    render_scan,
    scan_set,
    write_scans,
)
from blemish.research.synthetic_scans.defects import MAX_SHARE, MIN_SHARE, VISIBLE_HEIGHT, Footprint
from blemish.research.synthetic_scans.fields import Noise, box
from blemish.research.synthetic_scans.scans import VISIBLE_LEVELS
from blemish.research.synthetic_scans.scene import Rendering
from blemish.research.synthetic_scans.sensor import DEPTH_STEP
from blemish.types import Sample

SIZE = 64
FEW = {"seed": 3, "size": SIZE, "train": 2, "good": 1, "defective": 1}


def defective(name: str, kind: str, number: int = 0, size: int = SIZE) -> ScanSpec:
    return ScanSpec(5, name, "test", kind, number, size)


def undamaged(spec: ScanSpec) -> Sample:
    """The same part under the same light, seen by the same draw of the sensor, without the defect."""
    sensor, rendering = spec.sensor(), Rendering(spec.scene(), spec.size)
    light, glare = rendering.image(rendering.intact, rendering.intact)
    return Sample(sensor.image(light), sensor.points(rendering.intact.height, glare))


@pytest.fixture(scope="module")
def pairs() -> dict[tuple[str, str], tuple[Sample, Sample]]:
    """A defective scan of each class and kind, and the same part undamaged."""
    specs = [defective(name, kind) for name in CLASSES for kind in KINDS]
    return {(spec.category, spec.kind): (render_scan(spec), undamaged(spec)) for spec in specs}


def test_kinds_are_told_apart_by_modality(pairs: dict[tuple[str, str], tuple[Sample, Sample]]) -> None:
    assert set(GEOMETRY) | set(COLOUR) | set(BOTH) == set(KINDS)
    for (_, kind), (damaged, sound) in pairs.items():
        same_image = np.array_equal(damaged.image, sound.image)
        same_points = np.array_equal(damaged.points, sound.points, equal_nan=True)
        assert (same_image, same_points) == (kind in GEOMETRY, kind in COLOUR), kind


def test_masks_are_what_a_comparison_with_the_undamaged_part_finds(
    pairs: dict[tuple[str, str], tuple[Sample, Sample]],
) -> None:
    for key, (damaged, sound) in pairs.items():
        mask = np.asarray(damaged.mask)
        assert mask.any(), key
        images = [np.asarray(sample.image, np.float64) for sample in (damaged, sound)]
        levels = np.abs(images[0] - images[1]).max(-1)
        moved = 1000 * np.abs(np.asarray(damaged.points)[..., 2] - np.asarray(sound.points)[..., 2])  # NaN in holes
        clipped = np.maximum(*images).max(-1) >= 255
        assert not (levels[~mask] > VISIBLE_LEVELS + 1).any(), key
        assert not (moved[~mask] > VISIBLE_HEIGHT + DEPTH_STEP).any(), key
        shown = (levels >= VISIBLE_LEVELS - 1) | (moved >= VISIBLE_HEIGHT - DEPTH_STEP) | np.isnan(moved) | clipped
        assert shown[mask].all(), key


def test_defects_lie_on_the_part_and_are_neither_specks_nor_everything(
    pairs: dict[tuple[str, str], tuple[Sample, Sample]],
) -> None:
    shares = []
    for (name, kind), (damaged, _) in pairs.items():
        spec = defective(name, kind)
        scene = spec.scene()
        inside = Rendering(scene, SIZE).intact.part.inside.reshape(SIZE, 2, SIZE, 2).any((1, 3))
        assert not (np.asarray(damaged.mask) & ~binary_dilation(inside, iterations=2)).any(), (name, kind)
        shares.append(Footprint.of(scene.part).share(spec.defect(scene)))
    assert min(shares) >= 0.8 * MIN_SHARE
    assert max(shares) <= 1.2 * MAX_SHARE
    assert np.percentile(shares, 90) > 4 * np.percentile(shares, 10)  # severity varies


def test_a_scan_depends_on_its_place_alone() -> None:
    names = ("rope", "cap")
    more = FEW | {"train": 3, "good": 2, "defective": 2, "validation": 1}
    small, large = scan_set(names, **FEW), scan_set(["rope", "bread", "cap"], **more)
    assert list(small) == ["cap", "rope"]
    assert list(large) == ["bread", "cap", "rope"]
    for name in names:
        assert same(small[name].train[1], large[name].train[1])
        assert same(small[name].good[0], large[name].good[0])
        bad = {sample.defect: sample for sample in reversed(large[name].defective)}  # the first of each kind
        assert all(same(sample, bad[sample.defect]) for sample in small[name].defective)
    everything = [s for c in large.values() for s in (*c.train, *c.validation, *c.test)]
    assert len(everything) == 3 * (3 + 1 + 2 + 2 * len(KINDS))
    assert len({np.asarray(sample.image).tobytes() for sample in everything}) == len(everything)
    other = render_scan(ScanSpec(4, "cap", "train", "good", 1, SIZE))
    assert not same(other, small["cap"].train[1])


def same(one: Sample, other: Sample) -> bool:
    masks = (one.mask is None) == (other.mask is None) and (one.mask is None or np.array_equal(one.mask, other.mask))
    points = np.array_equal(one.points, other.points, equal_nan=True)
    return masks and points and np.array_equal(one.image, other.image)


@pytest.mark.parametrize("name", CLASSES)
def test_a_scene_is_the_same_at_every_size(name: str) -> None:
    spec = defective(name, "contamination")
    small, large = render_scan(spec), render_scan(replace(spec, size=192))
    shrunk = np.asarray(large.image, np.float64).reshape(64, 3, 64, 3, 3).mean((1, 3))
    assert np.abs(shrunk - np.asarray(small.image)).mean() < 5
    assert 5 < np.asarray(large.mask).sum() / np.asarray(small.mask).sum() < 11  # 9, but for the rim
    depth = [np.nanmin(np.asarray(sample.points)[..., 2]) for sample in (small, large)]
    assert abs(depth[0] - depth[1]) < 2e-3


@pytest.mark.parametrize("name", CLASSES)
def test_a_pixel_mean_is_useless(name: str) -> None:
    """Parts turn, shift and differ: over good scans a pixel varies as much as the image itself does."""
    specs = [ScanSpec(0, name, "train", "good", number, SIZE) for number in range(10)]
    images = np.stack([np.asarray(render_scan(spec).image, np.float64) for spec in specs])  # (10, H, W, 3)
    inner = images[:, 16:48, 16:48]
    assert inner.std(0).mean() > 0.6 * inner.std((1, 2)).mean()
    assert inner.std(0).mean() > 15


@pytest.mark.parametrize("name", CLASSES)
def test_points_lie_on_the_rays_of_a_pinhole_in_metres(name: str) -> None:
    points = np.asarray(render_scan(ScanSpec(0, name, "train", "good", 0, SIZE)).points)
    known = np.isfinite(points).all(-1)
    assert points.dtype == np.float32
    assert 0.002 < 1 - known.mean() < 0.2  # something is missing, not everything
    assert np.array_equal(known, np.isfinite(points).any(-1))
    x, y, z = (points[..., axis] for axis in range(3))
    assert 0.40 < np.nanmin(z) < np.nanmax(z) < 0.46
    columns, rows = np.nanmedian(x / z, axis=0), np.nanmedian(y / z, axis=1)
    assert np.nanmax(np.abs(x / z - columns)) < 1e-6
    assert np.nanmax(np.abs(y / z - rows[:, None])) < 1e-6
    assert (np.diff(columns) > 0).all()
    assert (np.diff(rows) > 0).all()


def test_good_parts_beneath_defects_are_drawn_like_all_good_ones() -> None:
    """By the ground's brightness and the part's height, the two groups do not differ more than chance allows."""

    def facts(specs: Iterator[ScanSpec]) -> np.ndarray:
        renderings = [Rendering(spec.scene(), SIZE) for spec in specs]
        return np.array(
            [[r.ground.colour.mean(), r.intact.height.max(), r.intact.part.inside.mean()] for r in renderings]
        )

    good = facts(ScanSpec(0, "gear", "test", "good", i, SIZE) for i in range(30))
    bad = facts(defective("gear", kind, i) for kind in ("dent", "stain", "crack") for i in range(10))
    spread = np.sqrt((good.var(0) + bad.var(0)) / 30)
    assert (np.abs(good.mean(0) - bad.mean(0)) < 4 * spread).all()


def test_noise_is_smooth_and_about_standard_normal() -> None:
    x, y = (axis.astype(np.float32) for axis in np.meshgrid(np.linspace(-60, 60, 1200), np.linspace(-5, 5, 100)))
    field = Noise(np.random.default_rng(0), 3.0)(x, y)
    assert field.dtype == np.float32
    assert abs(field.mean()) < 0.2
    assert 0.6 < field.std() < 1.4
    assert np.abs(np.diff(field, axis=1)).max() < 1.0


def test_the_distance_from_a_box_is_that_of_its_sides_and_corners() -> None:
    x, y = np.array([0.0, 5.0, 6.0]), np.array([0.0, 0.0, 6.0])
    assert np.allclose(box(x, y, 3, 2), [-2, 2, 5])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"classes": 0}, "classes .* from 1 to 10"),
        ({"classes": 11}, "classes .* from 1 to 10"),
        ({"size": 63}, "size .* from 64 to 800"),
        ({"size": 801}, "size .* from 64 to 800"),
        ({"seed": -1}, "seed"),
        ({"train": 0}, "train"),
        ({"validation": -1}, "validation"),
        ({"good": 0}, "good"),
        ({"defective": 0}, "defective"),
        ({"size": 100.0}, "whole number"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, int], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        ScanSetSpec(**wrong)


@pytest.mark.parametrize("names", [("cup",), (), ("cap", "cup")])
def test_unknown_classes_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match="washer"):
        scan_set(names, **FEW)


def test_files_lie_as_in_mvtec_3d(tmp_path: Path) -> None:
    plan = ScanSetSpec(classes=2, seed=3, size=SIZE, train=2, validation=1, good=1, defective=1)
    told: list[tuple[int, int]] = []
    folder = write_scans(tmp_path / "set", plan, progress=lambda done, total, facts: told.append((done, total)))
    specs = plan.scans()
    assert told[-1] == (len(specs), len(specs))
    assert sorted(path.name for path in folder.iterdir()) == sorted(plan.names)
    places = {str(path.relative_to(folder / "washer")) for path in (folder / "washer").rglob("*.*")}
    assert {"train/good/rgb/001.png", "train/good/xyz/001.tiff", "validation/good/xyz/000.tiff"} <= places
    assert {"test/good/gt/000.png", "test/dent/rgb/000.png", "test/crack/gt/000.png"} <= places
    assert len(places) == 2 * 3 + 3 * (1 + len(KINDS))
    for spec in specs:
        sample, read = render_scan(spec), read_scan(folder, spec)
        assert same(sample, read)
        assert (sample.label, sample.defect, sample.split, sample.category) == (
            read.label,
            read.defect,
            read.split,
            read.category,
        )
        kind = folder / spec.category / spec.split / spec.kind
        stored = tifffile.imread(kind / "xyz" / f"{spec.number:03}.tiff")
        assert stored.dtype == np.float32
        assert stored.shape == (SIZE, SIZE, 3)
        assert np.array_equal((stored == 0).all(-1), np.isnan(np.asarray(sample.points)).all(-1))
        if spec.split == "test":
            with Image.open(kind / "gt" / "000.png") as mask:
                assert set(np.unique(np.asarray(mask)).tolist()) == ({0} if spec.kind == "good" else {0, 255})


def test_two_processes_write_what_one_does(tmp_path: Path) -> None:
    plan = ScanSetSpec(classes=1, size=SIZE, train=2, validation=0, good=1, defective=1)
    one, two = (write_scans(tmp_path / str(workers), plan, workers) for workers in (1, 2))
    files = sorted(path.relative_to(one) for path in one.rglob("*.*"))
    assert files == sorted(path.relative_to(two) for path in two.rglob("*.*"))
    assert all(same(read_scan(one, spec), read_scan(two, spec)) for spec in plan.scans())


def test_a_worker_that_is_ended_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    def end_one(done: int, total: int, numbers: object) -> None:
        multiprocessing.active_children()[0].kill()

    plan = ScanSetSpec(classes=1, size=64, train=30, validation=0, good=2, defective=1)
    with pytest.raises(OutputError, match="fewer workers"):
        write_scans(tmp_path / "scans", plan, workers=2, progress=end_one)


def test_a_full_folder_and_no_worker_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="worker"):
        write_scans(tmp_path, ScanSetSpec(), workers=0)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="empty folder"):
        write_scans(tmp_path, ScanSetSpec())
    with pytest.raises(DatasetError, match=r"empty folder; got the file .*notes\.txt"):
        write_scans(tmp_path / "notes.txt", ScanSetSpec())
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
