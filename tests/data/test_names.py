from __future__ import annotations

from pathlib import Path

import pytest

from blemish.data.names import Meaning, masks_beside, meaning_of, words_in


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("good", "good"),
        ("OK_front", "good"),
        ("okParts", "good"),
        ("line2-ok", "good"),
        ("defect-free", "good"),
        ("no_defects", "good"),
        ("def_front", "defective"),
        ("bad001", "defective"),
        ("NG", "defective"),
        ("not_ok", "defective"),
        ("ok_and_rejects", "defective"),
        ("n.i.O.", "defective"),
        ("Teile_n_i_o_2", "defective"),
        ("niO", "defective"),
        ("NiO_powder", None),  # nickel oxide
        ("union", None),
        ("ground_truth", "mask"),
        ("masks_left", "mask"),
        ("part_GT", "mask"),
        ("monday", None),
        ("cookie", None),
        ("bookend", None),
        ("definition", None),
        ("high_def", None),
        ("anomaly_detection", None),
        ("defect_inspection_2024", None),
        ("4bad12ef-11d2-bad1-9f00-00c04fd430c8", None),
    ],
)
def test_parts_of_names_are_understood(name: str, meaning: Meaning | None) -> None:
    assert meaning_of(name) == meaning


def test_kinds_of_defect_are_understood_on_request() -> None:
    assert meaning_of("scratch_left", kinds=True) == "defective"
    assert meaning_of("scratch_left") is None
    assert words_in("IMG_0012 left-Side") == ["img", "left", "side"]


def test_masks_are_named_after_the_image_beside_them() -> None:
    images = [Path(p) for p in ("a/x.jpg", "a/x_GT.png", "a/y_mask.png", "b/x_label.bmp", "a/z.png", "a/z-mask.tif")]
    assert masks_beside(images) == [Path("a/x_GT.png"), Path("a/z-mask.tif")]
