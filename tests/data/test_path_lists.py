from __future__ import annotations

import io
from pathlib import Path

import pytest

from blemish.data.path_lists import expand_lists
from blemish.errors import DatasetError


def test_lists_stand_for_the_paths_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_bytes(b"\xef\xbb\xbfb.png\r\n\r\nfolder/c d.png\r\n")
    Path("@list.jpg").write_bytes(b"")
    assert expand_lists(["a.png", "@list.txt", "@list.jpg"]) == ["a.png", "b.png", "folder/c d.png", "@list.jpg"]


def test_standard_input_by_lines_and_by_zero_bytes() -> None:
    assert expand_lists(["-"], io.BytesIO(b"a.png\nb.png")) == ["a.png", "b.png"]
    assert expand_lists(["x", "-"], io.BytesIO(b"a\nb.png\0c.png\0")) == ["x", "a\nb.png", "c.png"]
    assert [bytes(map(ord, p[-5:])) for p in expand_lists(["-"], io.BytesIO(b"x.png\n"))] == [b"x.png"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_lists_of_powershell(encoding: str) -> None:
    content = ("\ufeff" * (encoding == "utf-16-be") + "C:\\Bilder\\größe.png\r\nb.png\r\n").encode(encoding)
    assert expand_lists(["-"], io.BytesIO(content)) == ["C:\\Bilder\\größe.png", "b.png"]


def test_lists_of_nothing_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n\n")
    for arguments in ([f"@{tmp_path / 'empty'}"], [f"@{tmp_path / 'absent'}"], ["-", "-"]):
        with pytest.raises(DatasetError):
            expand_lists(arguments, io.BytesIO(b"a"))
    with pytest.raises(DatasetError, match="standard input"):
        expand_lists(["-"], io.BytesIO(b""))
