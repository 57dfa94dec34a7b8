"""A fitted model as one network: each step against the one that prediction takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from export_parts import SIDE, part
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate

from blemish import Inspector, encoders
from blemish.encoders.composite.two_image import JointEncoder
from blemish.encoders.image.frozen import FrozenEncoder
from blemish.errors import SettingsError
from blemish.export.graph import FrozenGraph, InspectionGraph, JointGraph, pooled_graph, resampling
from blemish.model.prediction import encode_frames
from blemish.numeric.pooling import image_scores
from blemish.scoring.anomaly_map import full_map
from blemish.scoring.detector_scores import detector_scores
from blemish.types import CONTEXT, RGB


def test_its_outputs_are_those_of_the_model(inspector: Inspector) -> None:
    model = inspector.model_
    images = [part(20), part(21, spot=True)]
    graph = InspectionGraph(model, None, (SIDE, SIDE)).eval()
    with torch.inference_mode():
        score, label, anomaly_map, mask, patches, distance = graph(torch.from_numpy(np.stack(images)))
    calibration = model.calibrations[None]
    for row, image in enumerate(images):
        features = encode_frames(model, [model.framing_of(None).frame(image)])[0]
        expected, grid = detector_scores(model.detector, features)
        assert float(score[row]) == pytest.approx(float(expected[0]), rel=1e-5)
        np.testing.assert_allclose(patches[row].numpy(), grid[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            anomaly_map[row].numpy(), full_map(grid[0], (SIDE, SIDE), (SIDE, SIDE)), rtol=1e-4, atol=1e-5
        )
        assert float(distance[row]) == pytest.approx(model.recogniser.recognise(features).distance, rel=1e-4)
        assert bool(label[row]) == (float(expected[0]) > calibration.threshold)
        assert bool(mask[row].any()) == bool((anomaly_map[row] >= calibration.region_threshold).any())
    assert label.tolist() == [False, True]


@pytest.mark.parametrize("grid", [(20, 30), (8, 80), (75, 7)])
@pytest.mark.parametrize("pooling", ["max", "top:0.01", "top:10", "top:0.001,0.003,0.01,0.03"])
def test_images_are_pooled_as_by_numpy(pooling: str, grid: tuple[int, int]) -> None:
    patches = torch.rand(3, *grid, generator=torch.Generator().manual_seed(0)) ** 3
    expected = image_scores(patches.numpy(), pooling)
    np.testing.assert_allclose(pooled_graph(patches, pooling).numpy(), expected, rtol=1e-5)


class SeesAll(nn.Module):
    """Patches of 8 × 8 pixels, each beside the mean of all that the network is shown at once."""

    def forward(self, planes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        own = avg_pool2d(planes, 8)  # (B, 3, h, w)
        all_of_it = planes.mean((2, 3), keepdim=True).expand_as(own)
        fine = torch.cat([own, all_of_it], dim=1).permute(0, 2, 3, 1)  # (B, h, w, 6)
        return fine, avg_pool2d(own, 2).permute(0, 2, 3, 1)


@pytest.mark.parametrize("size", [(32, 336), (400, 48), (64, 96)])
def test_strips_are_encoded_in_the_tiles_of_the_encoder(size: tuple[int, int]) -> None:
    encoder = FrozenEncoder(
        SeesAll(),
        name="all",
        layers=(0, 1),
        stride=8,
        size_multiple=16,
        dims=(6, 3),
        licence="",
        weights_sha256="",
        device="cpu",
        precision="fp32",
    )
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    expected = encoder.encode(images).layers[RGB]
    with torch.inference_mode():
        found = FrozenGraph(encoder)(torch.from_numpy(images)).layers[RGB]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("length", "target"), [(64, 56), (512, 448), (30, 60), (37, 11)])
def test_an_axis_is_resampled_as_by_torch(length: int, target: int) -> None:
    plane = torch.rand(1, 1, length, length, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = interpolate(plane, (target, target), mode="bilinear", antialias=True)[0, 0]
    matrix = resampling(length, target)
    torch.testing.assert_close(matrix.double() @ plane[0, 0] @ matrix.double().T, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(matrix.sum(1), torch.ones(target))


def test_two_encoders_see_what_they_see_joined() -> None:
    joint = encoders.build("pixels+pixels", role=("pair", "deep"))
    assert isinstance(joint, JointEncoder)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    expected = joint.encode(images)
    with torch.inference_mode():
        found = JointGraph(joint, (64, 96))(torch.from_numpy(images))
    for modality in (RGB, CONTEXT):
        for one, other in zip(found.layers[modality], expected.layers[modality], strict=True):
            apart = (one - other).abs()
            assert apart.max() <= 1.01 / 64  # one grey level, where the sum of products lies between two
            assert (apart > 1e-4).float().mean() < 0.02


def test_a_detector_without_a_graph_says_so_at_once(inspector: Inspector) -> None:
    from dataclasses import replace

    class Plain:
        needs = inspector.model_.detector.needs

    model = replace(inspector.model_, detector=Plain())  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="can be exported"):
        InspectionGraph(model, None, (SIDE, SIDE))
