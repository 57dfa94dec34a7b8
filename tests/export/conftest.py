"""Small fitted models and their bundles, made once for all tests of a process."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from export_parts import SIDE, bar, part

from blemish import Inspector
from blemish.detectors.hybrid import Hybrid
from blemish.export import bundle as writing
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


@pytest.fixture(scope="session")
def openvino_bundle(inspector: Inspector, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the graph in `bundle`: tracing takes seconds."""
    folder = tmp_path_factory.mktemp("exported") / "openvino"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(writing, "onnx_graph", lambda *_: onnx.load(str(bundle / f"graph-{SIDE}x{SIDE}.onnx")))
        export_bundle(inspector.model_, folder, ExportSettings(format="openvino"))
    return folder


@pytest.fixture(scope="session")
def bar_inspector() -> Inspector:
    """As the default: two encoders, a joined detector whose scores are pooled, crops to a part that is a strip."""
    detector = Hybrid(rotations=1, image_size=96, min_patches=256, max_patches=256)
    found = Inspector(detector=detector, encoder="pixels+pixels", device="cpu")
    found.fit([bar(seed) for seed in range(6)], category="bar")
    return found


@pytest.fixture(scope="session")
def bar_bundle(bar_inspector: Inspector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graphs of two of the model's sizes, of ordinary crops and of whole pictures: tracing takes seconds."""
    folder = tmp_path_factory.mktemp("exported") / "bar"
    ordinary, *_, whole = writing.frame_sizes(bar_inspector.model_.framing_of("bar"), [])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(writing, "frame_sizes", lambda *_: [ordinary, whole])
        export_bundle(bar_inspector.model_, folder, ExportSettings(category="bar"))
    return folder
