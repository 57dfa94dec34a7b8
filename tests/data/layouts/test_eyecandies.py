from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blemish.data import inspection_samples, load_dataset, load_scan, normal_samples
from blemish.errors import DatasetError, DataWarning

Write = Callable[..., Path]
SIZE = (6, 6)


@pytest.fixture
def root(tmp_path: Path, write: Write) -> Path:
    """Two categories of 3 parts to learn from, 2 for validation, 4 to test on: good, bumps, bumps and colours, good."""
    root = tmp_path / "Eyecandies"
    shown = {"01": ("bumps",), "02": ("bumps", "colors")}
    for category in ("GummyBear", "Lollipop"):
        for split, count in {"train": 3, "val": 2, "test_public": 4, "test_private": 2}.items():
            data = root / category / split / "data"
            for i in range(count):
                part = f"{i:02}"
                for light in range(6):
                    write(data / f"{part}_image_{light}.png", 40 * light, SIZE)
                write(data / f"{part}_normals.png", 128, SIZE)
                Image.fromarray(np.full(SIZE, 65535, np.uint16)).save(data / f"{part}_depth.png")
                (data / f"{part}_info_depth.yaml").write_text("normalization:\n  max: 2.0\n  min: 1.0\n")
                if split == "test_private":
                    continue
                kinds = shown.get(part, ()) if split == "test_public" else ()
                (data / f"{part}_metadata.yaml").write_text(f"anomalous: {int(bool(kinds))}\n")
                for kind in ("bumps", "dents", "colors", "normals"):
                    write(data / f"{part}_{kind}_mask.png", 255 * (kind in kinds), SIZE)
                write(data / f"{part}_mask.png", 255 * bool(kinds), SIZE)
    return root


def test_a_dataset(root: Path) -> None:
    dataset = load_dataset(root)
    assert (dataset.name, dataset.layout) == ("Eyecandies", "eyecandies")
    assert list(dataset.categories) == ["GummyBear", "Lollipop"]
    bear = dataset.categories["GummyBear"]
    data = root / "GummyBear" / "train" / "data"
    assert [(s.image, s.points) for s in bear.train] == [
        (data / f"{i:02}_image_4.png", data / f"{i:02}_depth.png") for i in range(3)
    ]
    assert {(s.label, s.category, s.split, s.defect) for s in bear.train} == {(0, "GummyBear", "train", "")}
    assert [s.split for s in bear.validation] == ["validation"] * 2
    assert [(s.label, s.defect) for s in bear.test] == [(0, ""), (1, "bumps"), (1, "bumps, colors"), (0, "")]
    assert [s.mask is not None for s in bear.test] == [False, True, True, False]
    scan = load_scan(bear.test[1])
    assert scan.shape == SIZE
    assert (scan.rgb == 160).all()
    assert (scan.xyz[..., 2] == 2).all()


def test_without_metadata_the_mask_tells(root: Path) -> None:
    data = root / "GummyBear" / "test_public" / "data"
    for i in range(4):
        (data / f"{i:02}_metadata.yaml").unlink()
    assert [s.label for s in load_dataset(root).categories["GummyBear"].test] == [0, 1, 1, 0]
    (data / "03_mask.png").unlink()
    with pytest.warns(DataWarning, match=r"03_image_4\.png' is left out: no '.*03_metadata\.yaml'"):
        assert [s.label for s in load_dataset(root).categories["GummyBear"].test] == [0, 1, 1]


@pytest.mark.parametrize(
    ("absent", "there", "lacking"),
    [
        ("depth.png", "image_4.png", "points"),
        ("image_4.png", "depth.png", "picture"),
        ("info_depth.yaml", "image_4.png", "points"),
    ],
)
def test_half_a_scan_is_named_and_all_others_are_there(root: Path, absent: str, there: str, lacking: str) -> None:
    (root / "Lollipop" / "train" / "data" / f"01_{absent}").unlink()
    said = rf"01_{there}' is a scan without its {lacking}: nothing at '.*01_{absent}'"
    with pytest.warns(DataWarning, match=said) as caught:
        train = load_dataset(root).categories["Lollipop"].train
    assert len(caught) == 1
    assert [s.points is None for s in train] == [False, lacking == "points", False]
    assert [s.image is None for s in train] == [False, lacking == "picture", False]


def test_paths_mean_one_image_a_part(root: Path) -> None:
    assert len(normal_samples(root)) == 6
    assert len(inspection_samples(root / "Lollipop")) == 4
    assert len(normal_samples(root / "Lollipop" / "val")) == 2
    tested = inspection_samples(root / "Lollipop" / "test_public")
    assert [s.label for s in tested] == [0, 1, 1, 0]
    with pytest.raises(DatasetError, match="defective or masks"):
        normal_samples(root / "Lollipop" / "test_public")
    with pytest.raises(DatasetError, match="unlabelled"):
        inspection_samples(root / "Lollipop" / "test_private")
