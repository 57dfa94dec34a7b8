"""What is published works without the repository: the wheel of the sdist, installed elsewhere, fits and inspects."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
BUILD = "from setuptools import build_meta; print(build_meta.build_{kind}({out!r}))"

pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path, **variables: str) -> str:
    """The output of a program that must succeed; Python finds no module through the environment's variables."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | variables
    ended = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def tracked() -> list[str]:
    """The files that a source distribution is made of, as they lie here."""
    return [
        name
        for name in run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines()
        if (ROOT / name).is_file()
    ]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the unpacked sdist, which is built from a copy of this repository."""
    place = tmp_path_factory.mktemp("build")
    copy, sdists, unpacked, wheels = (place / name for name in ("copy", "sdists", "unpacked", "wheels"))
    for name in tracked():
        if name.startswith("src/") or "/" not in name:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-c", BUILD.format(kind="sdist", out=str(sdists)), cwd=copy)
    (archive,) = sdists.iterdir()
    with tarfile.open(archive) as packed:
        packed.extractall(unpacked, filter="data")
    (source,) = unpacked.iterdir()
    run(sys.executable, "-c", BUILD.format(kind="wheel", out=str(wheels)), cwd=source)
    (built,) = wheels.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a fresh environment that holds the wheel; what it depends on is that of the running Python."""
    place = tmp_path_factory.mktemp("elsewhere") / "environment"
    run(sys.executable, "-m", "venv", place, cwd=place.parent)
    scripts = place / ("Scripts" if os.name == "nt" else "bin")
    run(scripts / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=place.parent)
    asked = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    own = Path(run(scripts / "python", "-c", asked, cwd=place.parent).strip())
    (own / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    return scripts


def test_the_wheel_holds_all_modules_and_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("blemish/")}
    wanted = {name.removeprefix("src/") for name in tracked() if name.startswith("src/blemish/")}
    assert held == wanted


def test_the_installed_wheel_fits_inspects_and_reports(installed: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for folder, count in (("good", 4), ("incoming", 2)):
        (tmp_path / folder).mkdir()
        for index in range(count):
            image = np.full((96, 96, 3), (200, 160, 40)) + random.normal(0, 4, (96, 96, 3))
            if folder == "incoming" and index:
                image[40:60, 40:60] = 0
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(tmp_path / folder / f"{index}.png")
    where = run(installed / "python", "-c", "import blemish; print(blemish.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    blemish = installed / "blemish"
    run(blemish, "fit", "good", "-o", "model", "--encoder", "pixels", cwd=tmp_path)
    assert "2 inspected" in run(blemish, "inspect", "model", "incoming", "-o", "results", cwd=tmp_path)
    for name in ("report.html", "results.csv", "results.jsonl"):
        assert (tmp_path / "results" / name).stat().st_size > 0
