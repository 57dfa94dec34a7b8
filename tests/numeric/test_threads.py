"""numpy's threads rest while torch works."""

from __future__ import annotations

import scipy.linalg  # noqa: F401
from threadpoolctl import threadpool_info

from blemish.numeric.threads import quiet_numpy


def openblas_threads() -> list[int]:
    return [int(pool["num_threads"]) for pool in threadpool_info() if pool["internal_api"] == "openblas"]


def test_numpy_multiplies_in_one_thread_inside_and_as_before_outside() -> None:
    before = openblas_threads()
    with quiet_numpy():
        assert set(openblas_threads()) <= {1}
    assert openblas_threads() == before
