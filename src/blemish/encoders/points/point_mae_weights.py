"""Weight files of Point-MAE: the published names of its tensors, read, checked and written.

The published file is `pretrain.pth` of https://github.com/Pang-Yatian/Point-MAE (MIT; Pang et al., ECCV 2022); what
`blemish pretrain` writes is a folder with the same names in safetensors.
"""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blemish.encoders.points.point_transformer import HEAD_WIDTH, PointTransformer
from blemish.encoders.weights import check_finite
from blemish.errors import WeightsError
from blemish.utils.paths import expanded

VARIABLE = "BLEMISH_POINT_MAE"
WEIGHTS, SETTINGS = "point_mae.safetensors", "settings.json"

# Published prefix → prefix here; first those of the encoder, then those of the decoder, which only pretraining needs.
BLOCK = (
    ("norm1.", "norm1."),
    ("attn.qkv.", "qkv."),
    ("attn.proj.", "out."),
    ("norm2.", "norm2."),
    ("mlp.fc1.", "widen."),
    ("mlp.fc2.", "narrow."),
)
ENCODER = (
    ("MAE_encoder.encoder.first_conv.0.", "embedding.lift."),
    ("MAE_encoder.encoder.first_conv.1.", "embedding.lift_norm."),
    ("MAE_encoder.encoder.first_conv.3.", "embedding.first."),
    ("MAE_encoder.encoder.second_conv.0.", "embedding.second."),
    ("MAE_encoder.encoder.second_conv.1.", "embedding.second_norm."),
    ("MAE_encoder.encoder.second_conv.3.", "embedding.last."),
    ("MAE_encoder.pos_embed.0.", "positions.lift."),
    ("MAE_encoder.pos_embed.2.", "positions.last."),
    ("MAE_encoder.norm.", "norm."),
)
DECODER = (
    ("mask_token", "mask_token"),
    ("decoder_pos_embed.0.", "decoder_positions.lift."),
    ("decoder_pos_embed.2.", "decoder_positions.last."),
    ("MAE_decoder.norm.", "decoder_norm."),
    ("increase_dim.0.", "head."),
)
ENCODER_BLOCK, DECODER_BLOCK = r"MAE_encoder\.blocks\.blocks\.(\d+)\.", r"MAE_decoder\.blocks\.(\d+)\."


def find_weights(name: str, source: str | None) -> Path:
    """The weight file in the folder or at the path `source`, or where the environment variable points.

    Raises `WeightsError` with three ways out when there is none.
    """
    place = source if source is not None else os.environ.get(VARIABLE, "")
    path = expanded(place)
    if place and path.is_file():
        return path
    if place and (path / WEIGHTS).is_file():
        return path / WEIGHTS
    raise WeightsError(
        f"the weights of the encoder {name!r}",
        f"none at {place!r}" if place else f"no {VARIABLE} in the environment",
        f"(1) download pretrain.pth of https://github.com/Pang-Yatian/Point-MAE and export {VARIABLE}=FILE; "
        "(2) or learn your own: blemish pretrain point-mae GOOD -o OUT, and name OUT as the encoder; "
        "(3) or use an encoder of points that needs no weights: points-fpfh",
    )


def read_network(path: Path) -> PointTransformer:
    """The network in a file with the published names.

    Raises `WeightsError` for a file that cannot be read, and for tensors that are missing, unknown, of another shape or
    not finite.
    """
    ours = renamed(read_tensors(path), path)
    network = PointTransformer(*_size(ours, path))
    fill(network, ours, path)
    return network


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a weight file by their published names, without prefixes that training scripts add."""
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
        tensors = content.get("base_model", content)
        named = {_plain(name): tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
    except Exception as error:  # readers of damaged files, and of those that are no weights, raise anything
        # Of pickles torch says how to run what is in them; nobody should.
        reason = "no tensors that torch saved" if isinstance(error, pickle.UnpicklingError) else error
        raise WeightsError(
            f"Point-MAE weights at {path}", f"unreadable content ({reason})", "get the file again"
        ) from error
    check_finite(named, str(path))
    return named


def _plain(name: str) -> str:
    return re.sub(r"^(base_model\.|module\.)+", "", name)


def renamed(published: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The encoder's tensors under the names of `PointTransformer`; raises WeightsError for unknown ones."""
    ours, unknown = {}, []
    for name, tensor in published.items():
        if (own := own_name(name)) is not None:
            ours[own] = tensor
        elif _translated(name, DECODER, DECODER_BLOCK, "decoder") is None:
            unknown.append(name)
    if unknown:
        raise WeightsError(
            f"tensors of Point-MAE alone in {path}",
            f"unknown ones: {_some(unknown)}",
            "give a file of masked pretraining",
        )
    return ours


def own_name(published: str) -> str | None:
    """The name of an encoder's tensor in `PointTransformer`; None for others."""
    return _translated(published, ENCODER, ENCODER_BLOCK, "blocks")


def _translated(name: str, table: tuple[tuple[str, str], ...], block: str, blocks: str) -> str | None:
    if found := re.match(block, name):
        rest = name[found.end() :]
        return next((f"{blocks}.{found[1]}.{own}{rest[len(p) :]}" for p, own in BLOCK if rest.startswith(p)), None)
    return next((own + name[len(p) :] for p, own in table if name.startswith(p)), None)


def published_names(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a `MaskedAutoencoder` (its encoder's under "encoder.") by their published names and shapes."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in own.items():
        of_encoder = name.startswith("encoder.")
        bare = name.removeprefix("encoder.")
        blocks, before = ("blocks", "MAE_encoder.blocks.blocks") if of_encoder else ("decoder", "MAE_decoder.blocks")
        if found := re.match(rf"{blocks}\.(\d+)\.", bare):
            rest = bare[found.end() :]
            tensors |= {f"{before}.{found[1]}.{p}{rest[len(o) :]}": tensor for p, o in BLOCK if rest.startswith(o)}
            continue
        (prefix, start), *_ = [(p, o) for p, o in (ENCODER if of_encoder else DECODER) if bare.startswith(o)]
        is_convolution = tensor.ndim == 2 and ("_conv." in prefix or prefix.startswith("increase_dim"))
        tensors[prefix + bare[len(start) :]] = tensor[..., None] if is_convolution else tensor
    return tensors


def fill(network: torch.nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load `tensors` into `network`; 1 × 1 convolutions over points become linear layers.

    Raises WeightsError for tensors that are missing, unknown or of another shape.
    """
    expected = network.state_dict()
    missing = [name for name in expected if name not in tensors and not name.endswith("num_batches_tracked")]
    if missing:
        published = published_names({f"encoder.{name}": expected[name] for name in missing})
        raise WeightsError(f"all tensors of Point-MAE in {path}", f"missing: {_some(list(published))}", "get it again")
    if extra := [name for name in tensors if name not in expected]:
        raise WeightsError(f"tensors of Point-MAE alone in {path}", f"unknown ones: {_some(extra)}", "get it again")
    flat = {n: t.squeeze(-1) if t.ndim == 3 and t.shape[-1] == 1 else t for n, t in tensors.items()}
    wrong = [
        f"{n} {tuple(t.shape)}, not {tuple(expected[n].shape)}" for n, t in flat.items() if t.shape != expected[n].shape
    ]
    if wrong:
        raise WeightsError(f"tensors of the published shapes in {path}", _some(wrong), "give a file of Point-MAE")
    network.load_state_dict({n: t.to(expected[n].dtype) for n, t in flat.items()}, strict=False)


def _size(ours: Mapping[str, Tensor], path: Path) -> tuple[int, int]:
    """Width and number of blocks of the network that a file holds."""
    indices = {int(name.split(".")[1]) for name in ours if name.startswith("blocks.")}
    if "norm.weight" not in ours or not indices:
        raise WeightsError(
            f"the encoder of Point-MAE in {path}", "no MAE_encoder.norm.weight or no blocks", "give another file"
        )
    width = len(ours["norm.weight"])
    if width > HEAD_WIDTH and width % HEAD_WIDTH:
        raise WeightsError(f"a width that {HEAD_WIDTH} divides in {path}", str(width), "give a file of Point-MAE")
    return width, max(indices) + 1


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def write_folder(folder: Path, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> None:
    """Write weights under their published names, and the settings of pretraining, into an existing folder."""
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
