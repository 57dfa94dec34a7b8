"""Names of a package whose modules are loaded when they are first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any


def resolve_in(package: str, homes: Mapping[str, str], name: str) -> Any:
    """What `name` is in the module of `package` that `homes` says, imported now; for a package's `__getattr__`.

    Raises AttributeError for a name without a home.
    """
    if name in homes:
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
    raise AttributeError(f"module {package!r} has no attribute {name!r}")
