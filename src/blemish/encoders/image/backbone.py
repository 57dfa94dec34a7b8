"""Any Hugging Face vision backbone, by hub id or local folder, with chosen layers as features.

A vision transformer gives the hidden states of blocks, through its final LayerNorm, without CLS and register tokens;
a convolutional or windowed network gives the maps of its stages. The network is cut after the deepest layer taken.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from threading import get_ident
from typing import Any

import torch
from torch import nn

from blemish.encoders.availability import revision_of
from blemish.encoders.base import LayerRole
from blemish.encoders.image.frozen import FrozenEncoder, NetworkOutput
from blemish.encoders.image.hub import config_hash, find_model, normalisation, weight_files
from blemish.encoders.image.pretrained import read_pretrained
from blemish.encoders.layers import resolve_layers, stage_roles, token_roles
from blemish.encoders.precision import Precision
from blemish.encoders.weights import file_hash
from blemish.errors import SettingsError

# Parts inside of blocks or before them are left alone when a network is cut.
INNER = ("embeddings", "embedder", "encoder.", "layers.", "layer.", "stages.", "head.", "pooler.")
# Parts that act after the last block or only while training; a weight file may lack them.
UNUSED = ("pooler", "head", "mask_token", "classifier")
FINAL_NORMS = ("layernorm", "norm", "post_layernorm")


def load_backbone(
    name: str,
    *,
    source: str,
    role: LayerRole = "deep",
    layers: Sequence[int] | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
    licence: str = "see the model's card",
    norm: bool = True,
) -> FrozenEncoder:
    """The backbone at `source` (hub id or folder with config.json + model.safetensors).

    `layers` counts blocks of a transformer, or stages of another network, from 0; without it `role` chooses. `norm`
    passes a transformer's layers through its final LayerNorm. Raises `WeightsError` when the weights are missing,
    incomplete or not finite, or a preprocessor_config.json cannot be read, `SettingsError` for a model that is no
    vision backbone of a known build.
    """
    folder = find_model(name, source)
    model = read_model(folder)
    config = model.config
    is_staged = hasattr(config, "depths")
    blocks = find_blocks(model, len(config.depths) if is_staged else config.num_hidden_layers)
    roles = stage_roles(len(blocks)) if is_staged else token_roles(len(blocks))
    taken = resolve_layers(layers, roles[role], len(blocks), name)
    final_norm = truncate(model, blocks, depth=max(taken) + 1)
    network: StageFeatures | BlockFeatures
    if is_staged:
        network = StageFeatures(model, blocks, taken)
    else:
        network = BlockFeatures(model, blocks, taken, final_norm if norm else nn.Identity())
    mean, std = normalisation(folder, config.model_type)
    encoder = FrozenEncoder(
        network,
        name=name,
        layers=taken,
        stride=network.strides[0],
        size_multiple=network.strides[-1],
        dims=network.dims,
        licence=licence,
        weights_sha256=file_hash(*weight_files(folder)),
        mean=mean,
        std=std,
        device=device,
        precision="fp32" if is_staged and precision == "auto" else precision,  # measured for transformers only
        config_sha256=config_hash(folder / "config.json"),
    )
    encoder.revision = revision_of(folder)
    return encoder


class BlockFeatures(nn.Module):
    """A vision transformer cut after the deepest of `layers`; `norm` is its final LayerNorm (or nothing)."""

    def __init__(self, model: Any, blocks: nn.ModuleList, layers: tuple[int, ...], norm: nn.Module) -> None:
        super().__init__()
        self.model, self.layers, self.norm = model, layers, norm
        config = model.config
        self.patch = int(config.patch_size)
        self.strides = (self.patch,)
        self.dims = (int(config.hidden_size),) * len(layers)
        self._recorder = OutputRecorder([blocks[layer] for layer in layers])
        # Families with learned positions interpolate them only when asked; the others always fit any size.
        known = inspect.signature(model.forward).parameters
        self._options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in known else {}

    def forward(self, images: torch.Tensor) -> NetworkOutput:
        height, width = (side // self.patch for side in images.shape[2:])
        tokens = [self.norm(t) for t in self._recorder(self.model, images, self._options)]  # (B, prefix + h·w, D)
        prefix = tokens[0].shape[1] - height * width  # CLS and registers, by family: 0, 1 or 5
        return tuple(t[:, prefix:].unflatten(1, (height, width)) for t in tokens)  # each (B, h, w, D)


class StageFeatures(nn.Module):
    """A convolutional or windowed network cut after the deepest of `layers`; maps before the next downsampling."""

    def __init__(self, model: Any, blocks: nn.ModuleList, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.model = model
        config = model.config
        first = int(getattr(config, "patch_size", 4))  # ResNet's stem: a convolution and a pooling of stride 2 each
        self.strides = tuple(first << layer for layer in layers)
        if config.model_type == "resnet" and config.downsample_in_first_stage:
            self.strides = tuple(2 * stride for stride in self.strides)
        widths = getattr(config, "hidden_sizes", None) or [config.embed_dim << i for i in range(len(config.depths))]
        self.dims = tuple(int(widths[layer]) for layer in layers)
        for module in model.modules():
            if hasattr(module, "set_shift_and_window_size"):
                keep_window(module)
        # A windowed stage merges patches at its end: take the output of its last block instead.
        stages: list[Any] = [blocks[layer] for layer in layers]
        self._recorder = OutputRecorder([stage.blocks[-1] if hasattr(stage, "blocks") else stage for stage in stages])

    def forward(self, images: torch.Tensor) -> NetworkOutput:
        height, width = images.shape[2:]
        return tuple(
            m.permute(0, 2, 3, 1) if m.ndim == 4 else m.unflatten(1, (height // stride, width // stride))
            for m, stride in zip(self._recorder(self.model, images, {}), self.strides, strict=True)
        )  # each (B, h, w, D)


def keep_window(block: Any) -> None:
    """Make a windowed block keep its window on small images, which are padded to it.

    Its own rule shrinks the window for good, so that features would depend on the images seen before. As in that
    rule, windows are not shifted where a single one spans the image.
    """
    window, shift = block.window_size, block.shift_size

    def choose(resolution: Sequence[int]) -> None:
        block.shift_size = 0 if min(resolution) <= window else shift

    block.set_shift_and_window_size = choose


class OutputRecorder:
    """Runs a model and gives the outputs of some of its modules, in order; in several threads at once, too.

    A deep copy of both together records what the copied modules give.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._outputs: dict[tuple[int, int], torch.Tensor] = {}  # by thread and number of the module
        self._count = len(modules)
        for index, module in enumerate(modules):
            module.register_forward_hook(KeptOutput(self._outputs, index))

    def __call__(self, model: nn.Module, images: torch.Tensor, options: dict[str, Any]) -> list[torch.Tensor]:
        model(images, **options)
        return [self._outputs.pop((get_ident(), index)) for index in range(self._count)]


class KeptOutput:
    """A hook that puts a module's output into `outputs`; an object, as a function's closure would not be copied."""

    def __init__(self, outputs: dict[tuple[int, int], torch.Tensor], index: int) -> None:
        self._outputs, self._index = outputs, index

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._outputs[get_ident(), self._index] = output[0] if isinstance(output, tuple) else output


def read_model(folder: Path) -> Any:
    """The vision model in a folder; every tensor it uses must come from the file and be finite."""
    return read_pretrained(folder, _vision_half, UNUSED)


def _vision_half(config: Any) -> tuple[Any, Any]:
    """The class and the settings of the vision model that a config describes; of two-tower models that half alone."""
    import transformers

    halves = {
        "clip": "CLIPVisionModel",
        "clip_vision_model": "CLIPVisionModel",
        "siglip": "SiglipVisionModel",
        "siglip_vision_model": "SiglipVisionModel",
    }
    model = getattr(transformers, halves.get(config.model_type, "AutoModel"))  # imported when it is asked for: seconds
    return model, getattr(config, "vision_config", config)


def find_blocks(model: nn.Module, depth: int) -> nn.ModuleList:
    """The outermost list of `depth` blocks or stages."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if not lists:
        kind = getattr(model.config, "model_type", type(model).__name__)
        raise SettingsError("a vision backbone of blocks or stages", f"the model type {kind!r}", "use another")
    return lists[0]


def truncate(model: nn.Module, blocks: nn.ModuleList, depth: int) -> nn.Module:
    """Drop all blocks after the first `depth` and whatever follows them; gives back the final norm."""
    del blocks[depth:]
    last: Any = blocks[-1]
    if hasattr(last, "downsample"):
        last.downsample = None
    final: nn.Module = nn.Identity()
    for path, module in list(model.named_modules()):
        parent_path, _, leaf = path.rpartition(".")
        if any(part in path for part in INNER):
            continue
        if leaf in (*FINAL_NORMS, "pooler", "head"):
            final = module if leaf in FINAL_NORMS else final
            setattr(model.get_submodule(parent_path), leaf, nn.Identity())
    return final
