"""Tiny random image-text models with tokenizers of a few words, as folders that encoders read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from safetensors.torch import save_file

WORDS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "photo", "of", "the", "nut", "bolt", "flawless", "damaged", "."),
    *("perfect", "unblemished", "without", "with", "flaw", "defect", "damage", "small", "large", "cropped", "close"),
    *("-", "up", "bright", "dark", "blurry", "jpeg", "corrupted", "for", "visual", "inspection", "anomaly"),
    *("detection", "disc", "metal", "ring", "part", "[END]"),
)
WIDTH, PATCH, SIZE, DEPTH, DIMS = 32, 8, 40, 4, 12  # of the image towers: 5 × 5 patches


def tower(**more: Any) -> dict[str, Any]:
    """The settings of a small tower."""
    return {
        "hidden_size": WIDTH,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": 4,
        "intermediate_size": 48,
    } | more


def vision(**more: Any) -> dict[str, Any]:
    """The settings of a small image tower."""
    return tower(image_size=SIZE, patch_size=PATCH, **more)


def text(**more: Any) -> dict[str, Any]:
    """The settings of a small text tower."""
    ids = {"bos_token_id": 2, "eos_token_id": len(WORDS) - 1, "pad_token_id": 0}
    return tower(num_hidden_layers=2, vocab_size=len(WORDS), max_position_embeddings=20, **ids, **more)


def model_of(family: str, seed: int = 0) -> Any:
    """A random model of transformers with both towers: "clip", "siglip", "siglip2" (NaFlex) or "tipsv2"."""
    torch.manual_seed(seed)
    model: Any
    if family == "clip":
        config = transformers.CLIPConfig(
            text_config=text(hidden_act="gelu"), vision_config=vision(hidden_act="gelu"), projection_dim=DIMS
        )
        model = transformers.CLIPModel(config)
    elif family == "siglip":
        model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text(), vision_config=vision()))
    elif family == "siglip2":
        patches = tower(patch_size=PATCH, num_patches=(SIZE // PATCH) ** 2)
        model = transformers.Siglip2Model(transformers.Siglip2Config(text_config=text(), vision_config=patches))
    else:
        sized = vision(mlp_ratio=2)
        sized.pop("intermediate_size")
        model = transformers.Tipsv2Model(transformers.Tipsv2Config(text_config=text(), vision_config=sized))
    with torch.no_grad():  # spread the weights out: fresh norms and position embeddings hide mistakes
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model.eval()


def write_model(folder: Path, family: str = "clip", seed: int = 0) -> Path:
    """A random model of a family at `folder`, with its tokenizer."""
    model_of(family, seed).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """A tokenizer that splits at spaces and signs; its last word ends a sentence."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [END]", special_tokens=[("[CLS]", 2), ("[END]", len(WORDS) - 1)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[END]"
    )
    fast.save_pretrained(folder)


def open_clip_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors under open_clip's names, of the shapes of a small CLIP."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return 0.2 * torch.randn(shape, generator=random)

    places = (SIZE // PATCH) ** 2 + 1
    state = {
        "visual.class_embedding": draw(WIDTH),
        "visual.positional_embedding": draw(places, WIDTH),
        "visual.conv1.weight": draw(WIDTH, 3, PATCH, PATCH),
        "visual.proj": draw(WIDTH, DIMS),
        "token_embedding.weight": draw(len(WORDS), WIDTH),
        "positional_embedding": draw(20, WIDTH),
        "text_projection": draw(WIDTH, DIMS),
        "logit_scale": draw(),
    }
    for norm in ("visual.ln_pre", "visual.ln_post", "ln_final"):
        state |= {f"{norm}.weight": 1 + draw(WIDTH), f"{norm}.bias": draw(WIDTH)}
    for prefix, blocks in (("visual.transformer.resblocks", DEPTH), ("transformer.resblocks", 2)):
        for number in range(blocks):
            block = f"{prefix}.{number}"
            state |= {
                f"{block}.attn.in_proj_weight": draw(3 * WIDTH, WIDTH),
                f"{block}.attn.in_proj_bias": draw(3 * WIDTH),
                f"{block}.attn.out_proj.weight": draw(WIDTH, WIDTH),
                f"{block}.attn.out_proj.bias": draw(WIDTH),
                f"{block}.mlp.c_fc.weight": draw(48, WIDTH),
                f"{block}.mlp.c_fc.bias": draw(48),
                f"{block}.mlp.c_proj.weight": draw(WIDTH, 48),
                f"{block}.mlp.c_proj.bias": draw(WIDTH),
            }
            for norm in ("ln_1", "ln_2"):
                state |= {f"{block}.{norm}.weight": 1 + draw(WIDTH), f"{block}.{norm}.bias": draw(WIDTH)}
    return state


def write_open_clip(folder: Path, pickled: bool = False, seed: int = 0) -> Path:
    """A random model under open_clip's names at `folder`, with its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    state = open_clip_state(seed)
    if pickled:
        torch.save(
            {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
            folder / "open_clip_pytorch_model.bin",
        )
    else:
        save_file(state, folder / "open_clip_model.safetensors")
    facts = {"embed_dim": DIMS, "vision_cfg": {"head_width": 8}, "text_cfg": {"heads": 4}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": facts}), encoding="utf-8")
    write_tokenizer(folder)
    return folder


def dino_txt_state(seed: int = 0, width: int = 128, text_width: int = 192) -> dict[str, torch.Tensor]:
    """Random tensors under the published names of dino.txt, for a DINOv3 of a `width`."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return 0.15 * torch.randn(shape, generator=random)

    def norm(name: str, width: int) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": 1 + draw(width), f"{name}.bias": draw(width)}

    def linear(name: str, inside: int, outside: int) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": draw(outside, inside), f"{name}.bias": draw(outside)}

    state = {"logit_scale": draw(1)} | norm("visual_model.head.ln_final", width)
    for number in range(2):
        block = f"visual_model.head.blocks.{number}"
        state |= norm(f"{block}.norm1", width) | norm(f"{block}.norm2", width)
        state |= {f"{block}.attn.qkv.weight": draw(3 * width, width)} | linear(f"{block}.attn.proj", width, width)
        state |= {f"{block}.ls1.gamma": 0.5 + draw(width), f"{block}.ls2.gamma": 0.5 + draw(width)}
        state |= linear(f"{block}.mlp.w1", width, 96) | linear(f"{block}.mlp.w2", width, 96)
        state |= linear(f"{block}.mlp.w3", 96, width)
    text = "text_model.backbone"
    state |= norm(f"{text}.ln_final", text_width)
    state |= {f"{text}.token_embedding.weight": 5 * draw(len(WORDS), text_width)}
    state |= {f"{text}.positional_embedding": draw(20, text_width)}
    state |= {"text_model.head.linear_projection.weight": draw(2 * width, text_width)}
    for number in range(3):
        block = f"{text}.blocks.{number}"
        state |= norm(f"{block}.attention_norm", text_width) | norm(f"{block}.ffn_norm", text_width)
        state |= {f"{block}.attention.qkv.weight": draw(3 * text_width, text_width)}
        state |= linear(f"{block}.attention.proj", text_width, text_width)
        state |= linear(f"{block}.feed_forward.fc1", text_width, 96)
        state |= linear(f"{block}.feed_forward.fc2", 96, text_width)
    return state


def dinov3(width: int = 128, seed: int = 0) -> Any:
    """A random DINOv3 of transformers."""
    torch.manual_seed(seed)
    sized = vision(hidden_size=width, num_register_tokens=4) | {"num_attention_heads": width // 32}
    model = transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**sized))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model.eval()


def write_dino_txt(folder: Path, state: dict[str, torch.Tensor] | None = None) -> Path:
    """A random DINOv3 at `folder`, the weights of dino.txt beside it, and a tokenizer."""
    dinov3().save_pretrained(folder)
    torch.save(dino_txt_state() if state is None else state, folder / "dinov3_dinotxt_vision_head_and_text_encoder.pth")
    write_tokenizer(folder)
    return folder
