"""OpenCV's frames: channels turned round, nothing else changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from blemish import from_bgr
from blemish.data import load_image
from blemish.errors import ImageError


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_red_comes_first(kind: Any) -> None:
    frame = np.random.default_rng(0).integers(0, 200, (4, 5, 4)).astype(kind)
    assert np.array_equal(from_bgr(frame[..., :3]), frame[..., 2::-1])
    assert np.array_equal(from_bgr(from_bgr(frame)), frame)  # alpha stays last
    assert from_bgr(frame).dtype == kind
    assert np.array_equal(from_bgr(frame[..., 0]), frame[..., 0])
    assert from_bgr(frame).flags.c_contiguous


def test_a_frame_may_be_overwritten_by_the_next_one() -> None:
    for shape in ((4, 5, 3), (4, 5)):
        frame = np.full(shape, 7, np.uint8)
        image = from_bgr(frame)
        frame[:] = 0
        assert (image == 7).all()


def test_a_blue_frame_is_a_blue_image() -> None:
    frame = np.zeros((4, 5, 3), np.uint8)
    frame[..., 0] = 255
    assert load_image(from_bgr(frame))[0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("given", [None, "frame.png", np.zeros(3), np.zeros((2, 3, 4, 3)), np.zeros((3, 4, 5))])
def test_what_is_no_frame_is_refused(given: Any) -> None:
    with pytest.raises(ImageError, match="a frame of OpenCV"):
        from_bgr(given)
