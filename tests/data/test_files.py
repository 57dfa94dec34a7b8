from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from blemish.data.files import find_images
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
