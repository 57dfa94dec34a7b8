"""Graphs as OpenVINO models, with what Intel's ModelAPI reads from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blemish.utils.optional import need


def save_openvino(model: Path, target: Path, facts: Mapping[str, Any]) -> Path:
    """Write the ONNX file `model` as `target` (.xml), its weights beside it (.bin); returns `target`.

    `facts` go into the section `model_info`, in ModelAPI's convention.
    """
    openvino = need("openvino", "openvino", "exporting for OpenVINO")
    converted = openvino.convert_model(str(model))
    for name, value in facts.items():
        converted.set_rt_info(str(value), ["model_info", name])
    openvino.save_model(converted, str(target), compress_to_fp16=False)
    return target
