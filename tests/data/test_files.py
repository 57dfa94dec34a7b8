from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blemish.data.files import IMAGE_SUFFIXES, find_images, list_folder
from blemish.errors import DatasetError

Write = Callable[..., Path]


def names(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in find_images(folder)]


def test_any_depth_any_case_sorted_without_hidden_ones(tmp_path: Path, write: Write) -> None:
    for name in ("b.png", "a/z.PNG", "a/deep/er/x.jpg", "ä ö.bmp", ".hidden.png", ".cache/y.png", "a/B.tiff"):
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "folder.png").mkdir()
    assert names(tmp_path) == ["a/B.tiff", "a/deep/er/x.jpg", "a/z.PNG", "b.png", "ä ö.bmp"]
    assert find_images(str(tmp_path)) == find_images(tmp_path)


def test_links_are_followed_and_loops_end(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "elsewhere" / "far.png")
    root = tmp_path / "root"
    write(root / "m" / "near.png")
    (root / "m" / "up").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "a_first").symlink_to(root / "m")
    (root / "z").symlink_to(tmp_path / "elsewhere")
    (root / "z2").symlink_to(tmp_path / "elsewhere")
    (root / "picture.png").symlink_to(tmp_path / "elsewhere" / "far.png")
    assert names(root) == ["m/near.png", "picture.png", "z/far.png"]


def test_folders_that_link_to_one_another_end_soon(tmp_path: Path, write: Write) -> None:
    for i in range(12):
        write(tmp_path / str(i) / "a.png")
        for j in range(12):
            (tmp_path / str(i) / f"to{j}").symlink_to(tmp_path / str(j))
    assert len(names(tmp_path)) == 12


def test_a_broken_link_is_listed_and_a_pipe_is_not(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing.png")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nothing.txt")
    os.mkfifo(tmp_path / "pipe.png")
    assert names(tmp_path) == ["gone.png"]


def test_no_folder(tmp_path: Path, write: Write) -> None:
    with pytest.raises(DatasetError, match="nothing there"):
        find_images(tmp_path / "absent")
    with pytest.raises(DatasetError, match="a file"):
        find_images(write(tmp_path / "a.png"))


def test_what_is_not_looked_at_is_counted_by_suffix(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blemish.data.files.image_suffixes", lambda: IMAGE_SUFFIXES)
    write(tmp_path / "a.jpg")
    for name in ("b.HEIC", "c.heic", "deep/d.dcm", "e.txt", "f"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no picture")
    contents = list_folder(tmp_path)
    assert [path.name for path in contents.images] == ["a.jpg"]
    assert contents.ignored == {".heic": 2, ".dcm": 1, ".txt": 1, "no suffix": 1}
    (words,) = contents.words()
    assert words.startswith("5 other files were not looked at: .heic 2")
    assert "pip install 'blemish[heif,dicom]'" in words


def test_images_without_a_suffix_and_arrays_are_known_by_their_first_bytes(tmp_path: Path, write: Write) -> None:
    for suffix in ("png", "jpg", "bmp", "gif", "tif", "webp", "jp2", "avif"):
        write(tmp_path / f"a.{suffix}").rename(tmp_path / suffix)
    (tmp_path / "README").write_text("BMX is no bitmap")
    (tmp_path / "empty").write_bytes(b"")
    np.save(tmp_path / "picture.npy", np.zeros((4, 5, 3), np.uint8))
    np.save(tmp_path / "features.npy", np.zeros(512, np.float32))
    assert names(tmp_path) == ["avif", "bmp", "gif", "jp2", "jpg", "picture.npy", "png", "tif", "webp"]


@pytest.mark.parametrize(
    ("marks", "is_left_out"),
    [
        (("settings.json", "weights.safetensors"), True),
        (("results.jsonl",), True),
        (("report.html", "results.csv"), True),
        (("report.html", "inspection.json"), True),
        (("settings.json",), False),
        (("results.csv",), False),
    ],
)
def test_folders_that_blemish_wrote_are_left_out_and_counted(
    tmp_path: Path, write: Write, marks: tuple[str, ...], is_left_out: bool
) -> None:
    write(tmp_path / "a.png")
    for place in ("out/thumbnails.jpg", "out/overlays/a.jpg"):
        write(tmp_path / place)
    for name in marks:
        (tmp_path / "out" / name).write_text("x")
    contents = list_folder(tmp_path)
    assert [path.name for path in contents.left_out] == (["out"] if is_left_out else [])
    assert len(contents.images) == (1 if is_left_out else 3)
    assert any("left out" in words for words in contents.words()) == is_left_out


def test_several_folders_left_out_are_called_what_they_are(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "a.png")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.jsonl").write_text("x")
    (words,) = list_folder(tmp_path).words()
    assert words == f"2 folders of models or of results were left out, first '{tmp_path / 'one'}'"


def test_results_written_beside_the_pictures(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "a.png")
    write(tmp_path / "overlays" / "a.jpg")
    (tmp_path / "results.jsonl").write_text("x")
    contents = list_folder(tmp_path)
    assert [path.name for path in contents.images] == ["a.png"]
    assert [path.name for path in contents.left_out] == ["overlays"]


def test_an_empty_path_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for empty in ("", " "):
        with pytest.raises(DatasetError, match="an empty text"):
            find_images(empty)
    assert find_images(".") == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_a_named_pipe_is_not_opened(tmp_path: Path, write: Write) -> None:
    """Its reader would wait for a writer, for good."""
    write(tmp_path / "a.png")
    for name in ("pipe", "pipe.npy", "pipe.png"):
        os.mkfifo(tmp_path / name)
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (8, 8, ",
        b"  {'descr'\n {\n",
        b"{'descr': '|u1' 'x' 1a}",
        b"(" * 90,
    ],
)
def test_a_damaged_array_does_not_cost_the_others(tmp_path: Path, write: Write, header: bytes) -> None:
    write(tmp_path / "a.png")
    (tmp_path / "b.npy").write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + header.ljust(117) + b"\n" + bytes(64))
    assert names(tmp_path) == ["a.png"]


def test_a_folder_that_vanishes_is_named(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "deep" / "a.png")
    usual = os.stat

    def gone(path: object, *rest: Any, **named: Any) -> os.stat_result:
        if Path(str(path)).name == "deep":
            raise FileNotFoundError(2, "No such file or directory")
        return usual(path, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", gone)
    with pytest.raises(DatasetError, match="deep"):
        list_folder(tmp_path)
