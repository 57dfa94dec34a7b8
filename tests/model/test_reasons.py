"""Reasons that point at a place, on made-up defects of known attributes; matches, settings, what is saved."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from blemish.errors import SettingsError
from blemish.model.reasons import COMPARED, InspectedFrame, ReasonSettings, mm_per_pixel, with_reasons
from blemish.model.reference_images import ReferenceImages
from blemish.model.surroundings import Surroundings, turned
from blemish.preprocessing.framing import Frame
from blemish.research.known_defects import KNOWN_DEFECTS, KnownDefect, Stage
from blemish.scoring.anomaly_map import regions
from blemish.scoring.naming import differences_of
from blemish.scoring.part_outline import PartOutline
from blemish.scoring.region_attributes import Crops
from blemish.scoring.sentences import MOST_WORDS
from blemish.types import Attributes, Features, Region, Scan

SIZE, CELL = 192, 8


def good_image(seed: int, size: int = SIZE) -> np.ndarray:
    """A part on a plain background, `(size, size, 3)` uint8: two tones, a bar, a printed square, grain; it jitters."""
    random = np.random.default_rng((seed, 7))
    y, x = np.mgrid[:size, :size] - (size / 2 + random.uniform(-2, 2, (2, 1, 1)))
    image = np.full((size, size, 3), (225.0, 225.0, 220.0))
    part = (np.abs(x) / (0.42 * size)) ** 4 + (np.abs(y) / (0.36 * size)) ** 4 <= 1
    image[part] = (120, 130, 100)
    image[part & (x > 0.1 * size)] = (105, 115, 135)
    image[part & (np.abs(y) < 0.03 * size) & (x < 0)] = (70, 75, 60)
    image[part & (np.abs(x - 0.22 * size) < 0.06 * size) & (np.abs(y + 0.1 * size) < 0.06 * size)] = (160, 140, 90)
    image = ndimage.gaussian_filter(image, (0.7, 0.7, 0)) + random.normal(0, 1.5, image.shape) + random.uniform(-2, 2)
    return np.rint(image).clip(0, 255).astype(np.uint8)


def features_of(image: np.ndarray) -> Features:
    """Means, deviations and gradients of cells and their neighbours: an encoder small enough to read."""
    pool = torch.nn.functional.avg_pool2d
    x = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None] / 255  # (1, 3, H, W)
    mean = pool(x, CELL)
    std = (pool(x**2, CELL) - mean**2).clamp_min(0).sqrt()
    own = torch.cat([mean, std], dim=1)  # (1, 6, h, w)
    near = [torch.roll(own, shift, (2, 3)) for shift in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    return Features({"rgb": (torch.cat([own, *near], dim=1).permute(0, 2, 3, 1),)})


@pytest.fixture(scope="module")
def references() -> ReferenceImages:
    images = [good_image(seed) for seed in range(3)]
    kept = ReferenceImages.fit([f"good/{i}.png" for i in range(3)], images, [features_of(i) for i in images])
    assert kept is not None
    return kept


def inspected(
    image: np.ndarray, mask: np.ndarray, references: ReferenceImages | None, **settings: object
) -> tuple[Region, ...]:
    """The regions of an image whose map is a blurred defect mask, as detectors' are."""
    scores = ndimage.gaussian_filter(ndimage.binary_dilation(mask, iterations=3).astype(np.float32), 3)
    frame = Frame(image, (image.shape[0], image.shape[1]))
    facts = InspectedFrame(
        frame,
        features_of(image),
        scores,
        0.3,
        references,
        ReasonSettings(**settings),  # type: ignore[arg-type]
    )
    return with_reasons(regions(scores, 0.3), facts)


def made_up(kind: str, seed: int) -> KnownDefect | None:
    return KNOWN_DEFECTS[kind](Stage.of(good_image(100 + seed)), np.random.default_rng(seed))


def judged(found: Attributes, defect: KnownDefect) -> tuple[bool, bool, bool, bool]:
    """Whether noun, words, place (to one cell) and direction are right."""
    said = {word.removeprefix("slightly_") for word in differences_of(found)}
    far = np.hypot(found.centre[0] - defect.centre[0], found.centre[1] - defect.centre[1])
    turn = 0.0 if defect.degrees is None else abs(found.degrees - defect.degrees) % 180
    return found.noun in defect.nouns, defect.words <= said, bool(far <= CELL), min(turn, 180 - turn) <= 10


def test_attributes_of_made_up_defects_are_right(references: ReferenceImages) -> None:
    right: dict[str, list[tuple[bool, ...]]] = defaultdict(list)
    for seed in range(8):
        for kind in KNOWN_DEFECTS:
            defect = made_up(kind, seed)
            if defect is not None:
                found = inspected(defect.image, defect.mask, references)[0].attributes
                assert found is not None
                right[kind].append(judged(found, defect))
    shares = {kind: np.mean(rows, axis=0) for kind, rows in right.items()}
    assert shares.keys() == KNOWN_DEFECTS.keys()
    assert (np.mean([row for rows in right.values() for row in rows], axis=0) >= 0.95).all(), shares
    assert all((share >= 0.75).all() for share in shares.values()), shares


def test_differences_of_colour_are_those_that_were_made(references: ReferenceImages) -> None:
    for seed in range(4):
        defect = made_up("darker", seed)
        assert defect is not None
        found = inspected(defect.image, defect.mask, references)[0].attributes
        assert found is not None
        assert found.lightness == pytest.approx(
            float(defect.delta[0]), abs=max(2.5, 0.15 * abs(float(defect.delta[0])))
        )
        assert found.area_share * Stage.of(good_image(100 + seed)).part.sum() == pytest.approx(
            defect.mask.sum(), rel=0.35
        )


def test_the_match_is_the_same_place_of_a_good_image(references: ReferenceImages) -> None:
    for seed in range(4):
        defect = made_up("line", seed)
        assert defect is not None
        region = inspected(defect.image, defect.mask, references)[0]
        assert region.attributes is not None
        assert region.crops is not None
        match = region.attributes.match
        assert match is not None
        middle = (np.array(region.box[:2]) + region.box[2:]) / 2
        assert np.hypot(*(np.array(match.centre) - middle)) <= 2 * CELL  # the context may be cut at the image's edge
        assert match.degrees == 0
        assert match.file.endswith(".png")
        assert region.crops.found.shape == region.crops.good.shape


def test_turning_the_image_turns_the_match() -> None:
    def unturned(image: np.ndarray) -> Features:  # means and deviations alone look the same from all sides
        return Features({"rgb": (features_of(image).layers["rgb"][0][..., :6],)})

    images = [good_image(seed) for seed in range(3)]
    kept = ReferenceImages.fit(["a", "b", "c"], images, [unturned(image) for image in images])
    assert kept is not None
    cells = kept.directions.cells(unturned(np.rot90(good_image(9)).copy()))  # turned counter-clockwise
    inside = np.zeros(cells.shape[:2], dtype=bool)
    inside[7, 9] = True  # beside the printed square, which is up and right of the middle on good images
    found = kept.place_of(Surroundings.of(cells, inside))
    assert found is not None
    assert found.degrees == 90  # the part lies 90° further clockwise there
    assert np.hypot(found.cell[0] - 9, found.cell[1] - 16) <= 1  # (row, column) of rot90: (r, c) ↦ (c, 23 − r)


def test_offsets_turn_clockwise() -> None:
    right, down = np.array([[0, 3]]), np.array([[3, 0]])  # (y, x)
    assert (turned(right, 90) == down).all()
    assert (turned(down, 90) == -right).all()
    assert (turned(right, 0) == right).all()


def test_what_looks_like_nothing_learned_is_not_compared(references: ReferenceImages) -> None:
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[60:100, 60:110] = True
    region = inspected(noise, mask, references)[0]
    assert region.attributes is not None
    assert not region.attributes.is_known
    assert region.attributes.noun == "unusual"
    assert region.attributes.colour_difference is None
    assert region.crops is None
    assert "looks like nothing learned" in region.words


def test_without_kept_images_there_are_fewer_attributes() -> None:
    defect = made_up("line", 0)
    assert defect is not None
    region = inspected(defect.image, defect.mask, None)[0]
    assert region.attributes is not None
    assert region.attributes.match is None
    assert region.attributes.colour_difference is None
    assert region.attributes.elongation > 1.5
    assert "of the picture" in region.words
    assert "nothing learned" not in region.words


@pytest.mark.parametrize("shape", [(16, 1600), (1600, 16), (24, 800), (16, 16)])
@pytest.mark.parametrize("where", ["all", "first", "last", "across", "along"])
def test_places_lie_in_pictures_of_any_shape(shape: tuple[int, int], where: str) -> None:
    height, width = shape
    left, top, right, bottom = {
        "all": (0, 0, width, height),
        "first": (0, 0, 1, 1),
        "last": (width - 1, height - 1, width, height),
        "across": (0, 0, width, 1),
        "along": (0, 0, 1, height),
    }[where]
    image = np.random.default_rng(0).integers(118, 123, (height, width, 3), dtype=np.uint8)  # no part stands out
    mask = np.zeros(shape, np.float32)
    mask[top:bottom, left:right] = 1
    kept = ReferenceImages.fit(["0.png"], [image], [features_of(image)])
    region = Region((left, top, right, bottom), int(mask.sum()), 1.0, 1.0, ((left + right) / 2, (top + bottom) / 2))
    facts = InspectedFrame(Frame(image, shape), features_of(image), mask, 0.3, kept, ReasonSettings())
    found = with_reasons([region], facts)[0].attributes
    assert found is not None
    assert 0 <= found.centre[0] <= width
    assert 0 <= found.centre[1] <= height
    assert not found.is_of_part
    assert 0 < found.area_share <= 1


def test_the_outline_of_a_part_in_a_strip() -> None:
    image = np.full((32, 4000, 3), 240, np.uint8)
    image[8:24, 500:3500] = 60
    for pixels, box in ((image, (500, 8, 3500, 24)), (image.transpose(1, 0, 2), (8, 500, 24, 3500))):
        part = PartOutline.of_image(np.ascontiguousarray(pixels), np.eye(2, 3))
        assert part is not None
        assert part.box == pytest.approx(box, abs=4)
        assert part.area == pytest.approx(16 * 3000, rel=0.05)


def test_sizes_in_mm_follow_the_scale(references: ReferenceImages) -> None:
    defect = made_up("line", 1)
    assert defect is not None
    one, two = (
        inspected(defect.image, defect.mask, references, mm_per_pixel=scale)[0].attributes for scale in (0.1, 0.2)
    )
    assert one is not None
    assert two is not None
    assert one.length_mm == pytest.approx(0.1 * one.length)
    assert two.length_mm == pytest.approx(2 * (one.length_mm or 0))


def test_only_the_strongest_regions_are_compared(references: ReferenceImages) -> None:
    image = good_image(50)
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[40:160:40, 40:160:40] = True
    mask = ndimage.binary_dilation(mask, iterations=4)
    found = inspected(image, mask, references)
    assert len(found) == 9
    assert sum(region.crops is not None for region in found) == COMPARED
    assert all(region.words and len(region.words.split()) <= MOST_WORDS for region in found)


def test_the_language_changes_words_alone(references: ReferenceImages) -> None:
    defect = made_up("darker", 2)
    assert defect is not None
    english, german = (inspected(defect.image, defect.mask, references, language=name)[0] for name in ("en", "de"))
    assert english.attributes == german.attributes
    assert "dark" in english.words.lower()
    assert "dunkl" in german.words.lower()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mm_per_pixel": 0.0}, ("above 0 mm", "0.0", "measure")),
        ({"mm_per_pixel": -1.0}, ("above 0 mm", "-1.0", "measure")),
        ({"mm_per_pixel": float("nan")}, ("above 0 mm", "nan", "measure")),
        ({"language": "xx"}, ("de, en", "'xx'", "name one")),
        ({"language": "../en"}, ("de, en", "'../en'", "name one")),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], words: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError) as error:
        ReasonSettings(**settings)  # type: ignore[arg-type]
    assert all(word in str(error.value) for word in words)


def test_kept_images_come_back_as_they_were(references: ReferenceImages) -> None:
    facts, tensors = references.to_state()
    back = ReferenceImages.from_state(json.loads(json.dumps(facts)), tensors)
    defect = made_up("discoloured", 3)
    assert defect is not None
    assert inspected(defect.image, defect.mask, back) == inspected(defect.image, defect.mask, references)


def test_attributes_survive_json(references: ReferenceImages) -> None:
    defect = made_up("missing", 0)
    assert defect is not None
    found = inspected(defect.image, defect.mask, references)[0].attributes
    assert found is not None
    assert Attributes.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    newer = found.to_dict() | {"unheard_of": 1}
    assert Attributes.from_dict(newer) == found


def test_surroundings_keep_to_the_image() -> None:
    cells = np.random.default_rng(0).normal(size=(10, 12, 4)).astype(np.float32)
    inside = np.zeros((10, 12), dtype=bool)
    inside[0, 11] = True
    around = Surroundings.of(cells, inside)
    assert around.centre == (0, 11)
    places = around.offsets + around.centre
    assert places.min() >= 0
    assert (places < (10, 12)).all()
    assert around.weights.max() == 1.0
    assert around.weights[(around.offsets == 0).all(axis=1)] == pytest.approx(0.1)


def test_heights_of_scans_are_measured_in_mm(references: ReferenceImages) -> None:
    y, x = np.mgrid[:96, :96].astype(np.float32) * 1e-3
    plane = np.stack([x, y, 0.5 + 0.1 * x + 0.05 * y], axis=-1)  # (96, 96, 3) in metres
    kept = ReferenceImages.fit(
        ["a", "b"],
        [Scan(None, plane)] * 2,
        [
            replace(features_of(good_image(0, 96)), layers={"points": features_of(good_image(i, 96)).layers["rgb"]})
            for i in range(2)
        ],
    )
    assert kept is not None
    mask = np.hypot(x - 0.05, y - 0.04) < 0.01
    for depth, noun in ((0.002, "dent"), (-0.002, "bump")):
        scan = Scan(None, plane + np.where(mask[..., None], (0, 0, depth), (0, 0, 0)).astype(np.float32))
        scores = ndimage.gaussian_filter(mask.astype(np.float32), 1)
        features = Features({"points": features_of(good_image(0, 96)).layers["rgb"]})
        facts = InspectedFrame(Frame(scan, (96, 96)), features, scores, 0.3, kept, ReasonSettings())
        found = with_reasons(regions(scores, 0.3), facts)[0].attributes
        assert found is not None
        assert found.noun == noun
        assert found.height_mm == pytest.approx(-1000 * depth, rel=0.1)
        assert found.length_mm == pytest.approx(20, rel=0.2)


@pytest.mark.parametrize("zoom", [1, 2, 3])
def test_points_that_an_enlarged_scan_repeats_do_not_make_it_larger(zoom: int) -> None:
    y, x = np.mgrid[:60, :60].astype(np.float32) * 1e-3
    points = np.stack([x, y, np.where(x > 0.03, 0.5, 0.6)], axis=-1)  # (60, 60, 3) in metres, with an edge in depth
    points = points.repeat(zoom, 0).repeat(zoom, 1)
    to_image = np.array([[1 / zoom, 0.0, 0.0], [0.0, 1 / zoom, 0.0]])
    crops = Crops(None, None, np.ones(points.shape[:2], bool), to_image, points)
    assert mm_per_pixel(crops) == pytest.approx(1, rel=0.05)


def test_a_missing_modality_is_not_compared(references: ReferenceImages) -> None:
    features = features_of(good_image(0))
    absent = replace(features, valid={"rgb": torch.zeros(features["rgb"].shape[:3], dtype=torch.bool)})
    assert references.cells_of(features) is not None
    assert references.cells_of(absent) is None
