from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment_parts import TINY
from scipy.stats import spearmanr

from blemish.cli.evaluate import categories_of
from blemish.errors import SettingsError
from blemish.research.experiments.area_distance import (
    AreaDistance,
    deviation_of,
    move,
    one_a_cell,
    rows_of,
    with_blocks,
)
from blemish.research.experiments.runner import ExperimentRunner, configured


def test_distances_by_side_of_the_mask() -> None:
    good = torch.zeros(4, 4, 2)
    altered = good.clone()
    altered[0, 0] = torch.tensor([3.0, 4.0])
    altered[3, 3] = torch.tensor([0.0, 1.0])
    mask = np.zeros((32, 32), dtype=bool)
    mask[2:6, 2:6] = True  # inside the first patch
    assert move(good, altered, mask) == pytest.approx({"distance": 6 / 16, "inside": 5, "outside": 1 / 15})
    assert np.isnan(move(good, altered, np.ones((32, 32), dtype=bool))["outside"])


def test_spread_is_the_root_mean_square_distance_from_the_mean() -> None:
    patches = np.random.default_rng(0).normal(size=(5, 6, 3)).astype(np.float32)
    flat = patches.reshape(-1, 3)
    expected = np.sqrt(np.mean([np.sum((row - flat.mean(0)) ** 2) for row in flat]))
    assert deviation_of(torch.from_numpy(patches)) == pytest.approx(expected, rel=1e-5)


def test_rows_carry_the_correlation_over_all_defects() -> None:
    random = np.random.default_rng(0)
    moved = [
        (area, share, {"distance": d, "inside": d, "outside": float("nan")})
        for area in (0.1, 0.2)
        for share, d in random.normal(area, 0.1, (5, 2)).tolist()
    ]
    rows = rows_of(3, moved, unit=2.0)
    assert [(row["block"], row["area"], row["n_defects"]) for row in rows] == [(3, 0.1, 5), (3, 0.2, 5)]
    expected = spearmanr([s for _, s, _ in moved], [d["distance"] for *_, d in moved]).statistic
    assert [row["spearman"] for row in rows] == pytest.approx([expected] * 2)
    assert rows[0]["distance"] == pytest.approx(np.mean([d["distance"] for *_, d in moved[:5]]) / 2)


def test_larger_defects_move_colours_further(dataset: Path, tmp_path: Path) -> None:
    made = configured("area-distance", {**TINY["area-distance"], "seeds": [0]})
    book = ExperimentRunner("area-distance", made, categories_of([dataset], None), tmp_path)
    book.run(lambda *_: None)
    rows = [row for row in book.store.rows if row["block"] == 0]
    distances = [row["distance"] for row in rows]
    assert distances == sorted(distances)
    assert distances[-1] > 3 * distances[0] > 0
    assert all(row["outside"] < 0.05 * row["inside"] for row in rows)  # colours of a patch know nothing of others
    assert [row["pasted_share"] for row in rows] == pytest.approx([row["area"] for row in rows], rel=0.3)
    assert made.verdict(book.store.rows).sentences[0].startswith("Yes")


def cell(encoder: str, block: int, value: float) -> list[dict[str, Any]]:
    facts = dict.fromkeys(AreaDistance.KEY, "same") | {"encoder": encoder, "block": block, "spearman": value}
    return [{**facts, "area": area} for area in (0.1, 0.2)]


def test_one_block_that_does_not_follow_is_named() -> None:
    made = configured("area-distance")
    told = made.verdict([*cell("vit", 3, 0.95), *cell("vit", 11, 0.4), *cell("cnn", 2, 0.9)]).sentences
    assert told[0].startswith("Not everywhere")
    assert "vit block 11" in told[0]
    assert "vit block 3" not in told[0]
    assert made.verdict(cell("vit", 3, 0.95)).sentences[0].startswith("Yes")
    assert len(one_a_cell([*cell("vit", 3, 0.95), *cell("vit", 11, 0.4)])) == 2


def test_blocks_are_chosen_or_spread_evenly() -> None:
    assert with_blocks("small-vit", (), "cpu").layers == (0, 1)
    assert with_blocks("small-vit", (-1,), "cpu").layers == (1,)
    with pytest.raises(SettingsError, match="layers"):
        with_blocks("small-vit", (7,), "cpu")


@pytest.mark.parametrize("options", [{"areas": [0, 0.5]}, {"areas": [0.5, 1.5]}, {"areas": [0.5]}, {"images": 0}])
def test_impossible_areas_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        configured("area-distance", options)
