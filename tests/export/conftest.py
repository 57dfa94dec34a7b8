"""A small fitted model and its bundle, made once for all tests of a process."""

from __future__ import annotations

from pathlib import Path

import pytest
from export_parts import SIDE, part

from blemish import Inspector
from blemish.export.bundle import ExportSettings, export_bundle


@pytest.fixture(scope="session")
def inspector() -> Inspector:
    found = Inspector(detector="patchcore", encoder="pixels", image_size=SIDE)
    found.fit([part(seed) for seed in range(8)])
    return found


@pytest.fixture(scope="session")
def bundle(inspector: Inspector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "bundle"
    export_bundle(inspector.model_, folder, ExportSettings())
    return folder
