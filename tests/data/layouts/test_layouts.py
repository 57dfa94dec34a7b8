from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blemish.data import inspection_samples, load_dataset, load_mask
from blemish.errors import DatasetError

Write = Callable[..., Path]


def test_mvtec_root(mvtec_root: Path) -> None:
    dataset = load_dataset(mvtec_root)
    assert (dataset.name, dataset.layout, list(dataset.categories)) == ("parts", "mvtec", ["bolt", "nut"])
    nut = dataset.categories["nut"]
    assert [s.image.name for s in nut.train] == ["001.png", "002.png", "010.png"]
    assert {(s.label, s.category, s.split, s.defect) for s in nut.train} == {(0, "nut", "train", "")}
    assert [(s.defect, s.label, s.split) for s in nut.test] == [
        ("bent", 1, "test"),
        ("", 0, "test"),
        ("scratch", 1, "test"),
        ("scratch", 1, "test"),
    ]
    assert nut.defective[1].mask == mvtec_root / "nut/ground_truth/scratch/000_mask.png"
    assert nut.defective[2].mask is None
    assert not nut.has_masks
    assert dataset.categories["bolt"].has_masks
    assert len(nut.good) == 1


def test_one_category_is_named_after_its_folders(mvtec_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load_dataset(mvtec_root / "nut")
    assert (dataset.name, list(dataset.categories)) == ("parts", ["nut"])
    monkeypatch.chdir(mvtec_root / "nut")
    here = load_dataset(".")
    assert (here.name, list(here.categories)) == ("parts", ["nut"])
    assert here.categories["nut"].train[0].category == "nut"


def test_categories_can_be_chosen(mvtec_root: Path) -> None:
    assert list(load_dataset(mvtec_root, ["nut"]).categories) == ["nut"]
    with pytest.raises(DatasetError, match=r"bolt, nut.*got gear"):
        load_dataset(mvtec_root, ["gear"])


def test_what_is_no_dataset_or_has_nothing_to_learn_from(mvtec_root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="train/good"):
        load_dataset(tmp_path / "empty")
    (tmp_path / "bare").mkdir()
    with pytest.raises(DatasetError, match="got no folders in it"):
        load_dataset(tmp_path / "bare")
    with pytest.raises(DatasetError, match="nothing there"):
        load_dataset(tmp_path / "absent")
    shutil.rmtree(mvtec_root / "nut" / "train")
    with pytest.raises(DatasetError, match=r"nut.*1 good and 3 defective.*bent, scratch"):
        load_dataset(mvtec_root)
    assert list(load_dataset(mvtec_root, ["bolt"]).categories) == ["bolt"]


def test_masks_named_like_their_images(tmp_path: Path, write: Write) -> None:
    for name in ("train/good/0.png", "test/bad/7.JPG", "test/bad/8.png", "ground_truth/bad/7.png"):
        write(tmp_path / "visa_pytorch" / "pcb1" / name)
    defective = load_dataset(tmp_path / "visa_pytorch").categories["pcb1"].defective
    assert [s.mask.name if isinstance(s.mask, Path) else None for s in defective] == ["7.png", None]


def test_btad(tmp_path: Path, write: Write) -> None:
    root = tmp_path / "BTech"
    for name in ("train/ok/0000.bmp", "train/ok/0001.png", "test/ok/0002.bmp", "test/ko/0003.bmp", "test/ko/0004.png"):
        write(root / "01" / name)
    write(root / "01" / "ground_truth" / "ko" / "0003.png", 255)
    write(root / "01" / "ground_truth" / "ko" / "0004.bmp", 255)
    dataset = load_dataset(root)
    category = dataset.categories["01"]
    assert dataset.layout == "btad"
    assert (len(category.train), len(category.good), len(category.defective)) == (2, 1, 2)
    assert category.has_masks
    assert {s.defect for s in category.defective} == {"ko"}


def test_visa_without_its_split(visa_root: Path) -> None:
    candle = load_dataset(visa_root).categories["candle"]
    assert (len(candle.train), len(candle.good), len(candle.defective)) == (18, 2, 2)
    assert not {s.image for s in candle.train} & {s.image for s in candle.good}
    assert load_mask(candle.defective[0].mask).all()  # levels of 1 count
    assert candle.defective[1].mask is None


def test_visa_whose_split_does_not_name_the_category(visa_root: Path) -> None:
    (visa_root / "split_csv").mkdir()
    (visa_root / "split_csv" / "1cls.csv").write_text("object,split,label,image,mask\npcb1,train,normal,x.JPG,\n")
    assert len(load_dataset(visa_root).categories["candle"].train) == 18


@pytest.mark.parametrize("table", ["split_csv/1cls.csv", "candle/image_anno.csv"])
@pytest.mark.parametrize("content", [b"image;label\n", b"", "object,split,label,image\nK\u00e4se,".encode("cp1252")])
def test_visa_tables_that_are_none_are_named(visa_root: Path, table: str, content: bytes) -> None:
    (visa_root / "split_csv").mkdir()
    (visa_root / table).write_bytes(content)
    with pytest.raises(DatasetError, match=table):
        load_dataset(visa_root)


def test_visa_rows_that_end_early_are_passed_over(visa_root: Path) -> None:
    (visa_root / "split_csv").mkdir()
    rows = [f"candle,train,normal,candle/Data/Images/Normal/{i:04}.JPG," for i in range(3)]
    (visa_root / "split_csv" / "1cls.csv").write_text(
        "\n".join(["object,split,label,image,mask", *rows, "candle,test"])
    )
    assert len(load_dataset(visa_root).categories["candle"].train) == 3


def test_visa_with_its_split_and_kinds(visa_root: Path) -> None:
    rows = ["object,split,label,image,mask"]
    rows += [
        f"candle,{'test' if i < 5 else 'train'},normal,candle/Data/Images/Normal/{i:04}.JPG,"
        for i in reversed(range(12))
    ]
    rows += [
        f"candle,test,anomaly,candle/Data/Images/Anomaly/{i:03}.JPG,candle/Data/Masks/Anomaly/{i:03}.png"
        for i in range(2)
    ]
    rows += ["pcb1,train,normal,pcb1/Data/Images/Normal/0000.JPG,"]
    (visa_root / "split_csv").mkdir()
    (visa_root / "split_csv" / "1cls.csv").write_text("\n".join(rows) + "\n")
    (visa_root / "candle" / "image_anno.csv").write_text(
        "image,label,mask\ncandle/Data/Images/Anomaly/001.JPG,wax melded out,x\n"
        "candle/Data/Images/Normal/0001.JPG,normal,\n"
    )
    for dataset in (load_dataset(visa_root), load_dataset(visa_root / "candle")):
        candle = dataset.categories["candle"]
        assert dataset.name == "VisA"
        assert [s.image.stem for s in candle.train] == [f"{i:04}" for i in range(5, 12)]
        assert (len(candle.good), len(candle.defective)) == (5, 2)
        assert [s.defect for s in candle.defective] == ["anomaly", "wax melded out"]
        assert [s.mask is None for s in candle.defective] == [False, True]
    (visa_root / "candle/Data/Images/Normal/0007.JPG").unlink()
    with pytest.raises(DatasetError, match=r"1 missing.*0007\.JPG"):
        load_dataset(visa_root)


@pytest.mark.parametrize(
    ("category", "counts"),
    [
        ("mvtec_ad/bottle", (209, 20, 63)),
        ("mvtec_ad/screw", (320, 41, 119)),
        ("mvtec_ad_fewshot/capsule", (4, 4, 8)),
        ("mvtec_ad_fewshot/metal_nut", (4, 4, 8)),
        ("mvtec_ad_fewshot/leather", (4, 4, 11)),
        ("mpdd/metal_plate", (54, 26, 71)),
        ("aws_cookie/cookie", (31, 14, 32)),
    ],
)
def test_real_categories_are_complete(real_data: Path, category: str, counts: tuple[int, int, int]) -> None:
    if not (real_data / category).is_dir():
        pytest.skip(f"no {category} in {real_data}")
    loaded = load_dataset(real_data / category).categories[Path(category).name]
    assert (len(loaded.train), len(loaded.good), len(loaded.defective)) == counts
    assert loaded.has_masks


def test_folders_above_a_path_that_may_not_be_read_do_not_matter(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = write(tmp_path / "parts" / "a.png")
    closed = [tmp_path / name for name in ("test", "train/data")]
    for folder in closed:
        folder.mkdir(parents=True)
    usual = os.scandir

    def refused(path: str | Path) -> Any:
        if Path(path) in closed:
            raise PermissionError(13, "Permission denied")
        return usual(path)

    monkeypatch.setattr(os, "scandir", refused)
    monkeypatch.setattr(os, "listdir", refused)
    assert [sample.image for sample in inspection_samples(tmp_path / "parts")] == [image]
