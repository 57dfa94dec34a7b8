"""A model of made-up discs, and a folder of pictures to inspect: good, defective, broken, turned, of 16 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from batch_parts import disc
from PIL import Image


@pytest.fixture(scope="session")
def disc_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from blemish import Inspector

    inspector = Inspector("pixels", "patchcore", image_size=64, device="cpu")
    return inspector.fit([disc(seed) for seed in range(6)]).save(tmp_path_factory.mktemp("model") / "disc")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten pictures and a broken file, some of them in a folder below."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    for seed in range(8):
        image = Image.fromarray(disc(20 + seed, defective=seed % 2 == 1))
        image.save(folder / ("below" if seed > 5 else "") / f"{seed}.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(disc(40)).save(folder / "turned.jpg", exif=turned)
    deep = disc(41)[..., 0].astype(np.uint16) << 8
    Image.fromarray(deep).save(folder / "deep.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n nothing")
    return folder
