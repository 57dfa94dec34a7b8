"""Every example runs as it is printed, on its own images and on a folder that is given."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blemish.research.synthetic_scans import ScanSetSpec, write_scans

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
BLOCK = re.compile(r"^```python[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """good/, more/ and bad.png, and a dataset of two products: noisy squares of two colours."""
    root = tmp_path_factory.mktemp("parts")
    random = np.random.default_rng(0)

    def save(path: Path, colour: tuple[int, int, int], hole: bool = False) -> None:
        image = np.full((96, 96, 3), 60.0)
        image[20:76, 20:76] = colour
        if hole:
            image[40:56, 40:56] = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image + random.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)).save(path)

    for i in range(3):
        save(root / "good" / f"{i}.png", (200, 160, 40))
        save(root / "more" / f"{i}.png", (200, 160, 40))
        save(root / "products" / "yellow" / "train" / "good" / f"{i}.png", (200, 160, 40))
        save(root / "products" / "blue" / "train" / "good" / f"{i}.png", (40, 60, 200))
    save(root / "bad.png", (200, 160, 40), hole=True)
    write_scans(root / "scans", ScanSetSpec(classes=1, size=64, train=3, validation=0, good=1, defective=1), workers=1)
    return root


def run(example: Path, *arguments: object) -> str:
    ended = subprocess.run(
        [sys.executable, example, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=600
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_there_are_examples_and_each_is_short() -> None:
    assert len(EXAMPLES) >= 4
    for example in EXAMPLES:
        lines = example.read_text(encoding="utf-8").splitlines()
        assert len(lines) < 30, example.name
        assert lines[0].startswith('"""'), example.name


def quotes(block: list[str], source: list[str]) -> bool:
    """Whether the lines of `block` stand in `source` to the letter and in this order; some may be left out between."""
    rest = iter(source)
    return all(line in rest for line in block)


def test_python_in_the_readme_is_quoted_from_an_example() -> None:
    """What is printed is what runs: the tests below run the examples."""
    blocks = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert blocks
    sources = [example.read_text(encoding="utf-8").splitlines() for example in EXAMPLES]
    for block in blocks:
        lines = [line for line in block.splitlines() if line]
        assert any(quotes(lines, source) for source in sources), f"in no example:\n{block}"


def test_a_changed_line_is_no_quotation() -> None:
    source = ["import this", "a = 1", "b = 2"]
    assert quotes(["import this", "b = 2"], source)
    assert not quotes(["b = 2", "a = 1"], source)
    assert not quotes(["a = 2"], source)


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run_on_the_solar_cells(example: Path) -> None:
    pytest.importorskip("elpv_dataset", reason="the examples' own pictures come with blemish[demo]")
    assert run(example)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "arguments", "words"),
    [
        ("01", ("good", "bad.png"), "is defective"),
        ("02", ("products", "bad.png", "missing.png"), "missing.png"),
        ("03", ("good", "bad.png"), "."),
        ("04", ("good", "more"), "after: limit"),
        ("05", ("scans",), "times the limit"),
    ],
)
def test_examples_run_on_a_folder_of_yours(folder: Path, number: str, arguments: tuple[str, ...], words: str) -> None:
    (example,) = (path for path in EXAMPLES if path.name.startswith(number))
    assert words in run(example, *(folder / argument for argument in arguments))
