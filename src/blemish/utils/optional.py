"""An extra package, or the exact pip line that brings it."""

from __future__ import annotations

import importlib
from types import ModuleType

from blemish.errors import MissingPackageError


def need(module: str, extra: str, purpose: str) -> ModuleType:
    """Import `module`, or say which extra of blemish installs it and what it is for."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"the package {module!r} for {purpose}",
            f"an import error ({error})",
            f"run: pip install 'blemish[{extra}]'",
        ) from error
