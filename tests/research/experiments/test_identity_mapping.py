from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from experiment_parts import TINY, untested

from blemish.cli.evaluate import categories_of
from blemish.errors import SettingsError
from blemish.research.experiments.identity_mapping import COPIED, onset
from blemish.research.experiments.runner import ExperimentRunner, configured


def rows(*ratios: tuple[Any, float]) -> list[dict[str, Any]]:
    return [{"bottleneck": width, "made_up_ratio": ratio} for width, ratio in ratios]


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        (((4, 5.0), (16, 4.0), (64, 3.0)), "does not set in, up to a bottleneck of 64"),
        (((4, 5.0), (16, 1.2), (64, 1.1)), "sets in at a bottleneck of 16"),
        (((4, 1.3), (16, 1.2), (64, 1.1)), "copied at every bottleneck"),
        (((4, 1.3), (16, 4.0), (64, 1.1)), "sets in at a bottleneck of 64"),  # too narrow to learn anything is no copy
        (((4, 1.3), (16, 4.0), (64, COPIED)), "does not set in"),
        (((4, float("nan")),), "no residual"),
        ((("none", 1.0), (4, 5.0), (16, 4.0)), "sets in only without a bottleneck"),
        ((("none", 1.0), (4, 5.0), (128, 1.4)), "sets in at a bottleneck of 128"),
    ],
)
def test_onset_is_the_narrowest_from_which_on_all_copy(ratios: tuple[tuple[Any, float], ...], words: str) -> None:
    assert words in onset(rows(*ratios))


def test_onset_is_that_of_the_means() -> None:
    assert "sets in at a bottleneck of 8" in onset(rows((4, 3.0), (8, 1.0), (8, 1.6)))
    assert "does not set in" in onset(rows((4, 3.0), (8, 1.0), (8, 2.2)))


def test_a_wide_open_auto_encoder_is_found_out(dataset: Path, tmp_path: Path) -> None:
    made = configured("identity-mapping", {**TINY["identity-mapping"], "seeds": [0], "maskings": [0]})
    book = ExperimentRunner("identity-mapping", made, categories_of([dataset], None), tmp_path)
    book.run(lambda *_: None)
    narrow, wide = book.store.rows
    assert (narrow["bottleneck"], wide["bottleneck"]) == (1, 15)
    assert narrow["made_up_ratio"] > COPIED + 0.3 > COPIED > wide["made_up_ratio"] > 0.9
    assert narrow["real_ratio"] > 3 > COPIED > wide["real_ratio"]
    assert narrow["image_auroc"] == 1
    assert "sets in at a bottleneck of 15" in made.verdict(book.store.rows).sentences[0]


def test_masked_and_plain_learn_with_settings_of_their_own() -> None:
    made = configured("identity-mapping", {**TINY["identity-mapping"], "seeds": [0]})
    runs = [cell.compute.args[0] for cell in made.cells([untested(good=4)])]  # type: ignore[attr-defined]
    assert [dict(run.settings) for run in runs] == [
        {"bottleneck": 1, "steps": 1},
        {"bottleneck": 15, "steps": 1},
        {"bottleneck": 1, "masking": 0.5, "steps": 1},
        {"bottleneck": 15, "masking": 0.5, "steps": 1},
    ]


@pytest.mark.parametrize("options", [{"maskings": [1]}, {"maskings": [-0.1]}, {"bottlenecks": [-1]}, {"defects": 0}])
def test_impossible_grids_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        configured("identity-mapping", options)


def test_a_detector_without_bottleneck_is_refused_before_any_work() -> None:
    with pytest.raises(SettingsError, match="bottleneck"):
        configured("identity-mapping", {"plain": "near", "masked": "near"}).cells([untested()])
