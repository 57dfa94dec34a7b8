"""Images that judge one another: what is found, what is not, and what is said where nothing can be known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import blemish
from blemish import Failure, Prediction, Sample, Scan, inspect_mutually
from blemish.detectors.hybrid import Hybrid, power_mean
from blemish.encoders import automatic_encoder, build
from blemish.errors import DatasetError, SettingsError
from blemish.model import mutual_inspection
from blemish.model.mutual_inspection import MutualInspection, learned_framing
from blemish.model.mutual_settings import MutualSettings
from blemish.numeric.pooling import SEVERAL_SHARES, image_score
from blemish.numeric.standardise import STD_OFFSET
from blemish.preprocessing.crop_to_part import PartFraming
from blemish.types import Region

Draw = Any
SMALL = {"encoder": "pixels", "image_size": 64, "device": "cpu"}


def judged(images: Any, **settings: Any) -> MutualInspection:
    return inspect_mutually(images, **(SMALL | settings))


def predictions(found: MutualInspection) -> list[Prediction]:
    some = [one for one in found if isinstance(one, Prediction)]
    assert len(some) == len(found)
    return some


def test_defective_images_are_found_outlined_and_ranked_first(part: Draw) -> None:
    images = [part("stripes", seed=i, defective=i in (4, 9)) for i in range(20)]
    found = judged(images)
    results = predictions(found)
    assert {i for i, one in enumerate(results) if one.is_defective} == {4, 9}
    assert sum(one.verdict == "good" for one in results) >= 16
    for i in (4, 9):
        (x, y) = results[i].regions[0].centroid
        assert 32 <= x <= 44  # the dark square lies at rows 28 to 39, columns 32 to 43
        assert 28 <= y <= 40
        assert results[i].map.shape == (64, 80)
        assert results[i].p_value < 0.01
    assert found.calibrations[None].estimated_defects == pytest.approx(0.1, abs=0.08)


def test_regions_are_compared_with_the_most_normal_images(part: Draw) -> None:
    images = [part("stripes", seed=i, defective=i in (4, 9)) for i in range(12)]
    found = judged([*images, images[4]])
    plain = predictions(found.with_reasons(compare=False))
    english, german = predictions(found), predictions(found.with_reasons(language="de", mm_per_pixel=0.5))
    for i in (4, 9, 12):
        attributes = english[i].regions[0].attributes
        assert attributes is not None
        assert attributes.lightness is not None
        assert attributes.lightness < -5  # a dark square
        crops = english[i].regions[0].crops
        assert crops is not None
        assert crops.good.mean() > crops.found.mean()
        assert german[i].regions[0].words.endswith("(umrandet ab 1)")
        assert " mm" in german[i].regions[0].words
        assert plain[i].regions[0].attributes is None
        assert (plain[i].score, plain[i].verdict) == (english[i].score, english[i].verdict)


def test_an_image_is_never_compared_with_itself(part: Draw) -> None:
    """Also where its score is among the lowest: its own repeat would match without a difference."""
    images = [part("stripes", seed=i) for i in range(6)]
    found = judged([*images, images[0]])
    prediction = replace(predictions(found)[0], regions=(Region((30, 20, 50, 40), 400, 2.0, 1.0, (40.0, 30.0)),))
    frame = found.framings[""].frame(images[0])
    explained = found.references.explained(
        0, frame, prediction, found._distinct[""], found.reasons, lambda i: found.scores[i] is found.scores[0]
    )
    match = explained.regions[0].attributes and explained.regions[0].attributes.match
    assert match is None or match.similarity < 0.999
    assert len(found._distinct[""]) == 6
    assert found._distinct is found._distinct  # made once: with each image it would take the square of their number


def test_a_defect_that_most_images_share_looks_normal(part: Draw) -> None:
    """The known failure of images that judge one another, as the documentation states it."""

    def ratio(defective: int) -> float:
        images = [part("stripes", seed=i, defective=i < defective) for i in range(20)]
        scores = [one.score for one in predictions(judged(images, ranks=()))]
        return float(np.mean(scores[:defective]) / np.median(scores[defective:]))

    assert ratio(2) > 5
    assert ratio(9) < 1.5


def test_scores_do_not_depend_on_the_memory_that_features_get(part: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [part("ring", seed=i) for i in range(8)]
    kept = predictions(judged(images))
    monkeypatch.setattr(mutual_inspection, "MEMORY", 0)  # all features go to the disk
    for one, other in zip(kept, predictions(judged(images)), strict=True):
        assert one.score == other.score
        assert np.array_equal(one.map, other.map)


def test_files_that_cannot_be_read_are_named_and_the_rest_goes_on(part: Draw, tmp_path: Path) -> None:
    for i in range(8):
        Image.fromarray(part(seed=i)).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"nothing")
    results = list(judged(tmp_path))
    assert isinstance(results[3], Failure)
    assert results[3].file.endswith("3.png")
    assert sum(isinstance(one, Prediction) for one in results) == 7
    mixed = list(judged([part(seed=i) for i in range(6)] + ["/nothing/there.png", 7]))
    assert [isinstance(one, Failure) for one in mixed] == [False] * 6 + [True] * 2


def test_a_file_that_goes_away_in_between_is_named(part: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blemish.model.decoded_images.LAST", 0)
    for i in range(6):
        Image.fromarray(part(seed=i)).save(tmp_path / f"{i}.png")
    found = judged(tmp_path)
    found.images.memory = 0
    found.images._kept.clear()
    (tmp_path / "2.png").unlink()
    assert [isinstance(one, Failure) for one in found] == [i == 2 for i in range(6)]


@pytest.mark.parametrize(("count", "got"), [(0, "got 0;"), (1, "got 1;"), (4, "got 4;")], ids=["none", "one", "four"])
def test_too_few_images_are_refused(part: Draw, count: int, got: str) -> None:
    with pytest.raises(DatasetError, match="at least 5 different pictures") as error:
        judged([part(seed=i) for i in range(count)])
    assert got in str(error.value)


def test_five_images_are_enough_but_all_unsure(part: Draw) -> None:
    found = judged([part(seed=i, defective=i == 0) for i in range(5)])
    results = predictions(found)
    assert {one.verdict for one in results} == {"unsure"}
    assert max(range(5), key=lambda i: results[i].score) == 0
    assert all(one.regions for one in results)
    assert not found.calibrations[None].is_conclusive


def test_equal_images_do_not_vouch_for_one_another(part: Draw) -> None:
    with pytest.raises(DatasetError, match="got 9, of which 1 differs from the others"):
        judged([part(seed=1)] * 9)
    images = [part("stripes", seed=i) for i in range(14)]
    defective = part("stripes", seed=50, defective=True)
    once, often = judged([*images, defective]), judged([*images, defective, defective, defective])
    assert [one.score for one in predictions(often)][14:] == [once.scores[14].score] * 3


def test_unreadable_images_do_not_count_as_images(tmp_path: Path, part: Draw) -> None:
    for i in range(6):
        Image.fromarray(part(seed=i)).save(tmp_path / f"{i}.png")
        if i > 2:
            (tmp_path / f"{i}.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"got 6, of which 3 cannot be read: .*3\.png"):
        judged(tmp_path)


def test_measured_points_alone_are_refused() -> None:
    points = np.random.default_rng(0).normal(size=(32, 32, 3)).astype(np.float32) / 100
    with pytest.raises(DatasetError, match="measured points alone"):
        judged([Scan(xyz=points + i) for i in range(6)])
    with pytest.raises(SettingsError, match="no measured points are compared"):
        inspect_mutually([np.zeros((32, 32, 3), np.uint8)] * 6, encoder="pixels+points-fpfh", device="cpu")


def test_of_scans_the_pictures_are_compared(part: Draw) -> None:
    points = np.random.default_rng(0).normal(size=(64, 80, 3)).astype(np.float32) / 100
    images = [part(seed=i) for i in range(6)]
    scans = predictions(judged([Scan(image, points) for image in images]))
    assert [one.score for one in scans] == [one.score for one in predictions(judged(images))]


def test_images_may_have_different_sizes(part: Draw) -> None:
    images = [part(seed=i, size=(64 + 8 * (i % 3), 80)) for i in range(12)]
    for framing in ("part", "plain"):
        results = predictions(judged(images, framing=framing))
        assert [one.map.shape for one in results] == [image.shape[:2] for image in images]


def test_categories_are_judged_apart(part: Draw) -> None:
    samples = [Sample(part(kind, seed=i), category=kind) for kind in ("disc", "ring") for i in range(6)]
    found = judged(samples)
    assert set(found.calibrations) == {"disc", "ring"}
    assert [one.category for one in predictions(found)] == [sample.category for sample in samples]
    alone = predictions(judged(samples[6:]))
    assert [one.score for one in predictions(found)][6:] == [one.score for one in alone]
    with pytest.raises(DatasetError, match="pictures of ring that judge one another; got 2"):
        judged(samples[:8])
    assert set(judged(samples[:8], category="part").calibrations) == {"part"}


def test_many_images_are_judged_in_groups_drawn_by_seed(part: Draw) -> None:
    images = [part("stripes", seed=i, defective=i == 7) for i in range(25)]
    first, again = (predictions(judged(images, group_size=10)) for _ in range(2))
    assert [one.score for one in first] == [one.score for one in again]
    other = predictions(judged(images, group_size=10, seed=1))
    assert [one.score for one in first] != [one.score for one in other]
    assert max(range(25), key=lambda i: first[i].score) == 7


def test_any_encoder_of_images_and_two_joined_ones_can_compare(part: Draw) -> None:
    images = [part("stripes", seed=i, defective=i == 3) for i in range(8)]
    for encoder in ("patches", "pixels+patches"):
        results = predictions(inspect_mutually(images, encoder=encoder, image_size=64, device="cpu"))
        assert max(range(8), key=lambda i: results[i].score) == 3


def test_images_that_look_alike_are_those_that_the_encoder_says_so_of(part: Draw) -> None:
    """Where an encoder describes images as a whole, that decides which are averaged; else the mean of its patches."""
    from dataclasses import replace

    from blemish import encoders
    from blemish.types import WHOLE

    class Speaking:
        """The encoder `pixels`, which describes an image as a whole by whether it is defective."""

        def __init__(self) -> None:
            self.plain = encoders.build("pixels", role="quarters")

        def __getattr__(self, name: str) -> Any:
            return getattr(self.plain, name)

        def encode(self, images: np.ndarray) -> Any:
            features = self.plain.encode(images)
            whole = torch.tensor([[float((one < 20).all(axis=-1).mean() > 0.01), 1.0] for one in images])
            return replace(features, layers={**features.layers, WHOLE: (whole[:, None, None],)})

    images = [part("stripes", seed=i, defective=i < 3) for i in range(12)]
    raw, speaking = (judged(images, ranks=ranks, encoder=Speaking()) for ranks in ((), (3,)))
    wanted = np.mean([raw.scores[i].score for i in range(3)])
    assert [speaking.scores[i].score for i in range(3)] == pytest.approx([wanted] * 3)
    assert all(np.array_equal(raw.scores[i].patches, speaking.scores[i].patches) for i in range(12))


def test_the_framing_is_fitted_on_what_most_images_show(part: Draw) -> None:
    """A part that is torn in two, and an image without one, do not decide how the others are framed."""

    def bar(length: int) -> np.ndarray:
        image = np.full((200, 200, 3), 200, np.uint8)
        image[90:110, 100 - length // 2 : 100 + length // 2] = 30
        return image

    images = [bar(120 + i) for i in range(10)] + [bar(24), np.full((200, 200, 3), 200, np.uint8)]
    settings = mutual_inspection.MutualSettings.of(SMALL)
    encoder = settings.build_encoder()
    decoded = mutual_inspection.DecodedImages([Sample(image) for image in images], lambda sample: sample.image)
    framing = learned_framing(settings, encoder, decoded, range(12))
    assert isinstance(framing, PartFraming)
    assert framing.levels_
    assert framing.crops_
    alone = PartFraming(64, encoder.size_multiple).fit(images)
    assert not alone.crops_


def test_progress_names_the_steps_and_ends_at_the_whole(part: Draw) -> None:
    seen: list[tuple[float, int, str]] = []
    judged(
        [part(seed=i) for i in range(6)], progress=lambda done, total, facts: seen.append((done, total, facts["step"]))
    )
    assert list(dict.fromkeys(step for *_, step in seen)) == [
        "reading pictures",
        "encoding pictures",
        "comparing pictures",
    ]
    shares = [done / total for done, total, _ in seen]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"neighbourhoods": (2,)},
        {"neighbourhoods": ()},
        {"ranks": (0,)},
        {"group_size": 5},
        {"framing": "scan"},
        {"image_size": 0},
        {"pooling": "least"},
        {"detector": "patchcore"},
        {"false_alarm_rate": 1.5},
        {"seed": 2**80},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        judged([], **wrong)


def test_it_is_public_and_lazily_loaded() -> None:
    assert blemish.inspect_mutually is inspect_mutually
    assert "MutualInspection" in dir(blemish)


def test_two_encoders_compare_images_as_hybrid_compares_patches(part: Draw) -> None:
    """Against plain loops; distances are of float32 cosines near 1."""
    images = [part("stripes", seed=i, defective=i == 4) for i in range(8)]
    found = judged(images, encoder="pixels+patches", framing="plain")
    encoder, hybrid = found.encoder, Hybrid()
    inputs = [found.framings[""].frame(image).encoder_input for image in images]
    features = [hybrid.patches(encoder.encode(one[None])) for one in inputs]
    halves = []
    for half in ("local", "context"):
        rows = [one[half][0].half().double() for one in features]  # (h, w, D) each
        if half == "local":
            std = torch.cat([one.flatten(0, 1) for one in rows]).std(0, correction=0)
            rows = [one / (std + STD_OFFSET) for one in rows]
        units = [torch.nn.functional.normalize(one, dim=-1) for one in rows]
        maps = []
        for i, one in enumerate(units):
            others = [torch.cdist(one.flatten(0, 1), units[j].flatten(0, 1)).amin(1) for j in range(8) if j != i]
            maps.append(torch.stack(others).sort(0).values[:2].mean(0).view(one.shape[:2]))
        unit = np.median([image_score(one.numpy(), SEVERAL_SHARES) for one in maps])
        halves.append([one / unit for one in maps])
    for i, (local, context) in enumerate(zip(*halves, strict=True)):
        expected = power_mean([local[None], context[None]])[0].numpy()
        np.testing.assert_allclose(found.scores[i].patches, expected, rtol=2e-3)
        assert found.scores[i].score == pytest.approx(image_score(expected, SEVERAL_SHARES), rel=2e-3)
    assert max(range(8), key=lambda i: found.scores[i].score) == 4


def test_steps_are_the_papers_or_those_of_two_encoders_but_for_what_is_given() -> None:
    one, two = MutualSettings.of({"encoder": "pixels"}), MutualSettings.of({"encoder": "pixels+patches"})
    assert (one.image_size, one.neighbourhoods, one.pooling, one.ranks) == (336, (1, 3, 5), "max", (1, 2, 3))
    assert (two.image_size, two.neighbourhoods, two.ranks) == (512, (1,), ())
    assert two.pooling == Hybrid().pooling
    given = MutualSettings.of({"encoder": "pixels+patches", "image_size": 96, "ranks": (1, 2)})
    assert (given.image_size, given.neighbourhoods, given.ranks) == (96, (1,), (1, 2))
    as_object = MutualSettings.of({"encoder": build("pixels+patches", device="cpu")})
    assert as_object.ranks == ()
    assert MutualSettings().encoder_name == automatic_encoder()
