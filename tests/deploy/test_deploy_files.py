"""The files that start the service name options, extras and paths that exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from blemish.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "deploy").iterdir())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_options_are_those_of_the_command(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    command: Any = get_command(app)
    known = {option for parameter in command.commands["serve"].params for option in parameter.opts}
    lines = re.findall(r"^(?:ExecStart|ENTRYPOINT|CMD)\b.*", text, re.MULTILINE)
    named = set(re.findall(r"--[a-z-]+", " ".join(lines)))
    assert named
    assert named <= known


def test_extras_and_copied_files_exist() -> None:
    text = (ROOT / "deploy" / "Containerfile").read_text(encoding="utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (named,) = re.findall(r'"\.\[([a-z,]+)\]"', text)
    assert set(named.split(",")) <= extras.keys()
    copied = [word for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert copied
    assert all((ROOT / word).exists() for word in copied)


def test_the_container_runs_without_rights_and_says_whether_it_is_well() -> None:
    text = (ROOT / "deploy" / "Containerfile").read_text(encoding="utf-8")
    assert "USER blemish" in text
    assert "HEALTHCHECK" in text
    assert text.index("useradd") < text.index("USER blemish") < text.index("ENTRYPOINT")
