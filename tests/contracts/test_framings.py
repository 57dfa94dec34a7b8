"""The promise of every registered framing: what the encoder sees, and the way back to the image."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from blemish.preprocessing.framing import FRAMINGS, Frame, Framing, build_framing
from blemish.scoring.anomaly_map import full_map
from blemish.types import ImageOrScan, Scan

pytestmark = pytest.mark.parametrize("name", FRAMINGS)

SIZES = [(120, 160), (160, 120), (128, 128), (300, 420)]
KINDS = ("bare", "long", "round")
MULTIPLE = 8
RED, GREEN, GREY = (230, 20, 20), (30, 150, 60), 90


def image_of(
    kind: str, size: tuple[int, int], seed: int = 0, mark: tuple[float, float] | None = None, side: int = 0
) -> np.ndarray:
    """A green part, long or round, or none ("bare") on grey ground; a red square `mark` (x, y) of `side` pixels."""
    height, width = size
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), GREY, np.uint8)
    y, x = np.mgrid[:height, :width] + 0.5
    x, y = x - width / 2 - rng.uniform(-6, 6), y - height / 2 - rng.uniform(-6, 6)
    angle = rng.uniform(0.2, 0.6)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    short = min(size)
    if kind != "bare":
        length, breadth = (0.36, 0.1) if kind == "long" else (0.22, 0.2)
        image[(along / (length * short)) ** 2 + (across / (breadth * short)) ** 2 < 1] = GREEN
    if mark is not None:
        left, top = round(mark[0] - side / 2), round(mark[1] - side / 2)
        image[top : top + side, left : left + side] = RED
    return image


def input_of(name: str, image: np.ndarray) -> ImageOrScan:
    """The image as the framing takes it: with points of a dome on a plane where it is for scans."""
    if name != "scan":
        return image
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width] / 1000
    dome = 0.02 * np.sqrt(np.clip(1 - ((x - width / 2000) ** 2 + (y - height / 2000) ** 2) / 0.045**2, 0, 1))
    z = 0.4 - dome + np.random.default_rng(0).normal(0, 1e-4, dome.shape)
    return Scan(image, np.stack([x, y, z], axis=-1).astype(np.float32))


def fitted(name: str, kind: str, size: tuple[int, int], **settings: Any) -> Framing:
    framing = build_framing(name, image_size=96, multiple=MULTIPLE, **settings)
    return framing.fit([input_of(name, image_of(kind, size, seed)) for seed in range(4)])


def content(frame: Frame) -> bytes:
    return (
        bytes(frame.encoder_input.tobytes())
        + repr((frame.encoder_input.shape, frame.original_size, frame.to_image)).encode()
    )


def redness(frame: Frame) -> np.ndarray:
    """How much of the mark each pixel `(h, w)` of a frame shows, 0 to 1."""
    rgb = (frame.encoder_input.rgb if isinstance(frame.encoder_input, Scan) else frame.encoder_input).astype(np.float32)
    return ((rgb[..., 0] - np.maximum(rgb[..., 1], GREY)) / (RED[0] - GREY)).clip(0, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_a_map_of_the_frame_lands_on_the_image(name: str, kind: str, size: tuple[int, int]) -> None:
    """A mark on the part is where it was, and as large, once the frame's own redness is projected back."""
    framing = fitted(name, kind, size)
    side = max(4, min(size) // 10)
    for dx, dy in ((0, 0), (12, 5), (-10, -4)):
        x, y = round(size[1] / 2 + dx), round(size[0] / 2 + dy)
        frame = framing.frame(input_of(name, image_of(kind, size, 9, (x, y), side)))
        height, width = frame.encoder_input.shape[:2]
        back = full_map(redness(frame), (height, width), frame.original_size, frame.to_image, blur=0)
        assert back.shape == frame.original_size == size
        rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
        coarse = max(1.0, max(size) / min(height, width))
        shift = side % 2 / 2  # a square of odd side is centred half a pixel off
        found = (columns * back).sum() / back.sum(), (rows * back).sum() / back.sum()
        assert found == pytest.approx((x + shift, y + shift), abs=0.6 * coarse)
        assert back.sum() == pytest.approx(side**2, rel=0.3)


@pytest.mark.parametrize("kind", KINDS)
def test_its_state_makes_the_same_framing_again(name: str, kind: str) -> None:
    """Through numpy's file format, as a model folder stores it."""
    framing = fitted(name, kind, SIZES[0])
    file = io.BytesIO()
    np.savez(file, **framing.state())
    file.seek(0)
    with np.load(file, allow_pickle=False) as stored:
        again = build_framing(name, **framing.settings).load_state({key: stored[key] for key in stored.files})
    assert again.settings == framing.settings
    assert again.poses == framing.poses
    for size in SIZES:
        probe = input_of(name, image_of(kind, size, 7))
        assert content(again.frame(probe)) == content(framing.frame(probe))
    assert all(isinstance(array, np.ndarray) for array in framing.state().values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_depends_on_the_fit_and_its_own_image_alone(name: str, kind: str) -> None:
    framing, twin = fitted(name, kind, SIZES[0]), fitted(name, kind, SIZES[0])
    probes = [input_of(name, image_of(kind, size, 5)) for size in SIZES]
    first = [content(framing.frame(probe)) for probe in probes]
    assert [content(framing.frame(probe)) for probe in reversed(probes)] == first[::-1]
    assert [content(twin.frame(probe)) for probe in probes] == first


@pytest.mark.parametrize("kind", KINDS)
def test_frames_have_the_sides_an_encoder_takes_and_leave_the_image_alone(name: str, kind: str) -> None:
    framing = fitted(name, kind, SIZES[0])
    assert isinstance(framing, Framing)
    for size in (*SIZES, (9, 14), (40, 400)):
        probe = input_of(name, image_of(kind, size, 3))
        before = probe.tobytes()
        frame = framing.frame(probe)
        assert probe.tobytes() == before
        assert isinstance(frame.encoder_input, type(probe))
        assert all(side > 0 and side % MULTIPLE == 0 for side in frame.encoder_input.shape[:2])
        assert frame.to_image is None or (frame.to_image.shape == (2, 3) and np.isfinite(frame.to_image).all())


def test_a_square_is_square_before_anything_is_fitted(name: str) -> None:
    framing = build_framing(name, image_size=96, multiple=MULTIPLE, square=True)
    assert framing.settings["square"] is True
    assert framing.fit([]) is framing
    assert len(set(framing.frame(image_of("bare", (60, 90))).encoder_input.shape[:2])) == 1
