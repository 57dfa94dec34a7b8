"""Inspects with exported bundles: numpy, pillow and one engine (ONNX Runtime or OpenVINO), no torch.

from blemish.runtime import Runtime

prediction = Runtime("bundle").inspect("part.png")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blemish.utils.lazy_names import resolve_in

if TYPE_CHECKING:
    from blemish.runtime.runtime import Runtime
    from blemish.types import Failure

# Loaded when first asked for, so that `blemish-run` can set how many threads numpy has before numpy is imported.
_HOME = {"Failure": "runtime", "Runtime": "runtime"}

__all__ = ["Failure", "Runtime"]


def __getattr__(name: str) -> Any:
    return resolve_in(__name__, _HOME, name)
