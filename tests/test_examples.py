"""Every example runs as it is printed, on its own images and on a folder that is given."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.detectors.hybrid import Hybrid

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
    return root


# Small stand-ins for packages that are not installed: they check what they are called with (tests/stubs).
STUBS = [str(folder) for folder in sorted((ROOT / "tests" / "stubs").iterdir()) if find_spec(folder.name) is None]
QUICK = str(ROOT / "tests" / "small_default")
ON_THEIR_OWN_PICTURES = ("01", "03", "05")  # the others take as long, and are given a folder below


def run(example: Path, *arguments: object) -> str:
    paths = [QUICK, *STUBS, *filter(None, [os.environ.get("PYTHONPATH")])]
    ended = subprocess.run(
        [sys.executable, example, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
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
@pytest.mark.parametrize(
    "example", [path for path in EXAMPLES if path.name.startswith(ON_THEIR_OWN_PICTURES)], ids=lambda path: path.stem
)
def test_examples_run_on_the_solar_cells(example: Path) -> None:
    pytest.importorskip("elpv_dataset", reason="the examples' own pictures come with blemish[demo]")
    assert run(example)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process what `QUICK` is in others."""
    monkeypatch.setattr(Hybrid, "image_size", 224)
    monkeypatch.setitem(Hybrid.__init__.__kwdefaults__, "image_size", 224)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("number", "arguments", "words"),
    [
        ("01", ("good", "bad.png"), "is defective"),
        ("02", ("products", "bad.png", "missing.png"), "missing.png"),
        ("03", ("good", "bad.png"), "."),
        ("04", ("good", "more"), "after: limit"),
        ("06", ("good", "bad.png"), "outlier -"),
        ("07", ("good", "bad.png"), "200 defective\n422 expected"),
    ],
)
def test_examples_run_on_a_folder_of_yours(
    folder: Path,
    number: str,
    arguments: tuple[str, ...],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    globals_of(monkeypatch, number, *(folder / argument for argument in arguments))
    assert words in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "arguments", "words"),
    [("08", ("good", "bad.png", "missing.png"), "bad.png defective"), ("11", ("good", "bad.png"), "0 defective")],
)
def test_examples_run_beside_packages_that_may_be_stubs(
    folder: Path, number: str, arguments: tuple[str, ...], words: str
) -> None:
    (example,) = (path for path in EXAMPLES if path.name.startswith(number))
    assert words in run(example, *(folder / argument for argument in arguments))


def globals_of(monkeypatch: pytest.MonkeyPatch, number: str, *arguments: object) -> dict[str, Any]:
    """What an example has made when it is through, in this process."""
    (example,) = (path for path in EXAMPLES if path.name.startswith(number))
    monkeypatch.setattr(sys, "argv", [str(example), *map(str, arguments)])
    return runpy.run_path(str(example))


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_regions_are_fields_of_detections(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As supervision checks them: one row, mask and value for each, and what is called data as long as they are."""
    made = globals_of(monkeypatch, "09", folder / "good", folder / "bad.png")
    fields, count = made["fields"], len(made["regions"])
    assert count
    assert fields["xyxy"].shape == (count, 4)
    assert (fields["xyxy"][:, :2] < fields["xyxy"][:, 2:]).all()
    assert fields["mask"].shape == (count, *made["prediction"].map.shape)
    assert fields["mask"].dtype == bool
    assert [mask.sum() for mask in fields["mask"]] == [region.area for region in made["regions"]]
    assert fields["confidence"].shape == fields["class_id"].shape == (count,)
    assert ((fields["confidence"] > 0.5) & (fields["confidence"] <= 1)).all()
    assert np.issubdtype(fields["class_id"].dtype, np.integer)
    assert {len(value) for value in fields["data"].values()} == {count}


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_samples_of_fiftyone_hold_relative_boxes_and_an_image_of_the_map(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = globals_of(monkeypatch, "10", folder / "good", folder / "bad.png", tmp_path)["found"]
    (sample,) = json.loads((tmp_path / "samples.json").read_text())["samples"]
    assert Path(sample["filepath"]) == (folder / "bad.png").resolve()
    assert sample["verdict"]["label"] == "defective"
    assert sample["defects"]["_cls"] == "Detections"
    assert len(sample["defects"]["detections"]) == len(found.regions) > 0
    for detection, region in zip(sample["defects"]["detections"], found.regions, strict=True):
        x, y, width, height = detection["bounding_box"]
        assert min(x, y) >= 0 < min(width, height)
        assert max(x + width, y + height) <= 1 + 1e-9
        assert (96 * np.array([x, y, x + width, y + height])).tolist() == pytest.approx(region.box)
        assert detection["_cls"] == "Detection"
    heat = np.asarray(Image.open(sample["heat"]["map_path"]))
    assert heat.shape == (96, 96)
    left, top, right, bottom = found.regions[0].box
    assert heat[top:bottom, left:right].max() == heat.max() > 127
