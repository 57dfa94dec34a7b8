"""Small parts for tests of exporting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from blemish.export.onnx_format import quiet

SIDE = 64


def part(seed: int, spot: bool = False, side: int = SIDE) -> np.ndarray:
    """A striped plate `(side, side, 3)` uint8, with a dark spot or without."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    image = 120 + 40 * np.sin(x / 3.0)[..., None] + rng.normal(0, 4, (side, side, 3))
    if spot:
        image[(y - 40) ** 2 + (x - 24) ** 2 < 30] = 10
    return image.clip(0, 255).astype(np.uint8)


def bar(seed: int, spot: bool = False, is_there: bool = True) -> np.ndarray:
    """A striped bar, over seven times as long as wide, on a plain ground `(96, 192, 3)` uint8; or the bare ground."""
    rng = np.random.default_rng(seed)
    image = rng.normal(60, 2, (96, 192, 3))
    y, x = rng.integers((38, 14), (50, 26))
    if is_there:
        stripes = 170 + 20 * np.sin(np.arange(150) / 3.0)[None, :, None]
        image[y : y + 20, x : x + 150] = stripes + rng.normal(0, 3, (20, 150, 3))
        if spot:
            image[y + 6 : y + 13, x + 90 : x + 97] = 20
    return image.clip(0, 255).astype(np.uint8)


def save_graph(graph: torch.nn.Module, inputs: Sequence[torch.Tensor], path: Path, takes_any_number: bool) -> None:
    """A network as an ONNX file, traced with two of the `inputs`' images, their number left open.

    `takes_any_number`: its `forward` is one of `*inputs`.
    """
    shapes = tuple({0: torch.export.Dim("batch")} for _ in inputs)
    with torch.no_grad(), quiet():
        graph(*inputs)  # makes what it keeps
        program = torch.onnx.export(
            graph,
            tuple(tensor[:2] for tensor in inputs),
            dynamo=True,
            input_names=[f"input{i}" for i in range(len(inputs))],
            dynamic_shapes=(shapes,) if takes_any_number else shapes,
            opset_version=18,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    program.save(str(path))
