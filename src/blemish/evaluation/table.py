"""The columns of results.csv, means over its rows, and values as cells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from blemish.utils.spreadsheet import cell

COLUMNS = (
    *("dataset", "category", "detector", "encoder", "image_size", "shots", "seed", "pooled"),
    *("n_train", "n_good", "n_defective", "n_masks"),
    *("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max"),
    *("aupro_30", "aupro_05", "aupro_01", "spro_30", "spro_05"),
    *("image_auroc_logical", "image_auroc_structural", "spro_05_logical", "spro_05_structural"),
    *("false_alarm_rate", "miss_rate", "oracle_miss_rate", "unknown_rate", "unsure_rate"),
    *("target_false_alarm_rate", "false_alarm_rate_low", "false_alarm_rate_high", "p_value_excess", "aurc"),
    *("fit_seconds", "ms_per_picture", "peak_memory_mb"),
)
MEASURES = COLUMNS[COLUMNS.index("image_auroc") :]


def mean_rows(rows: Iterable[Mapping[str, Any]], by: Sequence[str]) -> list[dict[str, Any]]:
    """Means of the MEASURES over all rows that agree in `by`, with `n` rows each; nan values are left out of a mean."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    means = []
    for key, members in groups.items():
        facts: dict[str, Any] = dict(zip(by, key, strict=True)) | {"n": len(members)}
        for name in MEASURES:
            values = [float(row[name]) for row in members if not math.isnan(row[name])]
            facts[name] = sum(values) / len(values) if values else math.nan
        means.append(facts)
    return means


def csv_cell(value: Any) -> Any:
    """Six digits are more than any measure means; nan is an empty cell, truth is small, no text is a formula."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "" if value != value else f"{value:.6g}"
    return cell(value)
