from __future__ import annotations

import math

from blemish.evaluation import MEASURES, csv_cell, mean_rows


def test_means_leave_out_what_has_no_meaning() -> None:
    base = dict.fromkeys(MEASURES, math.nan) | {"category": "a"}
    rows = [base | {"image_auroc": 0.5}, base | {"image_auroc": 1.0}, base | {"category": "b", "image_auroc": 0.2}]
    first, second = mean_rows(rows, ("category",))
    assert (first["image_auroc"], first["n"]) == (0.75, 2)
    assert second["image_auroc"] == 0.2
    assert math.isnan(first["aupro_30"])


def test_cells_hold_what_a_measure_means() -> None:
    assert [csv_cell(value) for value in (True, math.nan, 0.12345678, 3, "a", "=1+1")] == [
        *("true", "", "0.123457", 3, "a", "'=1+1")
    ]
