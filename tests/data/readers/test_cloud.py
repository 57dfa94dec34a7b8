from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest

from blemish.data.readers.cloud import read_text_table
from blemish.errors import ImageError


def test_text_is_read_within_a_few_times_its_numbers() -> None:
    """Words would take many times as much."""
    count = 100_000
    text = b"".join(b"%d %d %d 1 2 3\n" % (i, 2 * i, 3) for i in range(count)) + b"3 0 1 x\n"
    tracemalloc.start()
    table = read_text_table(io.BytesIO(text), 6, count, "a.ply")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(table[:, 1], 2.0 * np.arange(count))
    assert peak < 4 * table.nbytes


@pytest.mark.parametrize(("text", "said"), [(b"1 2 3\n4 x 6 \n", "no number"), (b"1 2 3\n4 5      ", "5 numbers")])
def test_text_that_is_no_table_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(ImageError, match=f"a.ply.*{said}"):
        read_text_table(io.BytesIO(text), 3, 2, "a.ply")
