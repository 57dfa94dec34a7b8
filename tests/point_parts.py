"""Made-up surfaces, and tensors named as those of the published Point-MAE."""

from __future__ import annotations

import numpy as np
import torch

Tensors = dict[str, torch.Tensor]


def surface(seed: int = 0, side: int = 32, hole: bool = True) -> np.ndarray:
    """A wavy surface `(side, side, 3)` float32 in metres, with a corner that was not measured."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] * 0.001
    z = 0.3 + 0.004 * np.sin(200 * x + seed) * np.cos(150 * y) + random.normal(0, 1e-4, x.shape)
    points = np.stack([x, y, z], axis=-1).astype(np.float32)
    if hole:
        points[: side // 4 + 2, : side // 4 + 2] = np.nan
    return points


def published(width: int = 64, depth: int = 3, seed: int = 0) -> Tensors:
    """Random tensors under every name of the published file, in its shapes (there: width 384, depth 12)."""
    shapes: dict[str, tuple[int, ...]] = {"mask_token": (1, 1, width)}

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    for name, shape in {
        "first_conv.0": (128, 3, 1),
        "first_conv.1": (128,),
        "first_conv.3": (256, 128, 1),
        "second_conv.0": (512, 512, 1),
        "second_conv.1": (512,),
        "second_conv.3": (width, 512, 1),
    }.items():
        layer(f"MAE_encoder.encoder.{name}", *shape)
        if len(shape) == 1:
            shapes[f"MAE_encoder.encoder.{name}.running_mean"] = shape
            shapes[f"MAE_encoder.encoder.{name}.running_var"] = shape
            shapes[f"MAE_encoder.encoder.{name}.num_batches_tracked"] = ()
    for name in ("MAE_encoder.pos_embed", "decoder_pos_embed"):
        layer(f"{name}.0", 128, 3)
        layer(f"{name}.2", width, 128)
    blocks = [f"MAE_encoder.blocks.blocks.{i}" for i in range(depth)] + [f"MAE_decoder.blocks.{i}" for i in range(2)]
    for block in blocks:
        layer(f"{block}.norm1", width)
        layer(f"{block}.attn.qkv", 3 * width, width, bias=False)
        layer(f"{block}.attn.proj", width, width)
        layer(f"{block}.norm2", width)
        layer(f"{block}.mlp.fc1", 4 * width, width)
        layer(f"{block}.mlp.fc2", width, 4 * width)
    for name in ("MAE_encoder.norm", "MAE_decoder.norm"):
        layer(name, width)
    layer("increase_dim.0", 96, width, 1)
    random = torch.Generator().manual_seed(seed)
    tensors = {
        name: 0.3 * torch.randn(shape, generator=random) / max(1, shape[1] if len(shape) > 1 else 1) ** 0.25
        for name, shape in shapes.items()
    }
    for name in shapes:
        if name.endswith("running_var"):
            tensors[name] = tensors[name].abs() + 0.5
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(7)
    return tensors
