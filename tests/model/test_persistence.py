"""What a saved model brings back, and on another machine, in another folder, with a detector of the user's own."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nearest_mean import NearestMean

from blemish import Inspector, Sample, encoders
from blemish.detectors.patchcore import PatchCore
from blemish.encoders.composite.two_image import JointEncoder
from blemish.errors import ModelError, SettingsError, WeightsError
from blemish.model.model_folder import SavedModel, load_model, save_model
from blemish.model.persistence import detector_of

Draw = Any


class Mine(NearestMean):
    """A detector that no name stands for."""


class Stateless:
    """A detector that can be fitted but not saved."""

    def __init__(self, **settings: Any) -> None:
        self.inner = NearestMean(**settings)
        self.needs, self.settings = self.inner.needs, self.inner.settings

    def fit(self, batches: Any, progress: Any = None) -> Stateless:
        self.inner.fit(batches)
        return self

    def score(self, features: Any) -> Any:
        return self.inner.score(features)


def test_a_detector_of_ones_own_comes_back(part: Draw, tmp_path: Path) -> None:
    inspector = Inspector("pixels", Mine(power=2.0), device="cpu").fit([part(seed=i) for i in range(4)])
    folder = inspector.save(tmp_path / "model")
    given = Mine(power=2.0)
    back = Inspector.load(folder, device="cpu", detector=given)
    probe = part(seed=60, defective=True)
    assert np.array_equal(back.inspect(probe).map, inspector.inspect(probe).map)
    assert not hasattr(given, "mean_")  # the object given stays as it is
    again = Inspector.load(back.save(tmp_path / "again"), device="cpu", detector=Mine(power=2.0))
    assert again.inspect(probe).score == inspector.inspect(probe).score


@pytest.mark.parametrize(
    ("detector", "words"),
    [
        (None, r"detector object 'Mine'.*got none.*detector=Mine"),
        (Mine(power=3.0), r"power.*2\.0.*got.*power.*3\.0"),
        (NearestMean(power=2.0), "class 'Mine'.*got 'NearestMean'"),
    ],
)
def test_another_detector_than_the_fitted_one_is_refused(
    part: Draw, tmp_path: Path, detector: NearestMean | None, words: str
) -> None:
    inspector = Inspector("pixels", Mine(power=2.0), device="cpu").fit([part(seed=i) for i in range(2)])
    folder = inspector.save(tmp_path / "model")
    with pytest.raises(SettingsError, match=words):
        Inspector.load(folder, device="cpu", detector=detector)


def test_an_object_of_a_known_class_is_saved_by_its_name(toy: str, part: Draw, tmp_path: Path) -> None:
    inspector = Inspector("pixels", NearestMean(power=2.0), device="cpu").fit([part(seed=i) for i in range(2)])
    assert inspector.detector_name == toy
    back = Inspector.load(inspector.save(tmp_path / "model"), device="cpu")
    assert back.detector.settings == inspector.detector.settings


def test_settings_under_the_names_of_earlier_versions_are_read() -> None:
    saved: dict[str, Any] = {"name": "patchcore", "settings": PatchCore(coreset_ratio=0.5).settings}
    saved["settings"]["coreset"] = saved["settings"].pop("coreset_ratio")
    for given in (None, PatchCore(coreset_ratio=0.5)):
        assert detector_of(saved, given).settings["coreset_ratio"] == 0.5
    with pytest.raises(SettingsError, match="with the settings"):
        detector_of(saved, PatchCore(coreset_ratio=0.25))


def test_a_detector_without_state_is_refused_before_anything_is_written(part: Draw, tmp_path: Path) -> None:
    inspector = Inspector("pixels", Stateless(), device="cpu").fit([part(seed=i) for i in range(2)])
    assert inspector.inspect(part(seed=5)).score > 0
    with pytest.raises(SettingsError, match="state and load_state"):
        inspector.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_any_name_of_a_category_survives(toy: str, part: Draw, tmp_path: Path) -> None:
    names = {"disc": "a\nb", "ring": "c"}
    images = [Sample(part(kind, seed=i), category=name) for kind, name in names.items() for i in range(3)]
    inspector = Inspector("pixels", toy, device="cpu").fit(images)
    back = Inspector.load(inspector.save(tmp_path / "model"), device="cpu")
    assert back.categories == ("a\nb", "c")
    for kind, name in names.items():
        assert back.inspect(part(kind, seed=50)).category == name


def test_an_encoder_of_the_same_weights_with_other_settings_is_refused(toy: str, part: Draw, tmp_path: Path) -> None:
    parts = [encoders.build("pixels") for _ in range(2)]
    encoder = JointEncoder(parts, context_scale=0.5)
    inspector = Inspector(encoder, toy, device="cpu").fit([part(seed=i) for i in range(3)])
    folder = inspector.save(tmp_path / "model")
    probe = part(seed=60)
    assert Inspector.load(folder, device="cpu", encoder=encoder).inspect(probe).score == inspector.inspect(probe).score
    with pytest.raises(WeightsError, match=r"context_scale 0\.5; got the same weights with context_scale 1\.0"):
        Inspector.load(folder, device="cpu")
    saved = load_model(folder)
    del saved.settings["encoder"]["settings"]["context_scale"]
    Inspector.load(save_model(tmp_path / "fewer", saved), device="cpu")
    del saved.settings["encoder"]["settings"]  # as earlier versions wrote it
    Inspector.load(save_model(tmp_path / "older", saved), device="cpu")


@pytest.fixture
def encoder_folder(tmp_path: Path) -> Path:
    """A tiny vision transformer as transformers saves one."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    torch.manual_seed(0)
    folder = tmp_path / "here" / "enc"
    transformers.ViTModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def in_folder(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    return monkeypatch.chdir


def test_an_encoder_named_by_a_relative_path_is_found_from_anywhere(
    toy: str, part: Draw, tmp_path: Path, encoder_folder: Path, in_folder: Callable[[Path], None]
) -> None:
    in_folder(encoder_folder.parent)
    inspector = Inspector(f".{os.sep}enc", toy, device="cpu").fit([part(seed=i) for i in range(2)])
    score = inspector.inspect(part(seed=60)).score
    inspector.save("model")
    in_folder(tmp_path)
    assert Inspector.load(Path("here", "model"), device="cpu").inspect(part(seed=60)).score == score

    (tmp_path / "here").rename(tmp_path / "there")  # model and encoder move together
    assert Inspector.load(tmp_path / "there" / "model", device="cpu").inspect(part(seed=60)).score == score

    shutil.move(tmp_path / "there" / "enc", tmp_path / "elsewhere")
    with pytest.raises(WeightsError, match=r"--encoder FOLDER"):
        Inspector.load(tmp_path / "there" / "model", device="cpu")
    found = Inspector.load(tmp_path / "there" / "model", device="cpu", encoder=Path("elsewhere"))
    assert found.inspect(part(seed=60)).score == score


def test_the_precision_is_part_of_the_model(
    toy: str, part: Draw, tmp_path: Path, encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fitted where bf16 is fast, and loaded where it is not, a model runs in bf16 and answers alike."""
    monkeypatch.setattr("blemish.encoders.precision.cpu_multiplies_bf16", lambda: True)
    inspector = Inspector(encoder_folder, toy, device="cpu").fit([part(seed=i) for i in range(4)])
    assert inspector.model_.settings.precision == "bf16"
    folder = inspector.save(tmp_path / "model")
    monkeypatch.setattr("blemish.encoders.precision.cpu_multiplies_bf16", lambda: False)
    back = Inspector.load(folder, device="cpu")
    assert back.encoder_.precision == "bf16"  # type: ignore[attr-defined]
    for defective in (False, True):
        probe = part(seed=60, defective=defective)
        assert back.inspect(probe).score == inspector.inspect(probe).score


def test_verdicts_in_fp32_and_bf16_agree_within_two_per_cent_of_the_score(
    toy: str, part: Draw, encoder_folder: Path
) -> None:
    """The tolerance that docs/methods/calibration.md states: scores over or under the limit by more stay so."""
    images = [part(seed=i) for i in range(6)]
    both = {
        precision: Inspector(encoder_folder, toy, device="cpu", precision=precision).fit(images)
        for precision in ("fp32", "bf16")
    }
    for seed in range(60, 66):
        for defective in (False, True):
            probe = part(seed=seed, defective=defective)
            one, other = (model.inspect(probe) for model in both.values())
            assert one.excess == pytest.approx(other.excess, rel=0.02)
            if abs(one.excess - 1) > 0.02:
                assert one.verdict == other.verdict


def test_each_of_two_encoders_keeps_its_precision(part: Draw, tmp_path: Path) -> None:
    inspector = Inspector("pixels+pixels", device="cpu", image_size=96).fit([part(seed=i) for i in range(2)])
    assert inspector.model_.settings.precision == ("fp32", "fp32")
    back = Inspector.load(inspector.save(tmp_path / "model"), device="cpu")
    assert back.model_.settings.precision == ("fp32", "fp32")


def test_an_impossible_precision_is_refused(toy: str) -> None:
    with pytest.raises(SettingsError, match="fp32 or bf16"):
        Inspector("pixels", toy, precision="fp8")  # type: ignore[arg-type]


def test_a_model_without_what_was_fitted_is_a_model_error(toy: str, part: Draw, tmp_path: Path) -> None:

    folder = Inspector("pixels", toy, device="cpu").fit([part(seed=i) for i in range(2)]).save(tmp_path / "model")
    whole = load_model(folder)
    for missing in ("fingerprints", "full_scale", "encoder", "categories"):
        settings = {key: value for key, value in whole.settings.items() if key != missing}
        save_model(folder, SavedModel(settings, whole.tensors, whole.calibration, whole.thumbnails))
        with pytest.raises(ModelError, match=missing):
            Inspector.load(folder, device="cpu")


def test_the_settings_of_a_model_are_plain(toy: str, part: Draw, tmp_path: Path) -> None:
    folder = Inspector("pixels", toy, device="cpu").fit([part(seed=i) for i in range(2)]).save(tmp_path / "model")
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["format_version"] == 2
    assert settings["encoder"]["precision"] == "fp32"
    assert "beside" not in settings["encoder"]
