"""Counts, times and p-values of this process's inspections, for `/metrics` in the text format of Prometheus."""

from __future__ import annotations

import statistics as standard
import threading
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import Any

from blemish.serve.events import Event

# Upper bounds in seconds of the histogram of times.
BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
RECENT = 200  # p-values a product whose median is shown


class LineStatistics:
    """Listens to events; counts start anew with the process, as is usual there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._verdicts: Counter[tuple[str, str]] = Counter()
        self._times: Counter[int] = Counter()
        self._seconds = 0.0
        self._p_values: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))

    def listen(self, event: Event) -> None:
        """Take in one event; of parts alone anything is counted."""
        if event.kind != "part":
            return
        part = event.data
        with self._lock:
            self._verdicts[part["product"], part["verdict"] or "error"] += 1
            self._times[bisect_left(BOUNDS, part["seconds"])] += 1
            self._seconds += part["seconds"]
            if part["p_value"] is not None:
                self._p_values[part["product"]].append(part["p_value"])

    def text(self, names: Mapping[str, str], waiting: Mapping[str, int]) -> str:
        """All of it; `names` are those of the products by id, `waiting` further gauges by name."""
        with self._lock:
            verdicts, times = dict(self._verdicts), dict(self._times)
            medians = {product: standard.median(some) for product, some in self._p_values.items() if some}
            seconds = self._seconds
        lines = ["# HELP blemish_parts_total Inspected parts.", "# TYPE blemish_parts_total counter"]
        lines += [
            sample("blemish_parts_total", {"product": names.get(product, product), "verdict": verdict}, count)
            for (product, verdict), count in sorted(verdicts.items())
        ]
        lines += [
            "# HELP blemish_inspection_seconds Time of an inspection.",
            "# TYPE blemish_inspection_seconds histogram",
        ]
        total = 0
        for i, bound in enumerate((*BOUNDS, float("inf"))):
            total += times.get(i, 0)
            label = "+Inf" if bound == float("inf") else f"{bound:g}"
            lines.append(sample("blemish_inspection_seconds_bucket", {"le": label}, total))
        lines += [sample("blemish_inspection_seconds_sum", {}, seconds)]
        lines += [sample("blemish_inspection_seconds_count", {}, total)]
        lines += [
            f"# HELP blemish_p_value_median Median of the last {RECENT} p-values; near 0.5 on a steady line.",
            "# TYPE blemish_p_value_median gauge",
        ]
        lines += [
            sample("blemish_p_value_median", {"product": names.get(product, product)}, median)
            for product, median in sorted(medians.items())
        ]
        lines += gauges(waiting.items())
        return "\n".join(lines) + "\n"


def gauges(values: Iterable[tuple[str, Any]]) -> list[str]:
    """Gauges without labels."""
    return [line for name, value in values for line in (f"# TYPE {name} gauge", sample(name, {}, value))]


def sample(name: str, labels: Mapping[str, str], value: float) -> str:
    """One line of the text format, with all digits: a counter that is rounded stands still, and then jumps."""
    escaped = {key: text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for key, text in labels.items()}
    inside = ",".join(f'{key}="{text}"' for key, text in escaped.items())
    return f"{name}{{{inside}}} {value!r}" if inside else f"{name} {value!r}"
