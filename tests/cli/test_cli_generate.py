from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cli_parts import Blemish, command

from blemish.research.synthetic_scans import KINDS, writing

TINY = ("--classes", 1, "--size", 64, "--train", 2, "--validation", 1, "--good", 1, "--defective", 1)


def test_a_set_and_a_page(blemish: Blemish, tmp_path: Path) -> None:
    out = tmp_path / "new" / "set"
    result = blemish("generate", out, *TINY, "--seed", 7, "--workers", 1)
    assert result.exit_code == 0, result.output
    assert f"{4 + len(KINDS)} scans of 1 class" in result.stdout
    assert sorted(path.name for path in out.iterdir()) == ["index.html", "washer"]
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count("<figure") == 2 + len(KINDS)
    for kind in KINDS:
        assert f"<b>{kind}</b>" in page
        assert (out / "washer" / "test" / kind / "gt" / "000.png").is_file()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--size", 63, "size as a whole number from 64 to 800"),
        ("--size", 801, "size as a whole number from 64 to 800"),
        ("--classes", 0, "classes as a whole number from 1 to 10"),
        ("--classes", 11, "classes as a whole number from 1 to 10"),
        ("--seed", -1, "seed as a whole number"),
        ("--workers", 0, "at least 1 worker"),
    ],
)
def test_what_cannot_be_is_told(blemish: Blemish, tmp_path: Path, option: str, value: int, words: str) -> None:
    result = blemish("generate", tmp_path / "out", *TINY, option, value)
    assert result.exit_code == 2, result.output
    assert words in result.stderr.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_and_a_file_are_refused(blemish: Blemish, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "notes.txt"):
        result = blemish("generate", out, *TINY)
        assert result.exit_code == 2
        assert "a new or empty folder" in result.stderr.replace("\n", " ")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_empty_folder_will_do(blemish: Blemish, tmp_path: Path) -> None:
    assert blemish("generate", tmp_path, *TINY, "--workers", 1).exit_code == 0
    assert (tmp_path / "index.html").is_file()


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [(OSError(errno.ENOSPC, "No space left on device"), 2, "No space left"), (KeyboardInterrupt(), 130, "interrupted")],
)
def test_nothing_is_left_of_a_set_that_was_not_finished(
    blemish: Blemish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str
) -> None:
    taken, write = [], writing.write_scan

    def fails(folder: Path, shot: object) -> None:
        taken.append(shot)
        if len(taken) == 3:
            raise error
        write(folder, shot)  # type: ignore[arg-type]

    monkeypatch.setattr(writing, "write_scan", fails)
    result = blemish("generate", tmp_path / "out", *TINY, "--workers", 1)
    assert result.exit_code == code, result.output
    assert words in result.stderr.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_ends_the_workers_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = command("generate", out, "--size", 64, "--classes", 1, "--train", 99999)
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, start_new_session=True) as started:
        limit = time.monotonic() + 120
        while not list(out.glob("*/washer/train/good/rgb/*.png")) and time.monotonic() < limit:
            time.sleep(0.1)
        os.killpg(started.pid, signal.SIGINT)  # as a terminal does: the workers hear it too
        assert started.wait(120) == 130
        assert started.stderr is not None
        words = started.stderr.read()
    assert "interrupted" in words
    assert "Traceback" not in words
    assert list(tmp_path.iterdir()) == []
