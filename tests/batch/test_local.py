"""The local engine: nothing lost, nothing doubled, whatever kills it; workers that die."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from batch_parts import HERE, check_whole, light, rows_in, write_files
from killed import one_by_one
from light_maker import ORIGIN

from blemish.batch import local, machine, ray_engine, run, run_batch, shards
from blemish.batch.inspecting import MakerSpec
from blemish.batch.worker import WorkerSettings
from blemish.errors import OutputError
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
    source = write_files(tmp_path / "files", 2)
    with pytest.raises(OutputError, match=r"none of them of a picture \(killed by signal 9"):
        run_batch(light(source, tmp_path / "out", maker=MakerSpec(target="dying_maker:DyingMaker")))
    assert run_batch(light(source, tmp_path / "out")).new == 0
    check_whole(tmp_path / "out", 2)


def test_rows_that_were_taken_away_are_made_again(tmp_path: Path) -> None:
    source, out = write_files(tmp_path / "files", 50), tmp_path / "out"
    settings = light(source, out, shard_rows=16)
    run_batch(settings)
    (out / "part-000001.parquet").unlink()
    assert run_batch(settings).new == 16
    check_whole(out, 50)
    (out / "part-000002.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(OutputError, match=r"got 'part-000002\.parquet', which is damaged"):
        run_batch(settings)
    (out / "part-000002.parquet").unlink()
    assert run_batch(settings).new == 16
    check_whole(out, 50)


def test_a_table_of_something_else_among_the_rows_is_named(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    source, out = write_files(tmp_path / "files", 3), tmp_path / "out"
    run_batch(light(source, out))
    parquet.write_table(pyarrow.table({"x": [1]}), out / "mine.parquet")
    with pytest.raises(OutputError, match=r"got 'mine\.parquet'"):
        run_batch(light(source, out))


def test_what_a_killed_job_of_ray_left_half_written_counts_as_no_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job that goes on clears it away; counting comes first."""

    class Engine:
        def __init__(self, **settings: Any) -> None:
            pass

        def finish(self, plan: shards.ShardPlan, progress: Any) -> None:
            assert plan.rows == 3

    monkeypatch.setattr(ray_engine, "RayEngine", Engine)
    (tmp_path / "half.parquet").write_bytes(b"PAR1")
    settings, summary = light(tmp_path, tmp_path, engine="ray"), run.BatchSummary()
    run.by_ray(settings, MakerSpec(target=""), shards.ShardPlan(3, 16), summary, 1, None)
    assert summary.new == 3


def test_a_worker_that_died_in_the_middle_of_a_message_is_dead(tmp_path: Path) -> None:
    ours, theirs = multiprocessing.Pipe()
    os.write(theirs.fileno(), struct.pack("!i", 1000) + b"the beginning")
    theirs.close()
    worker = local._Worker(multiprocessing.Process(), ours)
    engine = local.LocalEngine(
        WorkerSettings(MakerSpec(target=""), str(tmp_path), "", 1), shards.ShardPlan(1, 1), 1, ORIGIN, lambda *_: None
    )
    assert not engine._heard(worker)


def test_files_that_a_container_has_read_are_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("990000\n")
    assert machine.free_memory() == 10000
    (tmp_path / "memory.stat").write_text("anon 90000\nfile 900000\ninactive_file 800000\nactive_file 100000\n")
    assert machine.free_memory() == 810000


def test_a_gpu_is_seen_whatever_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_DEVICES", tmp_path)
    (tmp_path / "nvidiactl").touch()
    assert not machine.is_on_gpu("auto")
    (tmp_path / "nvidia3").touch()
    assert machine.is_on_gpu("auto")
    assert not machine.is_on_gpu("cpu")


def test_a_worker_without_memory_says_so(tmp_path: Path) -> None:
    source = write_files(tmp_path / "files", 2)
    maker = MakerSpec(target="dying_maker:DyingMaker", arguments={"without_memory": True})
    with pytest.raises(OutputError, match="fewer --workers"):
        run_batch(light(source, tmp_path / "out", maker=maker))


def test_a_worker_that_cannot_begin_ends_the_run(tmp_path: Path) -> None:
    from blemish.errors import SettingsError

    source = write_files(tmp_path / "files", 3)
    with pytest.raises(SettingsError, match="light_maker:Nothing"):
        run_batch(light(source, tmp_path / "out", maker=MakerSpec(target="light_maker:Nothing")))
    run_batch(light(source, tmp_path / "out"))
    check_whole(tmp_path / "out", 3)
