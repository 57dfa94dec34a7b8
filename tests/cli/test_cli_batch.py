"""`blemish batch`: what it prints at the end, and what Ctrl-C leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_parts import Blemish, command

pytest.importorskip("pyarrow")

BATCH_TESTS = str(Path(__file__).parents[1] / "batch")
# The model's folder is checked as always; rows come from a maker without torch, some milliseconds each.
LIGHT = f"""
import sys
sys.path.insert(0, {BATCH_TESTS!r})
from blemish.batch import run
from blemish.batch.inspecting import MakerSpec
run.inspector_spec = lambda settings, origin: MakerSpec(target="light_maker:LightMaker", arguments=dict(pause=PAUSE))
"""


def ids_in(out: Path) -> list[str]:
    import pyarrow.dataset

    return sorted(pyarrow.dataset.dataset(str(out)).to_table(columns=["id"]).column("id").to_pylist())


def interrupted(arguments: list[str], is_time: Callable[[], bool]) -> tuple[int, str, str]:
    """Exit code and output of a program whose terminal gets Ctrl-C, which all its processes hear, when `is_time`."""
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as started:
        limit = time.monotonic() + 120
        while not is_time() and started.poll() is None and time.monotonic() < limit:
            time.sleep(0.01)
        os.killpg(started.pid, signal.SIGINT)
        printed, words = started.communicate(timeout=120)
    return started.returncode, printed, words.replace("\n", " ")


def test_the_summary_counts_verdicts_and_what_could_not_be_read(
    blemish: Blemish, disc_model: Path, parts: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, source in (("good", "good/000"), ("bad", "scratch/000")):
        (folder / f"{name}.png").write_bytes((parts / "disc" / "test" / f"{source}.png").read_bytes())
    (folder / "broken.png").write_bytes(b"nothing")
    (folder / "notes.txt").touch()
    first = blemish("batch", disc_model, folder, "-o", tmp_path / "out", "--workers", 1, "--device", "cpu")
    assert first.exit_code == 3, first.output  # some could not be read
    counts = json.loads((tmp_path / "out" / "_manifest.json").read_text())["counts"]
    assert counts["error"] == 1
    assert sum(counts.values()) == 3
    for words in (f"{counts['defective']} defective", f"{counts['good']} good", "pictures a second", ".txt 1"):
        assert words in first.stdout
    assert f"Table: {tmp_path / 'out'}" in first.stdout.replace("\n", "")
    again = blemish("batch", disc_model, folder, "-o", tmp_path / "out", "--workers", 1, "--device", "cpu")
    assert again.exit_code == 3
    assert "3 of them inspected by an earlier run and skipped" in again.stdout
    assert "a second" not in again.stdout


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("moment", ["while workers start", "while they work"])
def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(disc_model: Path, tmp_path: Path, moment: str) -> None:
    source, out = tmp_path / "files", tmp_path / "out"
    source.mkdir()
    for i in range(60):
        (source / f"{i:02}.png").write_bytes(bytes(i + 1))
    arguments = ("batch", disc_model, source, "-o", out, "--workers", 1)

    def is_time() -> bool:
        if moment == "while workers start":
            return (out / "_run.json").is_file()
        return any(len(journal.read_bytes().splitlines()) >= 5 for journal in out.glob("_work/*.jsonl"))

    code, printed, words = interrupted(command(*arguments, before=LIGHT.replace("PAUSE", "0.5")), is_time)
    assert code == 130, words
    assert f"what is done is kept in {out}; the same command goes on there" in words
    assert "Traceback" not in words
    assert "Table" not in printed
    assert not (out / "_manifest.json").exists()
    done = sum(len(journal.read_bytes().splitlines()) for journal in out.glob("_work/*.jsonl"))
    assert done < 60
    last = subprocess.run(
        command(*arguments, before=LIGHT.replace("PAUSE", "0.0")),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert last.returncode == 0, last.stderr
    assert ("inspected by an earlier run and skipped" in last.stdout) == (done > 0)
    assert ids_in(out) == [f"{i:02}.png" for i in range(60)]
    assert "60 good" in last.stdout
