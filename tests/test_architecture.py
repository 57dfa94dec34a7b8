"""Imports point left: a module knows what stands before it in the line, and nothing after it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "blemish"

# From left to right. Modules of one group may import one another, as long as no circle arises.
ORDER = (
    {"types", "errors", "registry", "utils"},
    {"data"},
    {"preprocessing", "augmentation"},
    {"encoders", "numeric"},
    {"detectors"},
    {"scoring", "metrics"},
    {"runtime"},
    {"model"},
    {"evaluation", "diagnosis"},
    {"report", "export"},
    {"monitoring"},
    {"batch", "serve"},
    {"research"},
    {"cli", "__main__"},
)
# Maths on arrays that knows nothing of blemish: modules on both sides of it may use it.
LEAVES = {"numeric.raster", "numeric.organised_points"}
RANK = {name: rank for rank, group in enumerate(ORDER) for name in group}
# What the command line imports at its start, and what the light runtime will reuse, must not load torch by itself.
PICKLES = ("pickle", "shelve", "marshal", "joblib", "dill")
WITHOUT_TORCH = (
    "types",
    "errors",
    "utils",
    "registry",
    "data",
    "preprocessing",
    "metrics",
    "report",
    "scoring",
    "runtime",
)


def modules() -> list[Path]:
    return [path for path in sorted(SOURCE.rglob("*.py")) if path != SOURCE / "__init__.py"]


def house(path: Path) -> str:
    """The top-level module or package of blemish that a file belongs to; the runtime's command line is one of cli's."""
    parts = path.relative_to(SOURCE).parts
    return "cli" if parts == ("runtime", "cli.py") else parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> list[tuple[str, int]]:
    """Every blemish module imported anywhere in a file, inside functions too, as ("detectors", line); but no leaves."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if node.module == "blemish" or _is_leaf(name) else node.module for name in full]
        else:
            continue
        ours = dict.fromkeys(name for name in names if name.startswith("blemish.") and not _is_leaf(name))
        found += [(name.split(".")[1], node.lineno) for name in ours]
    return found


def _is_leaf(name: str) -> bool:
    return name.removeprefix("blemish.") in LEAVES


def loaded_at_import(tree: ast.Module) -> set[str]:
    """The packages a module imports while it is itself imported; `if TYPE_CHECKING:` is not."""
    names: set[str] = set()
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
        waiting += ast.iter_child_nodes(node)
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_left(path: Path) -> None:
    own = RANK[house(path)]
    wrong = [
        f"{path.relative_to(SOURCE)}:{line} imports {name}"
        for name, line in imports(ast.parse(path.read_text(encoding="utf-8")))
        if name in RANK and RANK[name] > own
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_leaves_import_nothing_of_blemish(name: str) -> None:
    path = SOURCE.joinpath(*name.split(".")).with_suffix(".py")
    assert not imports(ast.parse(path.read_text(encoding="utf-8")))


def test_every_module_has_its_place() -> None:
    assert {house(path) for path in modules()} <= RANK.keys(), "name the new module in ORDER"


def test_no_relative_imports() -> None:
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: import blemish.… by its full name"


def test_no_pickle() -> None:
    """Models and caches are data: nothing that runs code on loading is read, nothing of the kind is written."""
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            safe = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
            assert called != "torch.save", f"{path}:{node.lineno} writes pickle"
            assert called != "torch.load" or safe, f"{path}:{node.lineno} reads pickle without weights_only=True"
            assert called.split(".")[0] not in PICKLES, f"{path}:{node.lineno} uses pickle"


# Packages whose name is not that of what they are imported as.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "yaml": "pyyaml",
    "sklearn": "scikit-learn",
    "efficientnet_lite_pytorch": "efficientnet-lite-pytorch",
}


def test_every_imported_package_is_declared() -> None:
    """What src imports is declared in pyproject.toml, as a dependency or in an extra; all dependencies are imported."""
    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    required = {re.split(r"[\s\[<>=!~;]", line, maxsplit=1)[0].lower() for line in project["dependencies"]}
    offered = {re.split(r"[\s\[<>=!~;]", line, maxsplit=1)[0].lower() for extra in extras.values() for line in extra}
    imported: set[str] = set()
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"blemish"}
    named = {DISTRIBUTIONS.get(name, name).replace("_", "-").lower() for name in foreign}
    # transformers brings its hub client; typer is made of click, fastapi of starlette and pydantic; _typeshed is of
    # type checkers alone.
    brought = {"huggingface-hub", "click", "starlette", "pydantic", "-typeshed"}
    assert named - required - offered - brought == set()
    assert required - named == set()


@pytest.mark.parametrize(
    "path", [p for p in modules() if house(p) in WITHOUT_TORCH], ids=lambda path: str(path.relative_to(SOURCE))
)
def test_light_modules_load_no_torch(path: Path) -> None:
    heavy = loaded_at_import(ast.parse(path.read_text(encoding="utf-8"))) & {"torch", "transformers", "sklearn"}
    assert not heavy, f"{path.relative_to(SOURCE)} loads {', '.join(sorted(heavy))} when it is imported"


def test_the_order_is_not_vacuous() -> None:
    """A right-pointing import is noticed, inside a function too."""
    tree = ast.parse("def f():\n    from blemish.report import page\n    import blemish.cli.main\n")
    assert imports(tree) == [("report", 2), ("cli", 3)]
    leaf = (
        "from blemish.numeric import raster\nfrom blemish.numeric.raster import label\nimport blemish.numeric.raster\n"
    )
    assert imports(ast.parse(leaf + "from blemish.numeric import raster, coreset\n")) == [("numeric", 4)]
    assert RANK["report"] > RANK["model"]
