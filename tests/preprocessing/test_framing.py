from __future__ import annotations

import numpy as np

from blemish.data import resize_image
from blemish.preprocessing.framing import PlainFraming


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_whole_image_is_resized() -> None:
    whole = image(100, 200)
    frame = PlainFraming(image_size=56, multiple=14).frame(whole)
    assert frame.encoder_input.shape == (56, 112, 3)
    assert frame.encoder_input.dtype == np.uint8
    assert frame.original_size == (100, 200)
    assert frame.to_image is None
    assert np.array_equal(frame.encoder_input, resize_image(whole, (56, 112)))


def test_a_square_is_square() -> None:
    assert PlainFraming(image_size=60, multiple=8, square=True).frame(image(30, 90)).encoder_input.shape == (64, 64, 3)
