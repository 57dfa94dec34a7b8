from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blemish.data.images import load_mask
from blemish.data.masks import is_turn_doubtful, mask_for, masks_by_stem
from blemish.errors import ImageError
from blemish.types import Sample


@pytest.mark.parametrize(
    "name", ["000_mask.png", "000.png", "000_GT.bmp", "000_label.tif", "mask_000.png", "gt_000.png", "000.PNG"]
)
def test_a_mask_is_found_by_any_usual_name(name: str) -> None:
    folder = Path("ground_truth/bent")
    by_stem = masks_by_stem([folder / "line 2" / name, folder / name, folder / "0001_mask.png"], folder)
    assert mask_for(Path("000.jpg"), by_stem) == folder / name
    assert mask_for(Path("line 2/000.jpg"), by_stem) == folder / "line 2" / name
    assert mask_for(Path("00.jpg"), by_stem) is None


def test_names_that_differ_in_case_alone_have_masks_of_their_own() -> None:
    by_stem = masks_by_stem([Path("A_mask.png"), Path("a_mask.png"), Path("b_MASK.png")], Path())
    found = [mask_for(Path(name), by_stem) for name in ("A.png", "a.png", "B.png")]
    assert found == [Path("A_mask.png"), Path("a_mask.png"), Path("b_MASK.png")]


def test_an_image_whose_own_name_ends_like_a_mask_keeps_its_own() -> None:
    files = [Path("a_label.png"), Path("a_label_mask.png"), Path("a.png")]
    by_stem = masks_by_stem(files, Path())
    assert mask_for(Path("a_label.jpg"), by_stem) == Path("a_label_mask.png")
    assert mask_for(Path("a.jpg"), by_stem) == Path("a.png")


@pytest.mark.parametrize(("orientation", "is_doubtful"), [(1, False), (3, True), (6, False)])
def test_a_mask_drawn_before_exif_turned_its_image(tmp_path: Path, orientation: int, is_doubtful: bool) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("L", (8, 6), 1).save(tmp_path / "m.png")
    sample = Sample(tmp_path / "a.jpg", label=1, mask=tmp_path / "m.png")
    size = (8, 6) if orientation == 6 else (6, 8)
    if orientation == 6:  # the shape tells
        with pytest.raises(ImageError, match=r"6x8 .*8x6 \(drawn before the picture was turned upright\?\)"):
            load_mask(tmp_path / "m.png", size)
    mask = np.zeros(size, bool)
    mask[0, 0] = True
    assert is_turn_doubtful(mask, sample) == is_doubtful
    assert not is_turn_doubtful(mask, Sample(np.zeros((3, 3, 3), np.uint8), mask=mask))
