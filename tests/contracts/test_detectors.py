"""The contract of every registered detector, over the encoder without weights; adding one to the registry tests it."""

from __future__ import annotations

import inspect
import json
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnxruntime
import pytest
import torch
from export_parts import save_graph
from image_text_parts import write_model

from blemish import encoders, registry
from blemish.detectors import factory
from blemish.detectors.base import Detector, Exportable, Needs
from blemish.detectors.settings import Configurable, setting_names
from blemish.encoders.base import LayerRole
from blemish.encoders.image_text.state_prompts import learnable_prompts
from blemish.errors import NotFittedError, SettingsError
from blemish.export.graph import exportable_detector, network_of
from blemish.model.feature_loader import FeatureLoader
from blemish.numeric.pooling import image_score
from blemish.scoring.detector_scores import detector_scores
from blemish.types import POINTS, RGB, Features, Prompts

DOCS = Path(__file__).resolve().parents[2] / "docs"
SIZE = 64  # pixels; small, so that every detector is through in seconds
# Settings that make training short, given to those that have them.
QUICK = {
    "steps": 4,
    "depth": 1,
    "decoder_depth": 1,
    "heads": 2,
    "width": 8,
    "rotations": 2,
    "epochs": 3,
    "image_size": SIZE,
}

# Every patch: only filling the area in, as models do, hides what is there.
SEE_THE_WHOLE_IMAGE = {"sa-patchcore", "winclip", "anomalyclip", "promptad"}
SCAN_GRAPHS = {"cfm", "text-guided"}

pytestmark = pytest.mark.parametrize("name", sorted(registry.DETECTORS))


def build(name: str, **settings: Any) -> Detector:
    return factory.build(name, settings, QUICK | {"seed": 0})


def quick(name: str) -> Detector:
    """The detector with short training."""
    known = setting_names(registry.resolve(registry.DETECTORS[name].target))
    return factory.build(name, {key: value for key, value in (QUICK | {"seed": 0}).items() if key in known})


def images(count: int, first: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(first)
    y, x = np.mgrid[:SIZE, :SIZE]
    disc = np.where(np.hypot(y - 32, x - 32)[..., None] < 20, (180, 170, 60), (90, 90, 90))
    return [(disc + random.normal(0, 6, disc.shape)).clip(0, 255).astype(np.uint8) for _ in range(count)]


class Scanned:
    """The encoder without weights, and points as if the surface followed the colours; the border has none."""

    def __init__(self, images: Any) -> None:
        self.images = images
        self.__dict__.update(
            {name: getattr(images, name) for name in ("layers", "stride", "size_multiple", "dims", "name")}
        )
        self.modalities = (RGB, POINTS)
        self.turn = torch.randn(images.dims[0], 6, generator=torch.Generator().manual_seed(0))

    def encode(self, made: np.ndarray) -> Features:
        features = self.images.encode(made)
        valid = torch.ones(features.layers[RGB][0].shape[:3], dtype=torch.bool)  # (B, h, w)
        valid[:, 0], valid[:, :, -1] = False, False
        points = torch.tanh(features.layers[RGB][0] @ self.turn) * valid[..., None]
        return Features({**features.layers, POINTS: (points,)}, {POINTS: valid})


def sentences(detector: Detector, encoder: Any) -> Prompts:
    if detector.needs.prompts == "learnable":
        return learnable_prompts("disc", encoder)
    rows = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1))
    return Prompts(*torch.nn.functional.normalize(rows, dim=-1))


@cache
def speaking_folder() -> Path:
    """A tiny random encoder with a text tower, written once."""
    return write_model(Path(tempfile.mkdtemp(prefix="blemish-test-")) / "clip")


def encoder_for(detector: Detector) -> Any:
    if POINTS in detector.needs.modalities:
        return Scanned(encoders.build("pixels", role=detector.needs.layers, device="cpu"))
    if detector.needs.alignment:
        return encoders.build(
            speaking_folder(), role=detector.needs.layers, alignment=detector.needs.alignment, device="cpu"
        )
    joined = "+".join(["pixels"] * len(detector.needs.modalities))
    return encoders.build(joined, role=detector.needs.layers, device="cpu")


def feature_loader(detector: Detector, encoder: Any) -> FeatureLoader:
    """Batches of normal images, as the detector needs them."""
    count = max(3, detector.needs.min_images)
    return FeatureLoader.of(images(count), encoder, detector.needs, lambda p: p, ["disc"] * count, batch_size=4)


def fitted(name: str) -> tuple[Detector, Any]:
    if name not in _FITTED:
        detector = quick(name)
        encoder = encoder_for(detector)
        good = feature_loader(detector, encoder)
        prompted = (
            [replace(batch, prompts={"disc": sentences(detector, encoder)}) for batch in good]
            if detector.needs.prompts
            else good
        )
        _FITTED[name] = detector.fit(prompted), encoder
    return _FITTED[name]


_FITTED: dict[str, tuple[Detector, Any]] = {}  # fitted once, read by all tests


def anomalous_and_normal(encoder: Any, count: int = 3) -> Features:
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
    detector, encoder = fitted(name)
    features = anomalous_and_normal(encoder)
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
    detector, encoder = fitted(name)
    features = anomalous_and_normal(encoder)
    together = detector.score(features)
    for i in (0, 2):
        alone = detector.score(features.take(slice(i, i + 1)))
        torch.testing.assert_close(alone.patches[0], together.patches[i], rtol=1e-5, atol=1e-6)
        if together.images is not None and alone.images is not None:
            torch.testing.assert_close(alone.images[0], together.images[i], rtol=1e-5, atol=1e-6)


def test_as_a_graph_it_scores_alike(name: str) -> None:
    """Where a detector says that its scores can be computed without Python, they are those of `score`, in a batch."""
    detector, encoder = fitted(name)
    features = anomalous_and_normal(encoder)
    if not has_a_graph(name):  # it says so when a model of it is exported
        with pytest.raises(SettingsError, match="exported"):
            exportable_detector(detector, name).graph_scores(features, "disc")
        return
    assert isinstance(detector, Exportable)
    expected, found = detector.score(features), detector.graph_scores(features, "disc")
    torch.testing.assert_close(found.patches, expected.patches, rtol=1e-4, atol=1e-5)
    assert (found.images is None) == (expected.images is None)
    if found.images is not None and expected.images is not None:
        torch.testing.assert_close(found.images, expected.images, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_graph_of_it_runs_without_python(name: str, tmp_path: Path) -> None:
    """What says that it can be exported becomes an ONNX graph whose batch is open, and scores as it does."""
    detector, encoder = fitted(name)
    if not (has_a_graph(name) and isinstance(detector, Exportable)):
        return
    features = anomalous_and_normal(encoder)
    if POINTS in features.valid:  # a hole in the second one, and none at all of the third
        gone = torch.zeros_like(features.valid[POINTS])
        gone[1, 2:4, 2], gone[2] = True, True
        features = without_points(features, gone)
    expected = detector.score(features)
    graph = GraphOfScores(detector, features).eval()
    inputs = (*(layer for layers in features.layers.values() for layer in layers), *features.valid.values())
    save_graph(graph, inputs, tmp_path / "graph.onnx", takes_any_number=True)
    session = onnxruntime.InferenceSession(str(tmp_path / "graph.onnx"), providers=["CPUExecutionProvider"])
    feeds = {entry.name: layer.numpy() for entry, layer in zip(session.get_inputs(), inputs, strict=True)}
    found = session.run(None, feeds)
    np.testing.assert_allclose(found[0], expected.patches.numpy(), rtol=1e-3, atol=1e-4)


def has_a_graph(name: str) -> bool:
    """Whether a detector's scores can be computed by a graph; of those of scans, no bundle holds it yet."""
    return registry.DETECTORS[name].exports or name in SCAN_GRAPHS


def without_points(features: Features, gone: torch.Tensor) -> Features:
    """The same where the points in the patches `gone` `(B, h, w)` bool are missing."""
    (points,) = features.layers[POINTS]
    layers = {**features.layers, POINTS: (points * ~gone[..., None],)}
    return replace(features, layers=layers, valid={**features.valid, POINTS: features.valid[POINTS] & ~gone})


class GraphOfScores(torch.nn.Module):
    """The patch scores of a detector from layers, and then masks, one after the other, in the order of `features`."""

    def __init__(self, detector: Exportable, features: Features) -> None:
        super().__init__()
        self.network = network_of(detector)
        self.detector, self.counts = detector, {name: len(layers) for name, layers in features.layers.items()}
        self.masks = tuple(features.valid)

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        rest = iter(tensors)
        named = {name: tuple(next(rest) for _ in range(count)) for name, count in self.counts.items()}
        return self.detector.graph_scores(Features(named, {name: next(rest) for name in self.masks}), "disc").patches


def test_other_image_sizes_are_scored(name: str) -> None:
    detector, encoder = fitted(name)
    wide = np.concatenate([np.stack(images(2))] * 2, axis=2)  # (2, 64, 128, 3)
    patches = detector.score(encoder.encode(wide).with_categories(["disc"] * 2)).patches
    assert patches.shape[2] == 2 * patches.shape[1]


def test_ignored_patches_count_for_nothing(name: str) -> None:
    """A large defect under the ignored half changes the score by what patches of the other half see of it alone; one in
    the other half counts as ever."""
    detector, encoder = fitted(name)
    (normal,) = images(1, first=9)
    ignored = np.zeros((SIZE, SIZE), dtype=bool)
    ignored[:, : SIZE // 2] = True
    left, right = normal.copy(), normal.copy()
    left[24:40, :4], right[16:48, 40:56] = 0, 0

    def scored(image: np.ndarray, area: np.ndarray | None) -> tuple[float, np.ndarray]:
        features = encoder.encode(image[None]).with_categories(["disc"]).with_ignored(area)
        scores, patches = detector_scores(detector, features)
        return float(scores[0]), patches[0]

    clean, patches = scored(normal, ignored)
    assert not patches[:, : patches.shape[1] // 2].any()
    assert not np.array_equal(scored(right, ignored)[1], patches)
    if name not in SEE_THE_WHOLE_IMAGE:
        assert abs(scored(left, ignored)[0] - clean) <= 0.2 * abs(scored(left, None)[0] - scored(normal, None)[0])
    assert scored(normal, np.ones_like(ignored))[0] == 0


def test_the_state_comes_back(name: str) -> None:
    detector, encoder = fitted(name)
    state = detector.state()
    assert state
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())
    again = factory.build(name, detector.settings).load_state({k: t.clone() for k, t in state.items()})
    features = anomalous_and_normal(encoder)
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
    for known in setting_names(registry.resolve(registry.DETECTORS[name].target)):
        assert known in caught.value.expected


def test_settings_are_stored_and_fitted_names_end_in_an_underscore(name: str) -> None:
    """The constructor only stores: no fitted name before `fit`; afterwards every new name ends in `_`."""
    before, (after, _) = vars(build(name)), fitted(name)
    assert not [attribute for attribute in before if attribute.endswith("_")]
    new = set(vars(after)) - set(before)
    assert new
    assert not [attribute for attribute in new if not attribute.endswith("_")]


def test_nothing_is_scored_before_fit(name: str) -> None:
    detector = quick(name)
    with pytest.raises(NotFittedError):
        detector.score(anomalous_and_normal(encoder_for(detector)))


def test_settings_are_keyword_only_fields_with_defaults_that_are_checked(name: str) -> None:
    """A saved model and `--set` name them; what is of no type that its field declares is refused with its name."""
    made = registry.resolve(registry.DETECTORS[name].target)
    assert issubclass(made, Configurable)
    parameters = inspect.signature(made).parameters.values()
    assert {p.kind for p in parameters} == {inspect.Parameter.KEYWORD_ONLY}
    assert all(p.default is not p.empty for p in parameters)
    for setting in setting_names(made):
        with pytest.raises(SettingsError, match=f"expected {setting} to be .*; got <object"):
            made(**{setting: object()})


def test_it_has_a_page(name: str) -> None:
    page = DOCS / "methods" / f"{name}.md"
    assert page.read_text(encoding="utf-8").startswith(f"# {name}\n")


def moved(features: Features, device: str) -> Features:
    layers = {m: tuple(tensor.to(device) for tensor in tensors) for m, tensors in features.layers.items()}
    valid = {m: tensor.to(device) for m, tensor in features.valid.items()}
    return replace(features, layers=layers, valid=valid)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_a_state_moves_between_processor_and_gpu(name: str) -> None:
    """Fitted on one, scored on the other, both ways: scores agree, and stay where the features are."""
    on_cpu, encoder = fitted(name)
    features = anomalous_and_normal(encoder)
    prompts = {"disc": sentences(on_cpu, encoder)} if on_cpu.needs.prompts else None
    good = feature_loader(on_cpu, encoder)
    batches = [
        replace(
            batch,
            features=moved(batch.features, "cuda"),
            altered=batch.altered and moved(batch.altered, "cuda"),
            altered_mask=None if batch.altered_mask is None else batch.altered_mask.to("cuda"),
            prompts=prompts,
        )
        for batch in good
    ]
    on_gpu = quick(name).fit(batches)
    for detector, other in ((on_cpu, "cuda"), (on_gpu, "cpu")):
        own = "cpu" if other == "cuda" else "cuda"
        expected = detector.score(moved(features, own)).patches
        assert expected.device.type == own
        again = factory.build(name, detector.settings).load_state({k: t.cpu() for k, t in detector.state().items()})
        for device in (other, own, other):  # there, back, and there again
            scores = again.score(moved(features, device)).patches
            assert scores.device.type == device
            torch.testing.assert_close(scores.cpu(), expected.cpu(), rtol=1e-3, atol=1e-4)


def test_fitting_is_reproducible(name: str) -> None:
    features = None
    scores = []
    for _ in range(2):
        _FITTED.pop(name, None)
        detector, encoder = fitted(name)
        features = features or anomalous_and_normal(encoder)
        scores.append(detector.score(features).patches)
    assert torch.equal(*scores)
