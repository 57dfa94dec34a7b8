"""numpy's threads rest while torch works."""

from __future__ import annotations

import scipy.linalg  # noqa: F401
from threadpoolctl import threadpool_info

from blemish.utils.threads import quiet_numpy


def openblas_threads() -> list[int]:
    return [int(pool["num_threads"]) for pool in threadpool_info() if pool["internal_api"] == "openblas"]


def test_numpy_multiplies_in_one_thread_inside_and_as_before_outside() -> None:
    before = openblas_threads()
    with quiet_numpy():
        assert set(openblas_threads()) <= {1}
    assert openblas_threads() == before


def test_the_last_to_leave_restores_the_threads() -> None:
    before = openblas_threads()
    one, other = quiet_numpy(), quiet_numpy()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)  # left in the order of entering, as two threads may do
    assert set(openblas_threads()) <= {1}
    other.__exit__(None, None, None)
    assert openblas_threads() == before
