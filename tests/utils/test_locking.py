from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from blemish.errors import OutputError
from blemish.utils.locking import LOCK, exclusive

HOLD = """
import sys, time
from pathlib import Path
from blemish.utils.locking import exclusive
with exclusive(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_until_the_first_one_ends(tmp_path: Path) -> None:
    with exclusive(tmp_path / "out"):
        with pytest.raises(OutputError, match="no other run"), exclusive(tmp_path / "out"):
            pass
        assert (tmp_path / "out" / LOCK).exists()  # the refused run has not removed it
        with pytest.raises(OutputError, match="with --data"), exclusive(tmp_path / "out", "--data"):
            pass
        with exclusive(tmp_path / "another"):
            pass
    with exclusive(tmp_path / "out"):
        pass


def test_another_process_is_named_and_its_death_frees_the_folder(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(OutputError, match=f"process {other.pid}"), exclusive(tmp_path):
            pass
        other.kill()
    assert (tmp_path / LOCK).exists()
    with exclusive(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_that_was_left_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("1")  # a process that lives, but holds nothing
    with exclusive(tmp_path):
        assert int((tmp_path / LOCK).read_text()) > 1


def test_an_error_inside_frees_the_folder_and_an_empty_one_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path / "out"):
        raise ZeroDivisionError
    assert not (tmp_path / "out").exists()
    with exclusive(tmp_path / "out"):
        (tmp_path / "out" / "results.csv").write_text("")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.csv"]


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="place that can be written"), exclusive(tmp_path / "file"):
        pass
