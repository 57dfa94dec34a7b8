"""What the light runtime ships is complete, and imports and works without torch, scipy and all else it does without."""

from __future__ import annotations

import ast

import pytest
import shipped


def test_every_shipped_module_imports_and_works_without_torch_and_scipy() -> None:
    done = shipped.use_from(shipped.SOURCE, shipped.shipped_modules())
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_an_import_of_what_is_absent_is_noticed() -> None:
    done = shipped.use_from(shipped.SOURCE, ["blemish.numeric.neighbours"])
    assert done.returncode != 0
    assert "No module named 'torch'" in done.stderr


@pytest.mark.parametrize("inside_functions", [False, True])
def test_what_a_shipped_module_imports_is_shipped(inside_functions: bool) -> None:
    """At import, and when it is used: a function of the runtime must not need what only blemish has."""
    modules = set(shipped.shipped_modules())
    missing = {
        (str(file), name)
        for file in shipped.shipped_files()
        if file.suffix == ".py"
        for name in shipped.imported_of_blemish(
            ast.parse((shipped.SOURCE / file).read_text(encoding="utf-8")), inside_functions
        )
        if name not in modules
    }
    assert not missing, f"add to runtime/files.txt, or do not import: {sorted(missing)}"


def test_packages_of_shipped_modules_are_shipped() -> None:
    modules = set(shipped.shipped_modules())
    assert {name.rpartition(".")[0] for name in modules} - {""} <= modules


def test_the_list_names_each_file_once_and_in_order() -> None:
    lines = [
        line for line in (shipped.RUNTIME / "files.txt").read_text(encoding="utf-8").splitlines() if line[0] != "#"
    ]
    assert lines == sorted(set(lines))


def test_imports_inside_functions_are_found() -> None:
    tree = ast.parse("from blemish import errors\ndef f():\n    from blemish.numeric import raster\n")
    assert shipped.imported_of_blemish(tree, False) == {"blemish", "blemish.errors"}
    assert "blemish.numeric.raster" in shipped.imported_of_blemish(tree, True)
