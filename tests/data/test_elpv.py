from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from blemish.data import draw_cells, load_image, solar_cells
from blemish.errors import DatasetError, MissingPackageError, SettingsError

Write = Callable[..., Path]


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """A labels.csv of 40 cells: of each type 10 good, 2 doubtful, 8 defective."""
    lines = [
        f"images/{kind}{i:02}.png  {0.0 if i < 10 else 0.3333333333333333 if i < 12 else 1.0}   {kind}"
        for kind in ("mono", "poly")
        for i in range(20)
    ]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_labels(cells: Path) -> None:
    samples = solar_cells(cells)
    assert Counter((s.label, s.category, s.defect) for s in samples) == {
        (0, kind, ""): 10 for kind in ("mono", "poly")
    } | {(1, kind, "probability 0.33"): 2 for kind in ("mono", "poly")} | {
        (1, kind, "probability 1.00"): 8 for kind in ("mono", "poly")
    }
    assert samples[0].image == cells / "images" / "mono00.png"


def test_commas_a_header_and_a_split_column_are_read(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,probability,type,split\nimages/a.png,0.0,mono,train\n")
    assert [(s.label, s.category) for s in solar_cells(tmp_path)] == [(0, "mono")]


def test_the_draw_is_balanced_and_seeded(cells: Path) -> None:
    learn, inspect = draw_cells(8, 12, seed=3, folder=cells)
    assert Counter((s.label, s.category) for s in learn) == {(0, "mono"): 4, (0, "poly"): 4}
    assert Counter((s.label, s.category) for s in inspect) == {(y, t): 3 for y in (0, 1) for t in ("mono", "poly")}
    assert {s.defect for s in inspect} == {"", "probability 1.00"}
    assert len({s.name for s in learn + inspect}) == 20
    again = draw_cells(8, 12, seed=3, folder=cells)
    assert [[s.name for s in group] for group in again] == [[s.name for s in group] for group in (learn, inspect)]
    assert [s.name for s in draw_cells(8, 12, seed=4, folder=cells)[0]] != [s.name for s in learn]
    with pytest.raises(SettingsError, match="ask for fewer"):
        draw_cells(20, 12, folder=cells)


def test_absent_or_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DatasetError, match=r"labels\.csv"):
        solar_cells(tmp_path)
    (tmp_path / "labels.csv").write_text("images/a.png maybe mono\n")
    with pytest.raises(DatasetError, match="maybe"):
        solar_cells(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'blemish\[demo\]'"):
        solar_cells()


def test_the_real_cells() -> None:
    if importlib.util.find_spec("elpv_dataset") is None:
        pytest.skip("elpv-dataset is not installed")
    samples = solar_cells()
    assert Counter(s.label for s in samples) == {0: 1508, 1: 1116}
    learn, inspect = draw_cells()
    assert (len(learn), len(inspect), sum(s.label for s in inspect)) == (40, 60, 30)
    assert all(s.label == 0 for s in learn)
    assert load_image(inspect[0].image).shape == (300, 300, 3)
