from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evaluation_parts import toy_run, write_category

from blemish.evaluation import SharedEncoders, evaluate_run


def test_sharing_what_was_encoded_changes_times_alone(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    categories = [write_category(tmp_path / name, part, name) for name in ("disc", "ring")]
    runs = [toy_run(p, shots=shots) for p in categories for shots in (1, None)]
    alone = [detail for run in runs for detail in evaluate_run(run)]
    with SharedEncoders() as encoders:
        shared = [detail for run in runs for detail in evaluate_run(run, encoders=encoders)]
        assert len({id(encoders.of(run)) for run in runs}) == 1
    timed = {"fit_seconds", "ms_per_picture", "peak_memory_mb"}
    for one, other in zip(alone, shared, strict=True):
        assert one.images == other.images
        assert {k: v for k, v in one.row.items() if k not in timed} == {
            k: v for k, v in other.row.items() if k not in timed
        }
        assert other.row["ms_per_picture"] > 0


def test_runs_that_ask_for_other_numbers_have_encoders_of_their_own(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    run = toy_run(write_category(tmp_path / "disc", part, "disc"))
    exact, short = (replace(run, settings={**run.settings, "precision": name}) for name in ("fp32", "bf16"))
    with SharedEncoders() as encoders:
        assert encoders.of(exact) is encoders.of(exact)
        assert encoders.of(exact) is not encoders.of(short)
