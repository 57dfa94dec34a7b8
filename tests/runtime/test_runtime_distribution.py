"""The wheel of blemish-runtime: what it holds, that its build leaves nothing behind, and that it works by itself."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import shipped

import blemish

BUILD = "import build_backend; print(build_backend.build_{kind}({out!r}))"


def build(kind: str, project: Path, out: Path) -> Path:
    """What the build backend of `project`, called as pip does, leaves in `out`."""
    out.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-B", "-c", BUILD.format(kind=kind, out=str(out))],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.iterdir()
    return built


def test_both_distributions_have_one_version_and_agree_on_what_they_need() -> None:
    main, runtime = (
        tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        for folder in (shipped.ROOT, shipped.RUNTIME)
    )
    assert main["project"]["version"] == blemish.__version__
    assert runtime["project"]["dynamic"] == ["version"]
    assert runtime["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "blemish.__version__"}
    assert set(runtime["project"]["dependencies"]) <= set(main["project"]["dependencies"])
    for key in ("requires-python", "license"):
        assert runtime["project"][key] == main["project"][key]


@pytest.mark.slow
def test_the_wheel_works_by_itself_and_its_build_leaves_nothing_behind(tmp_path: Path) -> None:
    before = sorted(shipped.RUNTIME.rglob("*"))
    wheel = build("wheel", shipped.RUNTIME, tmp_path / "wheel")
    assert sorted(shipped.RUNTIME.rglob("*")) == before
    assert wheel.name == f"blemish_runtime-{blemish.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
    held = {path.relative_to(tmp_path / "unpacked") for path in (tmp_path / "unpacked" / "blemish").rglob("*.*")}
    assert held == set(shipped.shipped_files())
    for file in held:
        assert (tmp_path / "unpacked" / file).read_bytes() == (shipped.SOURCE / file).read_bytes()
    done = shipped.use_from(tmp_path / "unpacked", shipped.shipped_modules())
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_source_distribution_gives_the_same_wheel(tmp_path: Path) -> None:
    sdist = build("sdist", shipped.RUNTIME, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (project,) = (tmp_path / "unpacked").iterdir()
    direct = build("wheel", shipped.RUNTIME, tmp_path / "direct")
    again = build("wheel", project, tmp_path / "again")
    with zipfile.ZipFile(direct) as first, zipfile.ZipFile(again) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())
        assert all(
            first.read(name) == second.read(name) for name in first.namelist() if name.endswith((".py", ".json"))
        )
