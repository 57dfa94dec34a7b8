"""One method, one name: registry, module, test and page agree; and nothing names a file or module that is not there."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from blemish.registry import ALIASES, DETECTORS, resolve

ROOT = Path(__file__).resolve().parent.parent
CODE = ("src", "tests", "benchmarks", "examples", "scripts", "runtime", "docs")
TEXTS = [path for folder in CODE for path in sorted((ROOT / folder).rglob("*.py"))]
TEXTS += [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = [path for path in TEXTS if path != Path(__file__) and path.name != "CHANGELOG.md"]
FILES = {path.relative_to(ROOT) for folder in CODE for path in (ROOT / folder).rglob("*.py")}

FILE = re.compile(r"(?<![\w/*.{}-])((?:[a-z0-9_]+/)*[a-z][a-z0-9_]*\.py)\b(?!\w)")
MODULE = re.compile(r"(?<![\w./-])(blemish(?:\.[a-z_][a-z0-9_]*)+)(?::(\w+))?")
NOT_OURS = {"setup.py", "conftest.py"}
OTHER_MODULES = {"ast": "asymmetric_student_teacher"}  # Python has a module of that name
MADE_FOR_A_TEST = re.compile(r"nothing|test_one", re.IGNORECASE)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detectors_module_test_and_page_have_its_name(name: str) -> None:
    module = DETECTORS[name].target.partition(":")[0]
    package, _, stem = module.rpartition(".")
    assert stem == OTHER_MODULES.get(name, name.replace("-", "_"))
    folder = Path("detectors", *package.split(".")[2:])
    assert (ROOT / "tests" / folder / f"test_{stem}.py").is_file()
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text(encoding="utf-8")
    assert page.splitlines()[0] == f"# {name}"


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detectors_class_is_its_own_and_cites_a_paper(name: str) -> None:
    """No two names share a class, every class has all settings as fields, and its module links to its source."""
    entry = DETECTORS[name]
    assert [other for other, one in DETECTORS.items() if one.target == entry.target] == [name]
    made = resolve(entry.target)
    assert is_dataclass(made)
    assert all(field.kw_only for field in fields(made))
    link = re.compile(r"https://(arxiv\.org/abs/|doi\.org/|ieeexplore\.ieee\.org/document/)")
    assert link.search(importlib.import_module(made.__module__).__doc__ or "")
    assert re.search(r"\b(19|20)\d\d\b", entry.paper)


def test_old_names_of_detectors_are_no_names_of_today() -> None:
    assert set(ALIASES.values()) <= set(DETECTORS)
    assert not set(ALIASES) & set(DETECTORS)


def named_files(text: str) -> Iterator[str]:
    for match in FILE.finditer(text):
        if match[1] not in NOT_OURS and not MADE_FOR_A_TEST.search(match[1]):
            yield match[1]


@pytest.mark.parametrize("path", TEXTS, ids=relative)
def test_files_that_are_named_exist(path: Path) -> None:
    """A name such as detectors/padim.py, with or without its folders, is that of a file of the repository."""
    endings = {file.parts[-count:] for file in FILES for count in range(1, len(file.parts) + 1)}
    missing = [name for name in named_files(path.read_text(encoding="utf-8")) if tuple(name.split("/")) not in endings]
    assert missing == []


def exists(module: str, attribute: str | None) -> bool:
    """Whether a dotted name is that of a module or of something in one."""
    parts = module.split(".")
    for count in range(len(parts), 0, -1):
        base = ROOT / "src" / Path(*parts[:count])
        if base.with_suffix(".py").is_file() or base.is_dir():
            found = importlib.import_module(".".join(parts[:count]))
            for name in [*parts[count:], *([attribute] if attribute else [])]:
                if not hasattr(found, name):
                    return False
                found = getattr(found, name)
            return True
    return False


@pytest.mark.parametrize("path", TEXTS, ids=relative)
def test_modules_that_are_named_exist(path: Path) -> None:
    """A name such as blemish.detectors.padim:PaDiM is that of a module, or of something in one."""
    names = set(MODULE.findall(path.read_text(encoding="utf-8")))
    names = {(module, attribute) for module, attribute in names if not MADE_FOR_A_TEST.search(module + attribute)}
    assert sorted(module for module, attribute in names if not exists(module, attribute or None)) == []
