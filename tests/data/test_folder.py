from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.data import inspection_samples, load_dataset, normal_samples
from blemish.data.files import existing_folder
from blemish.data.folder import find_inspection, find_normal
from blemish.errors import DatasetError

Write = Callable[..., Path]


def test_a_folder_of_good_images_at_any_depth(tmp_path: Path, write: Write) -> None:
    for name in ("b.png", "monday/a.png", "tuesday/line 2/c.jpg"):
        write(tmp_path / name)
    samples = normal_samples(tmp_path)
    assert [s.image for s in samples] == [tmp_path / n for n in ("b.png", "monday/a.png", "tuesday/line 2/c.jpg")]
    assert {(s.label, s.category, s.split) for s in samples} == {(0, None, "train")}


def test_files_and_folders_together_each_image_once(tmp_path: Path, write: Write) -> None:
    a, b = write(tmp_path / "x" / "a.png"), write(tmp_path / "y" / "b.png")
    assert [s.image for s in normal_samples([b, tmp_path / "x", str(a), str(tmp_path / "y")])] == [b, a]
    assert [s.image for s in inspection_samples([str(b), tmp_path / "x", a])] == [b, a]


@pytest.mark.parametrize("find", [find_normal, find_inspection])
def test_one_path_written_in_two_ways_is_one(
    tmp_path: Path, write: Write, find: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "x" / "a.png")
    (tmp_path / "x" / "notes.txt").touch()
    monkeypatch.chdir(tmp_path)
    found = find(["x", "x/../x/a.png", "./x", tmp_path / "x" / "a.png", tmp_path / "x"])
    assert len(found.samples) == 1
    assert found.contents.ignored == {".txt": 1}


def test_a_category_gives_its_good_images_alone(mvtec_root: Path) -> None:
    samples = normal_samples(mvtec_root / "nut")
    assert len(samples) == 3
    assert {s.category for s in samples} == {"nut"}
    assert all("train/good" in s.name for s in samples)


def test_a_root_gives_all_its_categories(mvtec_root: Path) -> None:
    assert [s.category for s in normal_samples(mvtec_root)] == ["bolt"] * 3 + ["nut"] * 3


def test_good_parts_of_a_category_can_be_given_alone(mvtec_root: Path) -> None:
    for part, count in (("train/good", 3), ("train", 3), ("test/good", 1), ("train/good/001.png", 1)):
        assert len(normal_samples(mvtec_root / "nut" / part)) == count


@pytest.mark.parametrize("part", ["test", "test/scratch", "ground_truth", "ground_truth/bent", "test/bent/000.png"])
def test_defective_images_of_a_category_are_refused(mvtec_root: Path, part: str) -> None:
    with pytest.raises(DatasetError, match=r"defective or masks.*nut"):
        normal_samples(mvtec_root / "nut" / part)


def test_defective_images_of_visa_are_refused(visa_root: Path) -> None:
    data = visa_root / "candle" / "Data"
    assert len(normal_samples(visa_root)) == 18
    assert len(normal_samples(data / "Images" / "Normal")) == 20
    for part in ("Images", "Images/Anomaly", "Masks", "."):
        with pytest.raises(DatasetError):
            normal_samples(data / part)


def test_a_category_without_good_images_is_refused(mvtec_root: Path) -> None:
    shutil.rmtree(mvtec_root / "nut" / "train" / "good")
    shutil.rmtree(mvtec_root / "nut" / "test" / "good")
    for path in (mvtec_root / "nut", mvtec_root):
        with pytest.raises(DatasetError, match=r"0 good and 3 defective.*bent, scratch"):
            normal_samples(path)


@pytest.mark.parametrize("folder", ["good", "OK"])
def test_neighbours_of_a_good_folder_are_refused(tmp_path: Path, write: Write, folder: str) -> None:
    write(tmp_path / "part" / folder / "a.png")
    assert len(normal_samples(tmp_path / "part")) == 1
    write(tmp_path / "part" / "chipped" / "b.png")
    with pytest.raises(DatasetError, match="chipped"):
        normal_samples(tmp_path / "part")
    assert len(normal_samples(tmp_path / "part" / folder)) == 1


@pytest.mark.parametrize("name", ["defect", "NG", "monday/rejects", "masks"])
def test_folders_whose_names_tell_of_defects_are_refused(tmp_path: Path, write: Write, name: str) -> None:
    write(tmp_path / "part" / "a.png")
    write(tmp_path / "part" / name / "b.png")
    for path in (tmp_path / "part", tmp_path / "part" / name):
        with pytest.raises(DatasetError, match=Path(name).name):
            normal_samples(path)


@pytest.mark.parametrize("read", [normal_samples, inspection_samples])
def test_nothing_to_read(tmp_path: Path, read: Callable[..., list]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    for given, said in (
        (tmp_path / "empty", "an empty folder"),
        (tmp_path / "texts", "1 other files and no picture"),
        (tmp_path / "absent", "nothing there"),
        ([], "none"),
    ):
        with pytest.raises(DatasetError) as caught:
            read(given)
        assert said in str(caught.value)
        assert caught.value.do


def test_images_to_inspect(mvtec_root: Path, tmp_path: Path, write: Write) -> None:
    known = inspection_samples(mvtec_root / "bolt")
    assert [s.label for s in known] == [1, 0, 1, 1]
    assert len(inspection_samples(mvtec_root)) == 8
    unknown = inspection_samples(mvtec_root / "bolt" / "test")
    assert [s.image for s in unknown] == [s.image for s in known]
    assert {s.label for s in unknown} == {None}
    odd = tmp_path / "camera.raw1"
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(odd, format="PNG")
    assert inspection_samples(odd)[0].image == odd
    shutil.rmtree(mvtec_root / "bolt" / "test")
    with pytest.raises(DatasetError, match="test pictures"):
        inspection_samples(mvtec_root / "bolt")


@pytest.mark.parametrize("name", ["def_front", "not_ok", "rejectsLeft", "scratch_top"])
def test_parts_of_folder_names_are_understood(tmp_path: Path, write: Write, name: str) -> None:
    for folder in ("ok_front", name):
        write(tmp_path / "part" / folder / "a.png")
    with pytest.raises(DatasetError, match=rf"{name}.*--assume-good"):
        normal_samples(tmp_path / "part")
    assert len(find_normal(tmp_path / "part", assume_good=True).samples) == 2
    assert len(normal_samples(tmp_path / "part" / "ok_front")) == 1


def test_folders_that_say_good_in_several_ways_are_good(tmp_path: Path, write: Write) -> None:
    for folder in ("ok_front", "ok_back", "good"):
        write(tmp_path / "part" / folder / "a.png")
    assert len(normal_samples(tmp_path / "part")) == 3
    write(tmp_path / "defect_detection" / "a.png")  # the name of a project
    assert len(normal_samples(tmp_path / "defect_detection")) == 1


def test_test_images_beside_those_for_training_are_refused(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "part" / "train" / "a.png")
    assert len(normal_samples(tmp_path / "part")) == 1
    write(tmp_path / "part" / "test" / "line 2" / "b.png")
    with pytest.raises(DatasetError, match="other ones: test"):
        normal_samples(tmp_path / "part")
    assert len(normal_samples(tmp_path / "part" / "train")) == 1


def test_masks_beside_images_are_refused_for_fitting_and_left_out_of_inspection(tmp_path: Path, write: Write) -> None:
    for name in ("x.jpg", "x_GT.png", "y.jpg", "masks/y.png"):
        write(tmp_path / "part" / name)
    found = find_inspection(tmp_path / "part")
    assert [s.name.rpartition("/")[2] for s in found.samples] == ["x.jpg", "y.jpg"]
    assert "2 masks were left out" in found.contents.words()[0]
    shutil.rmtree(tmp_path / "part" / "masks")
    with pytest.raises(DatasetError, match=r"masks of defects beside them: x_GT\.png"):
        normal_samples(tmp_path / "part")
    assert len(find_normal(tmp_path / "part", assume_good=True).samples) == 2
    write(tmp_path / "alone" / "masks" / "x.png")  # given by its name, it is what is meant
    assert len(inspection_samples(tmp_path / "alone" / "masks")) == 1


def test_files_named_after_defective_parts_are_refused(tmp_path: Path, write: Write) -> None:
    for name in ("ok_001.png", "good002.png"):
        write(tmp_path / "part" / name)
    assert len(normal_samples(tmp_path / "part")) == 2
    write(tmp_path / "part" / "NG_003.png")
    with pytest.raises(DatasetError, match=r"NG_003\.png"):
        normal_samples(tmp_path / "part")


def test_two_categories_of_one_name_are_not_merged(tmp_path: Path, write: Write) -> None:
    for root in ("a", "b"):
        write(tmp_path / root / "part" / "train" / "good" / "0.png")
    with pytest.raises(DatasetError, match=r"two: .*a/part.*b/part"):
        normal_samples([tmp_path / "a", tmp_path / "b" / "part"])
    one = find_normal([tmp_path / "a", tmp_path / "b"], category="part").samples
    assert [sample.category for sample in one] == ["part", "part"]
    assert len(normal_samples([tmp_path / "a", tmp_path / "a" / "part"])) == 1


def test_results_and_models_below_a_folder_are_no_pictures(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "part" / "a.png")
    write(tmp_path / "part" / "results" / "overlays" / "a.jpg")
    (tmp_path / "part" / "results" / "results.jsonl").write_text("x")
    for found in (find_normal(tmp_path / "part"), find_inspection(tmp_path / "part")):
        assert len(found.samples) == 1
        assert "left out" in found.contents.words()[0]
    write(tmp_path / "model" / "thumbnails.jpg")
    for name in ("settings.json", "weights.safetensors"):
        (tmp_path / "model" / name).write_text("x")
    with pytest.raises(DatasetError, match="no picture"):
        normal_samples(tmp_path / "model")


def test_files_of_other_kinds_are_counted(tmp_path: Path, write: Write, mvtec_root: Path) -> None:
    write(tmp_path / "part" / "a.png")
    (tmp_path / "part" / "a.raw").write_bytes(b"x")
    for found in (find_normal(tmp_path / "part"), find_inspection([tmp_path / "part"])):
        assert found.contents.ignored == {".raw": 1}
        assert [path.name for path in found.contents.images] == ["a.png"]
    (mvtec_root / "license.txt").write_text("x")
    assert find_normal(mvtec_root).contents.ignored == {".txt": 1}


def test_each_page_of_a_tiff_can_be_a_sample(tmp_path: Path, write: Write) -> None:
    frames = [Image.new("L", (6, 5), level) for level in (10, 20, 30)]
    (tmp_path / "part").mkdir()
    stack = tmp_path / "part" / "a.tif"
    frames[0].save(stack, save_all=True, append_images=frames[1:])
    write(tmp_path / "part" / "b.png")
    pages = [f"{stack}#{i}" for i in (1, 2, 3)]
    assert [s.name for s in normal_samples(f"{stack}#2")] == pages[1:2]
    assert [s.name for s in inspection_samples(f"{stack}#*")] == pages
    assert [s.name for s in find_normal(tmp_path / "part", pages=True).samples] == [
        *pages,
        str(tmp_path / "part" / "b.png"),
    ]
    assert len(inspection_samples(tmp_path / "part")) == 2
    damaged = tmp_path / "part" / "c.tif"  # it is for loading to say what is wrong with it
    damaged.write_bytes(b"II*\0" + b"no picture" * 9)
    assert [s.name for s in find_inspection(tmp_path / "part", pages=True).samples][-1] == str(damaged)


def test_what_a_user_puts_into_a_category_is_a_folder_like_any_other(tmp_path: Path, write: Write) -> None:
    for name in ("train/good", "test/bent"):
        write(tmp_path / "nut" / name / "rgb" / "0.png")
    for name in ("flat/1.png", "flat/1_mask.png", "new/rgb/2.png", "3.png"):
        write(tmp_path / "nut" / name)
    (tmp_path / "nut/new/xyz").mkdir()
    points = tmp_path / "nut/new/xyz/2.npy"
    np.save(points, np.full((6, 5, 3), 0.1, np.float32))
    assert [s.image for s in inspection_samples(tmp_path / "nut/flat")] == [tmp_path / "nut/flat/1.png"]
    assert [s.points for s in inspection_samples(tmp_path / "nut/new")] == [points]
    assert [s.image for s in inspection_samples(tmp_path / "nut/3.png")] == [tmp_path / "nut/3.png"]
    with pytest.raises(DatasetError, match="masks of defects beside them"):
        normal_samples(tmp_path / "nut/flat")


def test_a_folder_that_may_not_be_read_is_not_called_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("blemish.data.files.os.stat", refuse)
    with pytest.raises(DatasetError, match="permission denied; give this user the right"):
        existing_folder(tmp_path)


def test_an_empty_path_is_an_error_everywhere(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    for read in (normal_samples, inspection_samples, load_dataset):
        with pytest.raises(DatasetError, match="an empty text"):
            read("")


@pytest.mark.parametrize("place", ["plain", "nut/train/good", "scans/rgb", "beside"])
def test_many_paths_of_one_folder_read_it_once(
    tmp_path: Path, write: Write, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once a path: a thousand paths of one folder would take as long as a million."""
    for folder in ("nut/test/good", "scans/xyz"):
        (tmp_path / folder).mkdir(parents=True)
    paths = [write(tmp_path / place / f"{i:03}.png") for i in range(40)]
    for i in range(40):
        if place == "scans/rgb":
            np.save(tmp_path / "scans/xyz" / f"{i:03}.npy", np.full((6, 5, 3), 0.1, np.float32))
        if place == "beside":
            np.savez(tmp_path / place / f"{i:03}.npz", xyz=np.full((6, 5, 3), 0.1, np.float32))
    listed: list[Path] = []
    usual = os.scandir

    def counted(path: str | Path) -> Any:
        listed.append(Path(path))
        return usual(path)

    monkeypatch.setattr(os, "scandir", counted)
    for find in (find_normal, find_inspection):
        counts = []
        for asked in (paths[:3], paths):
            listed.clear()
            samples = find(asked).samples
            assert [sample.image for sample in samples] == asked
            assert {sample.points is not None for sample in samples} == {place in ("scans/rgb", "beside")}
            counts.append(len(listed))
        assert counts[0] == counts[1]
