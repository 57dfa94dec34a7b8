"""CLIP weights as open_clip names them → a CLIP of transformers; open_clip itself is not needed.

https://github.com/mlfoundations/open_clip (MIT). WinCLIP's encoder, ViT-B/16+ at 240 pixels trained on LAION-400M, is
published in this form alone. Attention of open_clip keeps queries, keys and values in one matrix; projections are
stored as x @ P.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from blemish.encoders.weights import check_finite
from blemish.errors import WeightsError

CONFIG = "open_clip_config.json"
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
HEAD_WIDTH = 64  # of every published CLIP whose config states none

# open_clip's names on the left; one for each block under its number.
_OUTSIDE = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "logit_scale": "logit_scale",
}
_TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
_INSIDE = {
    "ln_1": "layer_norm1",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_TOWERS = {"visual.transformer.resblocks.": "vision_model", "transformer.resblocks.": "text_model"}


def weight_file(folder: Path) -> Path | None:
    """The weights in a folder that open_clip's files were downloaded to; None where there are none."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def read_clip(folder: Path) -> Any:
    """The float32 `CLIPModel` of transformers in a folder with open_clip's weights, in inference mode.

    Its sizes are those of the tensors; `open_clip_config.json`, where there is one, says which GELU it uses and how
    many heads. Raises WeightsError for weights of another kind.
    """
    import transformers

    file = weight_file(folder)
    if file is None:
        raise WeightsError(f"weights of open_clip in {folder}", "none", f"put one of {', '.join(FILES)} there")
    state = read_state(file)
    check_finite(state, str(file))
    try:
        config = clip_config(state, read_facts(folder))
        model: Any = transformers.CLIPModel(transformers.CLIPConfig(**config))
        model.load_state_dict(clip_state(state))
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        raise WeightsError(
            f"the weights of a CLIP with a vision transformer in {file}",
            f"{type(error).__name__}: {str(error).splitlines()[0]}",
            "give weights such as those of ViT-B-16-plus-240",
        ) from error
    return model.eval()


def read_facts(folder: Path) -> dict[str, Any]:
    """What `open_clip_config.json` says; nothing where there is no such file."""
    file = folder / CONFIG
    if not file.is_file():
        return {}
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return facts | {"model_cfg": dict(facts["model_cfg"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"a readable {CONFIG} in {folder}", repr(error), "download it again") from error


def read_state(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a weight file, never as pickle that runs code; raises WeightsError where it cannot be read."""
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Mapping[str, Any] = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
        tensors = found.get("state_dict", found)
        return {name.removeprefix("module."): tensor.float() for name, tensor in tensors.items()}
    except Exception as error:  # a damaged file surfaces as one of many kinds of error
        raise WeightsError(
            f"a readable file of tensors at {file}",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}",
            "download it again",
        ) from error


def clip_config(state: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a `CLIPConfig` is made of, from the shapes of open_clip's tensors and its config's `facts`."""
    known = facts.get("model_cfg", {})
    vision, text = known.get("vision_cfg", {}), known.get("text_cfg", {})
    act = "quick_gelu" if known.get("quick_gelu", False) else "gelu"
    width, _, _, patch = state["visual.conv1.weight"].shape
    places = state["visual.positional_embedding"].shape[0] - 1
    vocabulary, text_width = state["token_embedding.weight"].shape
    shared = {"hidden_act": act, "layer_norm_eps": 1e-5}
    return {
        "projection_dim": state["visual.proj"].shape[1],
        "vision_config": shared
        | {
            "hidden_size": width,
            "patch_size": patch,
            "image_size": math.isqrt(places) * patch,
            "num_hidden_layers": depth(state, "visual.transformer.resblocks."),
            "num_attention_heads": width // int(vision.get("head_width", HEAD_WIDTH)),
            "intermediate_size": state["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        },
        "text_config": shared
        | {
            "hidden_size": text_width,
            "vocab_size": vocabulary,
            "max_position_embeddings": state["positional_embedding"].shape[0],
            "num_hidden_layers": depth(state, "transformer.resblocks."),
            "num_attention_heads": int(text.get("heads", text_width // HEAD_WIDTH)),
            "intermediate_size": state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
            "eos_token_id": vocabulary - 1,  # the last of its vocabulary ends a sentence
        },
    }


def depth(state: Mapping[str, torch.Tensor], prefix: str) -> int:
    """How many blocks a tower has."""
    return 1 + max(int(name.removeprefix(prefix).partition(".")[0]) for name in state if name.startswith(prefix))


def clip_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """open_clip's tensors under the names of transformers. Raises KeyError for a name that no CLIP has."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if name in ("attn_mask", "input_resolution", "context_length", "vocab_size"):  # buffers of old files
            continue
        if name in _TRANSPOSED:
            found[_TRANSPOSED[name]] = tensor.T.contiguous()
            continue
        prefix = next((prefix for prefix in _TOWERS if name.startswith(prefix)), "")
        if not prefix:
            found[_renamed(name, _OUTSIDE)] = tensor
            continue
        number, _, inside = name.removeprefix(prefix).partition(".")
        block = f"{_TOWERS[prefix]}.encoder.layers.{number}"
        if inside.startswith("attn.in_proj_"):
            leaf = inside.removeprefix("attn.in_proj_")
            for part, own in zip("qkv", tensor.chunk(3), strict=True):
                found[f"{block}.self_attn.{part}_proj.{leaf}"] = own.clone()
        else:
            found[f"{block}.{_renamed(inside, _INSIDE)}"] = tensor
    return found


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """A tensor's name with what `names` renames renamed: all of it, or what stands before its last dot."""
    module, _, leaf = name.rpartition(".")
    return names[name] if name in names else f"{names[module]}.{leaf}"
