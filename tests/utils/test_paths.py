"""Paths that people give: "~", and folders that are to take new files."""

from __future__ import annotations

from pathlib import Path

import pytest

from blemish.errors import DatasetError
from blemish.model.model_folder import read_settings
from blemish.utils.paths import check_empty, expanded


def test_a_home_is_expanded_and_what_is_none_stays_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/parts") == tmp_path / "parts"
    assert expanded(Path("parts")) == Path("parts")
    assert expanded("~nobody-of-this-name/parts") == Path("~nobody-of-this-name/parts")


def test_a_model_of_a_user_that_is_not_there_is_named() -> None:
    with pytest.raises(Exception, match="~nobody-of-this-name") as raised:
        read_settings(Path("~nobody-of-this-name/model"))
    assert not isinstance(raised.value, RuntimeError)


def test_only_new_and_empty_folders_take_new_files(tmp_path: Path) -> None:
    check_empty(tmp_path)
    check_empty(tmp_path / "new")
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="something in it"):
        check_empty(tmp_path)
    with pytest.raises(DatasetError, match="the file"):
        check_empty(tmp_path / "file")
