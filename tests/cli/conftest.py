"""A small dataset and models of it, shared by all tests of the program."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from cli_parts import METHOD, Blemish, Process, command, run_inside, write_category


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two categories, disc and ring."""
    root = tmp_path_factory.mktemp("parts")
    for kind in ("disc", "ring"):
        write_category(root / kind, kind)
    return root


@pytest.fixture(scope="session")
def blemish() -> Blemish:
    """Runs the program inside this process: `blemish("fit", …)` → exit_code, stdout, stderr."""
    return run_inside


@pytest.fixture(scope="session")
def process() -> Process:
    """Runs the program as a process of its own; `before` is Python that runs first in it, such as a patch."""

    def run(*arguments: Any, before: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments, before=before), capture_output=True, text=True, timeout=600, check=False, **options
        )

    return run


@pytest.fixture(scope="session")
def disc_model(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the discs alone."""
    model = tmp_path_factory.mktemp("models") / "disc"
    result = run_inside("fit", parts / "disc", "-o", model, *METHOD)
    assert result.exit_code == 0, result.output
    return model


@pytest.fixture(scope="session")
def pooled_model(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model of discs and rings."""
    model = tmp_path_factory.mktemp("models") / "pooled"
    result = run_inside("fit", parts, "-o", model, *METHOD)
    assert result.exit_code == 0, result.output
    return model
