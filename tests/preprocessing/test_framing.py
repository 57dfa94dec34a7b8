from __future__ import annotations

import numpy as np
import pytest

from blemish.data import resize_image
from blemish.preprocessing.framing import FRAMINGS, Framing, PlainFraming, build_framing


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_whole_image_is_resized() -> None:
    whole = image(100, 200)
    frame = PlainFraming(image_size=56, multiple=14).frame(whole)
    assert frame.pixels.shape == (56, 112, 3)
    assert frame.pixels.dtype == np.uint8
    assert frame.original_size == (100, 200)
    assert frame.to_image is None
    assert np.array_equal(frame.pixels, resize_image(whole, (56, 112)))


def test_a_square_is_square() -> None:
    assert PlainFraming(image_size=60, multiple=8, square=True).frame(image(30, 90)).pixels.shape == (64, 64, 3)


@pytest.mark.parametrize("name", FRAMINGS)
def test_every_framing_keeps_its_promise(name: str) -> None:
    framing = build_framing(name, image_size=64, multiple=16, square=False)
    assert isinstance(framing, Framing)
    assert framing.fit([image(70, 90), image(70, 90)]) is framing
    frame = framing.frame(image(70, 90))
    again = build_framing(name, **framing.settings).load_state(framing.state())
    np.testing.assert_array_equal(again.frame(image(70, 90)).pixels, frame.pixels)  # NaN, where nothing is, equals NaN
    assert all(side % 16 == 0 for side in frame.pixels.shape[:2])
    assert all(isinstance(array, np.ndarray) for array in framing.state().values())
    assert frame.to_image is None or frame.to_image.shape == (2, 3)
