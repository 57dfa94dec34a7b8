"""What the light runtime ships, and a program that imports and uses it where nothing heavy can be imported."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE, RUNTIME = ROOT / "src", ROOT / "runtime"

# What blemish depends on and the runtime does not.
ABSENT = (
    *("torch", "transformers", "scipy", "sklearn", "safetensors", "threadpoolctl"),
    *("typer", "click", "rich", "jinja2", "markupsafe", "yaml"),
)

PROGRAM = """
import sys

root, absent, modules = sys.argv[1], sys.argv[2].split(","), sys.argv[3].split(",")


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())
sys.path.insert(0, root)
import importlib
import json
import tempfile
from pathlib import Path

import numpy as np

for name in modules:
    assert importlib.import_module(name).__file__.startswith(root), f"{name} is not from {root}"

from blemish.cli.results import ResultWriter, read_rows, written_anew
from blemish.data.loading import load_levels
from blemish.numeric import raster
from blemish.preprocessing.crop_to_part import PartFraming
from blemish.preprocessing.foreground import find_part
from blemish.preprocessing.ignored_area import filled_in
from blemish.scoring.anomaly_map import full_map, regions
from blemish.types import Prediction
from PIL import Image


def part(shift):
    image = np.random.default_rng(shift).normal(90, 2, (160, 200, 3))
    image[60:100, 60 + shift : 130 + shift] = (200, 170, 60)
    return image.clip(0, 255).astype(np.uint8)


found = find_part(part(0))
assert found is not None
assert abs(found.mask.sum() * found.shrink**2 / (40 * 70) - 1) < 0.1
framing = PartFraming(image_size=112).fit([part(0), part(9)])
assert framing.crops_
frame = framing.frame(part(5))
patches = np.zeros((frame.encoder_input.shape[0] // 14, frame.encoder_input.shape[1] // 14), dtype=np.float32)
patches[len(patches) // 2, patches.shape[1] // 2] = 1
scores = full_map(patches, frame.encoder_input.shape[:2], frame.original_size, frame.to_image)
assert scores.shape == (160, 200)
(region,) = regions(scores, 0.1)
assert 60 < region.centroid[0] < 140
assert 60 < region.centroid[1] < 100
hidden = np.zeros((160, 200), dtype=bool)
hidden[70:80, 70:90] = True
assert filled_in(part(0), hidden).shape == (160, 200, 3)
prediction = Prediction(
    score=1.0, p_value=0.01, threshold=0.5, verdict="defective", map=scores, regions=(region,), source="a.png"
)
with tempfile.TemporaryDirectory() as folder:
    with written_anew(Path(folder)):
        pass
    with ResultWriter(Path(folder)) as writer:
        writer.write(prediction, part(5))
    (row,) = read_rows(Path(folder))
    assert row["verdict"] == "defective"
    Image.open(Path(folder) / row["overlay"]).load()
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules} & set(absent))))
"""


def shipped_files() -> list[Path]:
    """The files that runtime/files.txt names, relative to `SOURCE`; every line but a pattern must name one."""
    files: set[Path] = set()
    for line in (RUNTIME / "files.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            found = {path.relative_to(SOURCE) for path in SOURCE.glob(line)}
            assert found or "*" in line, f"{line} is not there"
            files |= found
    return sorted(files)


def module_of(file: Path) -> str:
    """blemish/data/__init__.py → blemish.data"""
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


def shipped_modules() -> list[str]:
    return [module_of(file) for file in shipped_files() if file.suffix == ".py" and file.stem != "__main__"]


def imported_of_blemish(tree: ast.Module, inside_functions: bool) -> set[str]:
    """The modules of blemish that a module imports, its type checks aside; packages that hold them are implied."""
    names: set[str] = set()
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not inside_functions:
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        waiting += ast.iter_child_nodes(node)
    return {name for name in names if name.split(".")[0] == "blemish" and is_module(name)}


def is_module(name: str) -> bool:
    path = SOURCE.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def use_from(root: Path, modules: Sequence[str], absent: Sequence[str] = ABSENT) -> subprocess.CompletedProcess[str]:
    """Run `PROGRAM` with the modules that lie under `root`, away from this repository."""
    return subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", PROGRAM, str(root), ",".join(absent), ",".join(modules)],
        cwd=root.anchor,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
