"""An image encoder and a points encoder behind one promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from blemish.encoders import build
from blemish.encoders.base import Encoder
from blemish.encoders.composite.rgb_and_points import ScanEncoder, resized
from blemish.encoders.identity import feature_settings, identity
from blemish.errors import SettingsError
from blemish.types import POINTS, RGB, Features, Scan


class Heights:
    """A points encoder: the mean and the spread of what was measured in each cell."""

    name, modalities, dims, licence, weights_sha256 = "heights", (POINTS,), (2,), "none needed", "0"

    def __init__(self, stride: int = 8) -> None:
        self.stride = stride

    def encode_points(self, points: np.ndarray) -> Features:
        count, height, width, _ = points.shape
        cells = points[..., 2].reshape(count, height // self.stride, self.stride, width // self.stride, self.stride)
        valid = np.isfinite(cells).any(axis=(2, 4))
        there = np.isfinite(cells).sum(axis=(2, 4)).clip(1)
        mean = np.nansum(cells, axis=(2, 4)) / there
        spread = np.nansum((cells - mean[:, :, None, :, None]) ** 2, axis=(2, 4)) / there
        layer = torch.from_numpy(np.stack([mean, spread], axis=-1).astype(np.float32))
        return Features({POINTS: (layer,)}, valid={POINTS: torch.from_numpy(valid)})


def scans(count: int = 3, size: tuple[int, int] = (64, 96), seed: int = 0) -> list[Scan]:
    random = np.random.default_rng(seed)
    rgb = random.integers(0, 256, (count, *size, 3), dtype=np.uint8)
    xyz = random.normal(0.5, 0.01, (count, *size, 3)).astype(np.float32)
    xyz[:, :20, :20] = np.nan
    return [Scan(*one) for one in zip(rgb, xyz, strict=True)]


@pytest.fixture(params=["pixels", "patches"])
def encoder(request: Any) -> ScanEncoder:
    return ScanEncoder(build(request.param), Heights())


def test_what_decides_the_features_of_a_part_decides_those_of_both() -> None:
    images, points = build("pixels"), Heights()
    points.feature_settings = {"spread": 1}  # type: ignore[attr-defined]
    assert feature_settings(ScanEncoder(images, points))["points.spread"] == 1
    assert feature_settings(ScanEncoder(images, points))["image.mean"] == [0.5, 0.5, 0.5]
    assert identity(ScanEncoder(images, points)) != identity(ScanEncoder(images, Heights()))


def test_it_is_an_encoder_whose_layers_lie_on_one_grid(encoder: ScanEncoder) -> None:
    assert isinstance(encoder, Encoder)
    assert encoder.modalities == (RGB, POINTS)
    assert encoder.name.endswith("+heights")
    features = encoder.encode(scans())
    assert len(features) == 3
    assert features[RGB].shape[:3] == features[POINTS].shape[:3] == (3, 8, 12)
    assert features[RGB].shape[3] + features[POINTS].shape[3] == sum(encoder.dims)
    assert features[RGB].dtype == features[POINTS].dtype == torch.float32
    assert features.valid[RGB].all()
    assert not features.valid[POINTS][:, :2, :2].any()  # 16 of 20 pixels a side: no point at all
    assert features.valid[POINTS][:, 3:, 3:].all()


def test_sides_fit_both_encoders() -> None:
    class Coarse:
        """Looks at 4 × 4 patches of 14 pixels at once."""

        stride, size_multiple = 14, 56

        def __getattr__(self, name: str) -> Any:
            return getattr(build("pixels"), name)

    encoder = ScanEncoder(Coarse(), Heights(8))  # type: ignore[arg-type]
    assert encoder.size_multiple == 32  # 4 cells of 8 points: 56 pixels of the image
    assert (224 // encoder.stride) * 14 == 392


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_points_finer_than_the_image_do_not_blow_it_up(stride: int) -> None:
    shown = []

    class Watched:
        """Notes the size of the images it is shown."""

        def encode(self, images: np.ndarray) -> Features:
            shown.append(images.shape[1:3])
            return build("patches").encode(images)

        def __getattr__(self, name: str) -> Any:
            return getattr(build("patches"), name)

    encoder = ScanEncoder(Watched(), Heights(stride))  # type: ignore[arg-type]
    features = encoder.encode(scans())
    coarsest = ScanEncoder(build("patches"), Heights(4)).encode(scans())
    assert shown == [tuple(build("patches").stride * cells for cells in (64 // 4, 96 // 4))]
    assert torch.equal(features[RGB], coarsest[RGB])
    assert features[POINTS].shape[1:3] == features.valid[POINTS].shape[1:3] == (64 // stride, 96 // stride)
    assert encoder.size_multiple == 4 * build("patches").size_multiple // build("patches").stride


def test_a_missing_image_is_zero_and_said_so(encoder: ScanEncoder) -> None:
    made = scans()
    made[1] = made[1].only(POINTS)
    whole, features = encoder.encode(scans()), encoder.encode(made)
    assert features.valid[RGB].flatten(1).any(1).tolist() == [True, False, True]
    assert not features[RGB][1].any()
    assert torch.equal(features[RGB][[0, 2]], whole[RGB][[0, 2]])
    assert torch.equal(features[POINTS], whole[POINTS])
    alone = encoder.encode(made[1:2])
    assert torch.equal(alone[RGB], features[RGB][1:2])
    assert not alone.valid[RGB].any()


def test_missing_points_are_nowhere_valid(encoder: ScanEncoder) -> None:
    features = encoder.encode([scan.only(RGB) for scan in scans()])
    assert not features.valid[POINTS].any()
    assert not features[POINTS].any()
    assert torch.equal(features[RGB], encoder.encode(scans())[RGB])


def test_a_scan_never_depends_on_its_batch(encoder: ScanEncoder) -> None:
    together, alone = encoder.encode(scans()), encoder.encode(scans()[2:])
    assert torch.equal(together[RGB][2], alone[RGB][0])
    assert torch.equal(together[POINTS][2], alone[POINTS][0])


def test_wrong_input_is_refused(encoder: ScanEncoder) -> None:
    images = np.zeros((2, 64, 96, 3), np.uint8)
    for wrong in (images, list(images), [], scans(size=(63, 96)), [*scans(), *scans(size=(64, 64))]):
        with pytest.raises(SettingsError):
            encoder.encode(wrong)


def test_levels_between_whole_ones_are_rounded_once(encoder: ScanEncoder) -> None:
    """A synthetic anomaly leaves float levels: rounding them before resizing as well would give other features."""
    (scan,) = scans(1)
    blended = Scan(scan.rgb * np.float32(0.5) + np.float32(0.3), scan.xyz)
    (once,) = resized([blended.rgb], (24, 36))
    (twice,) = resized([blended.image], (24, 36))
    assert np.abs(once.astype(int) - twice).max() == 1
    size = 8 * encoder.images.stride, 12 * encoder.images.stride
    seen = encoder.images.encode(resized([blended.rgb], size))
    assert torch.equal(encoder.encode([blended])[RGB], seen[RGB])


def test_images_of_their_own_size_stay_as_they_are() -> None:
    images = [scan.rgb for scan in scans() if scan.rgb is not None]
    assert np.array_equal(resized(images, (64, 96)), images)
    assert resized(images, (32, 48)).shape == (3, 32, 48, 3)


def load_heights(name: str, *, stride: int, **others: Any) -> Heights:
    """As the loaders of points encoders are called."""
    assert {"role", "layers", "device", "precision"} <= set(others)
    return Heights(stride)


def test_names_joined_by_plus_become_a_scan_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    from blemish import registry

    entry = registry.EncoderEntry("made.up:load_heights", "none needed", 0, "", modality="points")
    monkeypatch.setitem(registry.ENCODERS, "heights", entry)
    usual = registry.resolve
    monkeypatch.setattr(
        "blemish.encoders.factory.resolve", lambda t: load_heights if t == "made.up:load_heights" else usual(t)
    )
    encoder = build("pixels+heights", role=("pair", "deep"), points_stride=4)
    assert isinstance(encoder, ScanEncoder)
    assert encoder.stride == 4
    assert encoder.images.layers == build("pixels", role="pair").layers
    assert registry.automatic("pixels+heights") == "text-guided"
    assert build("heights", points_stride=4).stride == 4  # alone, an encoder of points
    for wrong in ("heights+pixels", "heights+heights", "pixels+heights+heights"):
        with pytest.raises(SettingsError):
            build(wrong)
