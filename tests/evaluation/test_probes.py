from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from evaluation_parts import toy_run, write_category

from blemish.encoders import build
from blemish.encoders.feature_cache import CachingEncoder
from blemish.evaluation import fit_run, milliseconds_per_image
from blemish.evaluation.probes import FitTimer


class Slow:
    """The pixels encoder, 20 ms slower a batch."""

    def __init__(self) -> None:
        self.encoder, self.calls = build("pixels"), 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)

    def encode(self, images: np.ndarray) -> Any:
        self.calls += 1
        time.sleep(0.02)
        return self.encoder.encode(images)


def test_a_time_is_that_of_images_never_encoded_before(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    made = write_category(tmp_path / "data", part)
    slow = Slow()
    encoder = CachingEncoder(slow, tmp_path / "kept")  # type: ignore[arg-type]
    inspector, _ = fit_run(toy_run(made), encoder=encoder)
    for _ in inspector.inspect_many([sample.image for sample in made.test]):  # type: ignore[misc]
        pass
    calls, kept = slow.calls, len(list((tmp_path / "kept").iterdir()))
    spent = milliseconds_per_image(inspector, made.test, most=4)
    assert 20 < spent < 2000
    assert slow.calls - calls == 1 + 4  # one warms up
    assert len(list((tmp_path / "kept").iterdir())) == kept
    assert math.isnan(milliseconds_per_image(inspector, made.test, most=0))


def test_a_fit_that_read_features_back_has_no_time(tmp_path: Path, part, toy: str) -> None:  # type: ignore[no-untyped-def]
    run = toy_run(write_category(tmp_path / "data", part))
    encoder = CachingEncoder(build("pixels"), tmp_path / "kept")
    first = FitTimer(encoder)
    fit_run(run, encoder=encoder)
    assert first.seconds() > 0
    encoder.encode(np.zeros((1, 64, 64, 3), np.uint8))
    inside = FitTimer(encoder)
    for _ in range(2):  # what a fit itself encoded, it may read back
        encoder.encode(np.ones((1, 64, 64, 3), np.uint8))
    assert inside.seconds() > 0
    again = FitTimer(encoder)
    fit_run(run, encoder=encoder)
    assert math.isnan(again.seconds())
    assert FitTimer(None).seconds() >= 0


# In a process of its own: what other tests left behind may be freed at any moment, and hides what is used here.
MEASURED = """
import numpy as np
from blemish.evaluation import PeakMemory
memory = PeakMemory()
before = memory.megabytes()
block = np.ones(20_000_000)  # 160 MB
during = memory.megabytes()
del block
print(int(memory.resettable), before, during, PeakMemory().megabytes())
"""


def test_peak_memory_sees_what_was_used_since() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True, timeout=120)
    resettable, before, during, after = map(float, done.stdout.split())
    assert during >= before + 100 or not resettable
    assert after < during - 100 or not resettable
