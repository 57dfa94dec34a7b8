"""blemish: show it a few images of good parts; it finds, outlines and counts the defects in the next million."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from blemish import errors

if TYPE_CHECKING:
    from blemish.model.inspector import Failure, Inspector
    from blemish.model.mutual_inspection import MutualInspection, inspect_mutually
    from blemish.types import Prediction, Region, Sample, Scan

__version__ = "0.1.0"

# Loaded when first asked for, so that `import blemish` is quick and loads no torch.
_HOME = {
    "Failure": "blemish.model.inspector",
    "Inspector": "blemish.model.inspector",
    "MutualInspection": "blemish.model.mutual_inspection",
    "Prediction": "blemish.types",
    "Region": "blemish.types",
    "Sample": "blemish.types",
    "Scan": "blemish.types",
    "inspect_mutually": "blemish.model.mutual_inspection",
}

__all__ = [
    "Failure",
    "Inspector",
    "MutualInspection",
    "Prediction",
    "Region",
    "Sample",
    "Scan",
    "__version__",
    "errors",
    "inspect_mutually",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'blemish' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
