"""blemish: show it a few images of good parts; it finds, outlines and counts the defects in the next million."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blemish import errors
from blemish.utils.lazy_names import resolve_in

if TYPE_CHECKING:
    from blemish.data.frames import from_bgr
    from blemish.model.inspector import Inspector
    from blemish.model.mutual_inspection import MutualInspection, inspect_mutually
    from blemish.model.outlier_detector import AnomalyInspector
    from blemish.report.views import overlay
    from blemish.types import Failure, Prediction, Region, Sample, Scan

__version__ = "0.1.0"

# Loaded when first asked for, so that `import blemish` is quick and loads no torch.
_HOME = {
    "AnomalyInspector": "model.outlier_detector",
    "Failure": "types",
    "Inspector": "model.inspector",
    "MutualInspection": "model.mutual_inspection",
    "Prediction": "types",
    "Region": "types",
    "Sample": "types",
    "Scan": "types",
    "from_bgr": "data.frames",
    "inspect_mutually": "model.mutual_inspection",
    "overlay": "report.views",
}

__all__ = [
    "AnomalyInspector",
    "Failure",
    "Inspector",
    "MutualInspection",
    "Prediction",
    "Region",
    "Sample",
    "Scan",
    "__version__",
    "errors",
    "from_bgr",
    "inspect_mutually",
    "overlay",
]


def __getattr__(name: str) -> Any:
    return resolve_in(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
