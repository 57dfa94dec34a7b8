"""Builds blemish-runtime from the files of ../src that files.txt names: one source, two distributions.

A build backend (PEP 517) around that of setuptools. It copies what is shipped to a temporary folder and builds there,
so that nothing is left in this one. A source distribution holds the same files in `src`, and is built in the same way.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from setuptools import build_meta

HERE = Path(__file__).resolve().parent
OWN = ("pyproject.toml", "README.md", "build_backend.py", "files.txt")


def build_wheel(
    wheel_directory: str, config_settings: dict | None = None, metadata_directory: str | None = None
) -> str:
    target = os.path.abspath(wheel_directory)
    with _staged():
        return build_meta.build_wheel(target, config_settings)


def build_sdist(sdist_directory: str, config_settings: dict | None = None) -> str:
    target = os.path.abspath(sdist_directory)
    with _staged():
        return build_meta.build_sdist(target, config_settings)


def shipped(source: Path) -> list[Path]:
    """The files under `source` that files.txt names, relative to it. Raises FileNotFoundError for a line without any.

    A pattern of a folder that is not there yet names none.
    """
    files: list[Path] = []
    for line in (HERE / "files.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        found = sorted(path.relative_to(source) for path in source.glob(line) if path.is_file())
        if not found and "*" not in line:
            raise FileNotFoundError(f"{source / line}, which {HERE / 'files.txt'} names")
        files += found
    return files


@contextmanager
def _staged() -> Iterator[None]:
    """A temporary folder with all that is built from, as the working directory."""
    is_sdist = (HERE / "src").is_dir()
    source, top = (HERE / "src", HERE) if is_sdist else (HERE.parent / "src", HERE.parent)
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)
        for file in shipped(source):
            (stage / "src" / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file, stage / "src" / file)
        for name in OWN:
            shutil.copyfile(HERE / name, stage / name)
        shutil.copyfile(top / "LICENSE", stage / "LICENSE")
        (stage / "MANIFEST.in").write_text("include build_backend.py files.txt\n", encoding="utf-8")
        os.chdir(stage)
        try:
            yield
        finally:
            os.chdir(before)
