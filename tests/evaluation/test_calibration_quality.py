from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from blemish.evaluation import RunDetail, ScoredImage, calibration_quality
from blemish.types import Verdict


def detail(p_values: list[float], verdicts: list[Verdict], seed: int = 0, **facts: Any) -> RunDetail:
    """Normal test images of one category, and one defective one that counts nowhere."""
    row = {"dataset": "d", "category": "disc", "detector": "toy", "encoder": "pixels", "image_size": 64}
    row |= {"shots": 4, "pooled": False, "seed": seed, "target_false_alarm_rate": 0.05} | facts
    images = [
        ScoredImage(f"{i}", "disc", "disc", "", 0, 1.0, p, 1.0, verdict)
        for i, (p, verdict) in enumerate(zip(p_values, verdicts, strict=True))
    ]
    return RunDetail(row, (*images, ScoredImage("bad", "disc", "disc", "dent", 1, 9.0, 0.001, 1.0, "defective")), {})


def good(count: int, alarms: int = 0) -> list[Verdict]:
    return ["defective"] * alarms + ["good"] * (count - alarms)  # type: ignore[return-value]


def test_seeds_share_their_test_images() -> None:
    """Three models on the same 40 images say as much of the promise as one does."""
    p_values = np.linspace(0.025, 1, 40).tolist()
    once = calibration_quality([detail(p_values, good(40, 2))])["toy"]
    thrice = calibration_quality([detail(p_values, good(40, 2), seed) for seed in range(3)])["toy"]
    assert once.images == thrice.images == 40
    assert once.kept == thrice.kept
    assert once.kept.share == 2 / 40
    assert once.by_rate == thrice.by_rate
    assert once.uniformity.bound == thrice.uniformity.bound


@pytest.mark.parametrize(
    ("alarms", "words"), [(2, "no difference is shown"), (30, "more than promised"), (0, "no difference is shown")]
)
def test_words_follow_the_interval(alarms: int, words: str) -> None:
    found = calibration_quality([detail([0.5] * 40, good(40, alarms))])["toy"]
    assert found.in_words == words


def test_too_few_alarms_are_seen_with_enough_images() -> None:
    assert calibration_quality([detail([0.5] * 100, good(100))])["toy"].in_words == "fewer than promised"


def test_unknown_parts_are_alarms_that_p_values_do_not_show_and_unsure_ones_are_none() -> None:
    verdicts: list[Verdict] = ["unknown", "unsure", "good", "good"]
    found = calibration_quality([detail([0.9] * 4, verdicts)])["toy"]
    assert found.kept.share == 0.25
    assert found.by_rate[0.05].share == 0
    assert found.unknown_rate == pytest.approx(1 / 5)


def test_methods_are_named_by_what_differs() -> None:
    details = [detail([0.5], ["good"], shots=k) for k in (1, 4)]
    assert list(calibration_quality(details)) == ["toy, shots 1", "toy, shots 4"]
    assert list(calibration_quality(details[:1])) == ["toy"]


def test_rows_are_gone_through_as_often_for_many_as_for_few() -> None:
    class Counted(list[RunDetail]):
        times = 0

        def __iter__(self) -> Iterator[RunDetail]:
            Counted.times += 1
            return super().__iter__()

    def times(runs: int) -> int:
        Counted.times = 0
        calibration_quality(Counted(detail([0.5], ["good"], seed) for seed in range(runs)))
        return Counted.times

    assert times(2) == times(40)


def test_images_of_several_categories_add_up() -> None:
    details = [detail([0.5] * 3, good(3), category=name) for name in ("disc", "ring")]
    assert calibration_quality(details)["toy"].images == 6
