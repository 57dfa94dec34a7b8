"""The promise of every registered detector, over the encoder without weights; adding one to the registry tests it."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch

from blemish import encoders, registry
from blemish.detectors import factory
from blemish.detectors.base import Detector, Needs
from blemish.encoders.base import LayerRole
from blemish.errors import NotFittedError, SettingsError
from blemish.model.feature_loader import FeatureLoader
from blemish.numeric.pooling import image_score
from blemish.types import POINTS, RGB, Features, Prompts

SIZE = 64  # pixels; small, so that every detector is through in seconds
# Settings that make learning short, given to those that know them.
QUICK = {"steps": 4, "depth": 1, "decoder_depth": 1, "heads": 2, "width": 8, "rotations": 2, "image_size": SIZE}

pytestmark = pytest.mark.parametrize("name", sorted(registry.DETECTORS))


def build(name: str, **settings: Any) -> Detector:
    return factory.build(name, settings, QUICK | {"seed": 0})


def quick(name: str) -> Detector:
    """The detector with short learning, even where its entry in the registry sets otherwise."""
    known = factory.setting_names(registry.resolve(registry.DETECTORS[name].target))
    return factory.build(name, {key: value for key, value in (QUICK | {"seed": 0}).items() if key in known})


def images(count: int, first: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(first)
    y, x = np.mgrid[:SIZE, :SIZE]
    disc = np.where(np.hypot(y - 32, x - 32)[..., None] < 20, (180, 170, 60), (90, 90, 90))
    return [(disc + random.normal(0, 6, disc.shape)).clip(0, 255).astype(np.uint8) for _ in range(count)]


class Scanned:
    """The encoder without weights, and beside it points as if the surface followed the colours; the border has none."""

    def __init__(self, images: Any) -> None:
        self.images = images
        self.__dict__.update({name: getattr(images, name) for name in ("layers", "stride", "multiple", "dims", "name")})
        self.modalities = (RGB, POINTS)
        self.turn = torch.randn(images.dims[0], 6, generator=torch.Generator().manual_seed(0))

    def encode(self, made: np.ndarray) -> Features:
        features = self.images.encode(made)
        valid = torch.ones(features.layers[RGB][0].shape[:3], dtype=torch.bool)  # (B, h, w)
        valid[:, 0], valid[:, :, -1] = False, False
        points = torch.tanh(features.layers[RGB][0] @ self.turn) * valid[..., None]
        return Features({**features.layers, POINTS: (points,)}, features.vector, {POINTS: valid})


def sentences() -> Prompts:
    rows = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1))
    return Prompts(*torch.nn.functional.normalize(rows, dim=-1))


def encoder_for(detector: Detector) -> Any:
    if POINTS in detector.needs.modalities:
        return Scanned(encoders.build("pixels", role=detector.needs.layers, device="cpu"))
    joined = "+".join(["pixels"] * len(detector.needs.modalities))
    return encoders.build(joined, role=detector.needs.layers, device="cpu")


def learned(name: str) -> tuple[Detector, Any]:
    if name not in _LEARNED:
        detector = quick(name)
        encoder = encoder_for(detector)
        count = max(3, detector.needs.min_images)
        good = FeatureLoader.of(images(count), encoder, detector.needs, lambda p: p, ["disc"] * count, batch_size=4)
        walked = [replace(batch, prompts={"disc": sentences()}) for batch in good] if detector.needs.prompts else good
        _LEARNED[name] = detector.fit(walked), encoder
    return _LEARNED[name]


_LEARNED: dict[str, tuple[Detector, Any]] = {}  # learned once, read by all tests


def seen(encoder: Any, count: int = 3) -> Features:
    made = images(count, first=9)
    for image in made[1:]:
        image[24:40, 24:40] = 0
    features = encoder.encode(np.stack(made))
    assert isinstance(features, Features)
    return features.with_categories(["disc"] * count)


def test_it_is_a_detector_and_its_needs_are_possible(name: str) -> None:
    detector = build(name)
    assert isinstance(detector, Detector)
    needs = detector.needs
    assert isinstance(needs, Needs)
    roles = needs.layers if isinstance(needs.layers, tuple) else (needs.layers,)
    assert set(roles) <= set(get_args(LayerRole))
    assert needs.rotations >= 1
    assert needs.min_images >= 1
    assert needs.image_size >= 1
    image_score(np.ones((4, 4)), needs.pooling)


def test_scores_have_their_shape_and_range(name: str) -> None:
    detector, encoder = learned(name)
    features = seen(encoder)
    scores = detector.score(features)
    assert scores.patches.dtype == torch.float32
    assert scores.patches.shape[0] == 3
    assert scores.patches.ndim == 3
    assert torch.isfinite(scores.patches).all()
    assert (scores.patches >= 0).all()
    assert not scores.patches.requires_grad
    if scores.images is not None:
        assert scores.images.shape == (3,)
        assert torch.isfinite(scores.images).all()


def test_a_score_never_depends_on_its_batch(name: str) -> None:
    detector, encoder = learned(name)
    features = seen(encoder)
    together = detector.score(features)
    for i in (0, 2):
        alone = detector.score(features.take(slice(i, i + 1)))
        torch.testing.assert_close(alone.patches[0], together.patches[i], rtol=1e-5, atol=1e-6)
        if together.images is not None and alone.images is not None:
            torch.testing.assert_close(alone.images[0], together.images[i], rtol=1e-5, atol=1e-6)


def test_other_image_sizes_are_scored(name: str) -> None:
    detector, encoder = learned(name)
    wide = np.concatenate([np.stack(images(2))] * 2, axis=2)  # (2, 64, 128, 3)
    patches = detector.score(encoder.encode(wide).with_categories(["disc"] * 2)).patches
    assert patches.shape[2] == 2 * patches.shape[1]


def test_what_was_learned_comes_back(name: str) -> None:
    detector, encoder = learned(name)
    state = detector.state()
    assert state
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())
    again = factory.build(name, detector.settings).load_state({k: t.clone() for k, t in state.items()})
    features = seen(encoder)
    assert torch.equal(again.score(features).patches, detector.score(features).patches)


def test_settings_rebuild_it(name: str) -> None:
    detector = build(name)
    settings = json.loads(json.dumps(detector.settings))
    again = factory.build(name, settings)
    assert again.settings == detector.settings
    assert again.needs == detector.needs


def test_an_unknown_setting_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        factory.build(name, {"no_such_setting": 1})
    for known in factory.setting_names(registry.resolve(registry.DETECTORS[name].target)):
        assert known in caught.value.expected


def test_settings_are_stored_and_learning_ends_in_an_underscore(name: str) -> None:
    """`__init__` only stores: no learned name before `fit`; afterwards every new name ends in `_`."""
    before, (after, _) = vars(build(name)), learned(name)
    assert not [attribute for attribute in before if attribute.endswith("_")]
    new = set(vars(after)) - set(before)
    assert new
    assert not [attribute for attribute in new if not attribute.endswith("_")]


def test_nothing_is_scored_before_learning(name: str) -> None:
    detector = quick(name)
    with pytest.raises(NotFittedError):
        detector.score(seen(encoder_for(detector)))


def test_arguments_are_named(name: str) -> None:
    """Settings are keyword arguments: a saved model and `--set` name them."""
    make = registry.resolve(registry.DETECTORS[name].target)
    kinds = {p.kind for p in inspect.signature(make).parameters.values()}
    assert inspect.Parameter.VAR_POSITIONAL not in kinds
    assert all(p.default is not p.empty for p in inspect.signature(make).parameters.values())


def test_learning_is_reproducible(name: str) -> None:
    features = None
    answers = []
    for _ in range(2):
        _LEARNED.pop(name, None)
        detector, encoder = learned(name)
        features = features or seen(encoder)
        answers.append(detector.score(features).patches)
    assert torch.equal(*answers)
