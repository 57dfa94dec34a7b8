from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from blemish.report import write_scan_sheet
from blemish.types import Sample


def test_the_sheet_shows_every_sample_and_needs_no_other_file(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    image, points = random.integers(0, 255, (32, 32, 3), dtype=np.uint8), random.random((32, 32, 3))
    mask = np.zeros((32, 32), bool)
    mask[4:9, 4:9] = True
    good = Sample(image, points, 0, None, "cup & saucer")
    bad = Sample(image, points, 1, mask, "cup & saucer", "dent")
    path = write_scan_sheet(
        tmp_path / "index.html", "Cups", {"cup & saucer": [good, bad]}, counts={"seed": 7}, command="blemish generate x"
    )
    page = path.read_text(encoding="utf-8")
    assert page.count("<figure") == 2
    assert page.count("data:image/jpeg") == 2
    assert "25 pixels" in page
    assert "Cup &amp; saucer" in page
    assert "blemish generate x" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
