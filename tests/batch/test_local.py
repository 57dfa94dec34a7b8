"""The local engine: nothing lost, nothing doubled, whatever kills it; workers that die."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from batch_parts import HERE, check_whole, light, rows_in, write_files
from killed import one_by_one

from blemish.batch import run_batch, shards
from blemish.utils import atomic

PROGRAM = """
import sys
from pathlib import Path
from batch_parts import light
from blemish.batch import run_batch
if __name__ == "__main__":
    print(run_batch(light(Path(sys.argv[1]), Path(sys.argv[2]), pause=0.002, shard_rows=16, workers=2)).new)
"""


class Crash(BaseException):
    """Stands for the end of the process."""


def test_each_file_has_one_row(tmp_path: Path) -> None:
    source, seen = write_files(tmp_path / "files", 50), []
    settings = light(source, tmp_path / "out", shard_rows=16, workers=2)
    found = run_batch(settings, lambda done, total, facts: seen.append((done, total)))
    assert (found.rows, found.new, found.counts["good"], found.errors) == (50, 50, 50, 0)
    assert seen[-1] == (50, 50)
    check_whole(tmp_path / "out", 50)
    assert run_batch(settings).new == 0


def test_a_crash_at_any_write_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step of the protocol that changes the disk, one after the other, is the last one of a run."""
    source, steps = write_files(tmp_path / "files", 20), 0
    while crashes_after(steps, source, tmp_path / f"out{steps}", monkeypatch):
        one_by_one(source, tmp_path / f"out{steps}", "second")
        check_whole(tmp_path / f"out{steps}", 20)
        steps += 1
    check_whole(tmp_path / f"out{steps}", 20)
    assert steps > 30  # 20 rows, each written, and files that are flushed and renamed


def crashes_after(steps: int, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run a batch that crashes once so many steps were done; False where it was done before."""
    left = steps

    def counted(step: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Crash
            return step(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted(os.replace))
        patch.setattr(shards.Journal, "_write", counted(shards.Journal._write))
        patch.setattr(shards, "remove", counted(shards.remove))
        patch.setattr(atomic, "flush", counted(atomic.flush))
        try:
            one_by_one(source, out, "first")
        except Crash:
            return True
    return False


def test_a_line_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    shard = shards.Shard(0, 0, 3)
    with shards.Journal(tmp_path, shard, "a") as journal:
        journal.add(0, {"id": "first"})
        journal.add(1, {"id": "second"})
    with journal.path.open("r+") as file:
        file.truncate(journal.path.stat().st_size - 5)
    with shards.Journal(tmp_path, shard, "a") as journal:
        journal.add(2, {"id": "third"})
    assert shards.journal_rows(tmp_path, shard) == {0: {"id": "first"}, 2: {"id": "third"}}


@pytest.mark.slow
def test_fifty_kills_at_random_moments(tmp_path: Path) -> None:
    source, out = write_files(tmp_path / "files", 400), tmp_path / "out"
    command = [sys.executable, str(Path(HERE) / "killed.py"), str(source), str(out), "50", "0"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert int(found.stdout) >= 40  # most attempts were cut off; the last ones may find nothing left to do
    check_whole(out, 400)


@pytest.mark.slow
def test_the_whole_program_killed_with_its_workers_still_at_work(tmp_path: Path) -> None:
    """The parent alone is killed: its workers, orphaned, end by themselves and disturb no later run."""
    source, out, draw, killed = write_files(tmp_path / "files", 300), tmp_path / "out", random.Random(1), 0
    (tmp_path / "program").write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, str(tmp_path / "program"), str(source), str(out)]
    environment = os.environ | {"PYTHONPATH": HERE}
    for _ in range(5):
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            end = time.monotonic() + 60
            while process.poll() is None and not any(out.glob("_work/*.jsonl")) and time.monotonic() < end:
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 2
    subprocess.run(command, env=environment, check=True, timeout=120, stdout=subprocess.DEVNULL)
    check_whole(out, 300)


def test_a_file_that_kills_its_worker_has_an_error(tmp_path: Path) -> None:
    """A worker dies once: its shard is done again. One that always dies of the same file leaves it out."""
    source = write_files(tmp_path / "files", 6, **{"-once": 8, "deadly": 7})
    (tmp_path / "marks").mkdir()
    found = run_batch(light(source, tmp_path / "out", marks=tmp_path / "marks", shard_rows=4))
    rows = {row["id"]: row for row in rows_in(tmp_path / "out")}
    assert len(rows) == 8
    assert found.errors == 1
    assert "killed by signal 9" in rows["deadly.png"]["error"]
    assert rows["deadly.png"]["verdict"] is None
    assert rows["-once.png"]["score"] == 8


def test_workers_that_die_of_no_picture_end_the_run(tmp_path: Path) -> None:
    """Such as at writing a shard's file: tried again and again, it would never end."""
    from blemish.batch.inspecting import MakerSpec
    from blemish.errors import OutputError

    source = write_files(tmp_path / "files", 2)
    with pytest.raises(OutputError, match=r"none of them of a picture \(killed by signal 9"):
        run_batch(light(source, tmp_path / "out", maker=MakerSpec(target="dying_maker:DyingMaker")))
    assert run_batch(light(source, tmp_path / "out")).new == 0
    check_whole(tmp_path / "out", 2)


def test_a_worker_without_memory_says_so(tmp_path: Path) -> None:
    from blemish.batch.inspecting import MakerSpec
    from blemish.errors import OutputError

    source = write_files(tmp_path / "files", 2)
    maker = MakerSpec(target="dying_maker:DyingMaker", arguments={"without_memory": True})
    with pytest.raises(OutputError, match="fewer --workers"):
        run_batch(light(source, tmp_path / "out", maker=maker))


def test_a_worker_that_cannot_begin_ends_the_run(tmp_path: Path) -> None:
    from blemish.batch.inspecting import MakerSpec
    from blemish.errors import SettingsError

    source = write_files(tmp_path / "files", 3)
    with pytest.raises(SettingsError, match="light_maker:Nothing"):
        run_batch(light(source, tmp_path / "out", maker=MakerSpec(target="light_maker:Nothing")))
    run_batch(light(source, tmp_path / "out"))
    check_whole(tmp_path / "out", 3)
