"""Fitting: cheap checks come first, images are decoded and encoded once, repetitions and bit depth are seen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish import Inspector, Sample
from blemish.encoders.image.frozen import FrozenEncoder
from blemish.errors import DatasetError, DataWarning, SettingsError, WeightsError
from blemish.model import fitting, prediction
from blemish.model.decoded_images import DecodedImages

Draw = Any


def fresh(toy: str, **settings: Any) -> Inspector:
    return Inspector(encoder="pixels", detector=toy, device="cpu", **settings)


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was decoded since the fixture began."""
    found: Counter[str] = Counter()
    for module in (fitting, prediction):
        usual = module.load_sample

        def counted(sample: Sample, *arguments: Any, usual: Any = usual, **further: Any) -> Any:
            found[Path(sample.name).name] += 1
            return usual(sample, *arguments, **further)

        monkeypatch.setattr(module, "load_sample", counted)
    return found


def saved(folder: Path, part: Draw, kinds: tuple[str, ...] = ("disc",), count: int = 12) -> Path:
    for kind in kinds:
        for i in range(count):
            place = folder / kind / "train" / "good" / f"{kind}{i:02}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(part(kind, seed=i)).save(place)
    return folder


@pytest.mark.parametrize("framing", ["plain", "part"])
@pytest.mark.parametrize("clean", [False, True])
def test_every_image_is_decoded_once(
    toy: str, part: Draw, tmp_path: Path, decodes: Counter[str], framing: str, clean: bool
) -> None:
    folder = saved(tmp_path, part, ("disc", "stripes"))
    inspector = fresh(toy, framing=framing).fit(folder, clean=clean)
    assert len(decodes) == 24
    assert set(decodes.values()) == {1}
    list(inspector.inspect_many(sorted(folder.glob("*/train/good/*.png"))))
    assert set(decodes.values()) == {2}


def test_images_that_do_not_fit_into_memory_are_decoded_twice(
    toy: str, part: Draw, tmp_path: Path, decodes: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DecodedImages.__init__, "__defaults__", (0,))
    fresh(toy).fit(saved(tmp_path, part, count=40))
    assert len(decodes) == 40
    counts = sorted(decodes.values())
    assert counts[-13] <= 2  # but for the four that copies are made of, and the eight that are kept
    assert counts[-1] <= 4


def test_cleaning_encodes_nothing_again_where_the_framing_stays(
    toy: str, part: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = 0
    usual = FrozenEncoder.encode

    def counted(self: FrozenEncoder, images: np.ndarray) -> Any:
        nonlocal encoded
        encoded += len(images)
        return usual(self, images)

    monkeypatch.setattr(FrozenEncoder, "encode", counted)
    images = [part(seed=i) for i in range(12)]
    fresh(toy).fit(images)
    plain = encoded
    inspector = fresh(toy).fit([*images, part(seed=50, defective=True)], clean=True)
    assert len(inspector.outliers_) == 1
    assert encoded - plain == plain + 1
    other = fresh(toy).fit(images).inspect(part(seed=60))
    assert inspector.inspect(part(seed=60)).score == other.score  # as if it had never been there


def test_what_is_cheap_to_check_is_checked_before_any_image_is_decoded(
    toy: str, part: Draw, tmp_path: Path, decodes: Counter[str]
) -> None:
    folder = saved(tmp_path, part)
    for wrong, error in (
        (lambda: Inspector(encoder="no-such-encoder", detector=toy).fit(folder), SettingsError),
        (lambda: Inspector(encoder=str(tmp_path / "gone"), detector=toy).fit(folder), WeightsError),
        (lambda: Inspector(encoder="pixels+points-fpfh", detector=toy).fit(folder), SettingsError),
        (lambda: fresh(toy, images=13).fit(folder), DatasetError),
    ):
        with pytest.raises(error):
            wrong()
    assert not decodes


def test_an_image_saved_again_counts_once(toy: str, part: Draw, tmp_path: Path) -> None:
    one = part(seed=1, size=(192, 240))
    for quality in range(85, 97):
        Image.fromarray(one).save(tmp_path / f"{quality}.jpg", quality=quality)
    with pytest.warns(DataWarning, match="nearly the same"):
        inspector = fresh(toy).fit(tmp_path)
    assert inspector.calibrations[None].source.images == 1
    assert inspector.calibrations[None].source.copies
    assert inspector.model_.repeats == 11
    assert len(inspector.model_.fingerprints) == 1


def deep(image: np.ndarray, bits: int) -> np.ndarray:
    """The same image as levels of `bits` bits in 16."""
    return (image[..., 0].astype(np.uint16) << (bits - 8)) | 1


def test_twelve_bits_in_sixteen_are_seen_as_twelve(toy: str, part: Draw, tmp_path: Path) -> None:
    for i in range(6):
        Image.fromarray(deep(part(seed=i), 12)).save(tmp_path / f"{i}.png")
    inspector = fresh(toy).fit(tmp_path)
    grey = fresh(toy).fit([np.repeat(part(seed=i)[..., :1], 3, axis=2) for i in range(6)])
    assert inspector.model_.full_scale.bits == 12
    probe = part(seed=60, defective=True)
    expected = grey.inspect(np.repeat(probe[..., :1], 3, axis=2))
    back = Inspector.load(inspector.save(tmp_path / "model"), device="cpu")
    for model in (inspector, back):
        found = model.inspect(deep(probe, 12))
        assert found.is_defective
        assert found.score == pytest.approx(expected.score, rel=0.02)


@pytest.mark.filterwarnings("ignore::blemish.errors.DataWarning")  # so dark that their noise is gone
def test_a_stated_bit_depth_holds(toy: str, part: Draw, tmp_path: Path) -> None:
    dark = [deep(part(seed=i) // 4, 12) for i in range(6)]  # would pass for ten bits
    assert fresh(toy).fit(dark).model_.full_scale.bits == 10
    assert fresh(toy, bit_depth=12).fit(dark).model_.full_scale.bits == 12
