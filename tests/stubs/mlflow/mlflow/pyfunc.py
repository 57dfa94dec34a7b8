"""`save_model` and `load_model` with the arguments, and the order of calls, of MLflow 2 and 3."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_SAVED: dict[str, tuple[PythonModel, dict[str, str]]] = {}


class PythonModel:
    """What users derive from."""


class PyFuncModel:
    """What `load_model` gives."""

    def __init__(self, model: Any, context: Any) -> None:
        self._model, self._context = model, context

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        return self._model.predict(self._context, data, params=params)


def save_model(path: str, *, python_model: Any, artifacts: dict[str, str]) -> None:
    assert isinstance(python_model, PythonModel)
    assert list(inspect.signature(python_model.predict).parameters) == ["context", "model_input", "params"]
    assert list(inspect.signature(python_model.load_context).parameters) == ["context"]
    assert not vars(python_model)  # it is pickled: what it holds is loaded with its context
    assert all(isinstance(place, str) and Path(place).exists() for place in artifacts.values())
    _SAVED[path] = python_model, artifacts


def load_model(model_uri: str) -> PyFuncModel:
    model, artifacts = _SAVED[model_uri]
    context = SimpleNamespace(artifacts=dict(artifacts), model_config={})
    model.load_context(context)
    return PyFuncModel(model, context)
