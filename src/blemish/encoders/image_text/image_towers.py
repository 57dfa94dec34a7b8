"""The image half of CLIP, SigLIP and TIPS v2, taken apart into the steps that windows and aligned patches need.

    images ── embed ──► tokens ── enter ──► blocks ──► pool ──► the image's embedding
                                                  └──► project ──► the patches' embeddings

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021 (arXiv 2103.00020);
Tschannen et al., "SigLIP 2", 2025 (arXiv 2502.14786); Maninis et al., "TIPS: Text-Image Pretraining with Spatial
Awareness", ICLR 2025 (arXiv 2410.16512).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate, linear

from blemish.encoders.image_text.blocks import Block


class ImageTower(nn.Module):
    """What the towers share: `blocks`, and facts. `prefix` tokens (CLS, registers) stand before those of patches.

    `patch` is the side of a patch in pixels, `width` that of tokens, `dims` that of embeddings.
    """

    prefix: int
    patch: int
    width: int
    dims: int

    def __init__(self, blocks: Iterable[Block]) -> None:
        super().__init__()
        self._blocks = nn.ModuleList(blocks)

    @property
    def blocks(self) -> list[Block]:
        """The blocks in order."""
        return [block for block in self._blocks if isinstance(block, Block)]

    @property
    def depth(self) -> int:
        """How many blocks patches can be taken after."""
        return len(self._blocks)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images `(B, 3, H, W)` → tokens with their positions `(B, prefix + h·w, D)`, of any size."""
        raise NotImplementedError

    def enter(self, tokens: torch.Tensor) -> torch.Tensor:
        """What happens to tokens before the first block."""
        return tokens

    def normed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens `(…, D)` through the norm that follows the last block."""
        raise NotImplementedError

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens `(N, T, D)` after the last block → the embedding of the image they are of, `(N, E)`."""
        raise NotImplementedError

    def project(self, patches: torch.Tensor) -> torch.Tensor:
        """Tokens of patches `(N, P, D)` after the last block → each in the space of sentences, `(N, P, E)`."""
        raise NotImplementedError

    def encode(self, tokens: torch.Tensor) -> torch.Tensor:
        """The embeddings `(N, E)` of images given as tokens from `embed` `(N, T, D)`, also some of them alone."""
        tokens = self.enter(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return self.pool(tokens)


class ClipTower(ImageTower):
    """Of a `CLIPModel` of transformers: CLS, a norm before the blocks, one projection for all."""

    def __init__(self, model: Any) -> None:
        vision = model.vision_model
        super().__init__(map(Block.of_clip, vision.encoder.layers))
        self.embeddings, self.pre_norm, self.post_norm = vision.embeddings, vision.pre_layrnorm, vision.post_layernorm
        self.projection = model.visual_projection
        config = vision.config
        self.prefix, self.patch, self.width = 1, int(config.patch_size), int(config.hidden_size)
        self.dims = int(model.projection_dim)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = self.embeddings(images, interpolate_pos_encoding=True)
        return tokens

    def enter(self, tokens: torch.Tensor) -> torch.Tensor:
        entered: torch.Tensor = self.pre_norm(tokens)
        return entered

    def normed(self, tokens: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.post_norm(tokens)
        return found

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.project(tokens[:, 0])

    def project(self, patches: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.projection(self.normed(patches))
        return projected


class SiglipTower(ImageTower):
    """Of a `SiglipModel` of transformers: no CLS; a probe that attends to all tokens pools them."""

    def __init__(self, model: Any) -> None:
        vision = model.vision_model
        super().__init__(map(Block.of_clip, vision.encoder.layers))
        self.embeddings, self.post_norm, self.head = vision.embeddings, vision.post_layernorm, vision.head
        config = vision.config
        self.prefix, self.patch, self.width = 0, int(config.patch_size), int(config.hidden_size)
        self.dims = self.width

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = self.embeddings(images, interpolate_pos_encoding=True)
        return tokens

    def normed(self, tokens: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.post_norm(tokens)
        return found

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = self.head(self.normed(tokens))
        return pooled

    def project(self, patches: torch.Tensor) -> torch.Tensor:
        """Each patch as if it were the only one that the pooling head attends to: its value, then the head's MLP."""
        attention = self.head.attention
        weight, bias = attention.in_proj_weight[-self.width :], attention.in_proj_bias[-self.width :]
        value = attention.out_proj(linear(self.normed(patches), weight, bias))  # (N, P, D)
        projected: torch.Tensor = value + self.head.mlp(self.head.layernorm(value))
        return projected


class NaflexTower(SiglipTower):
    """Of a `Siglip2Model` of transformers (NaFlex): images of any aspect ratio, patches as rows of a matrix."""

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        patch, own = self.patch, self.embeddings
        rows = images.unfold(2, patch, patch).unfold(3, patch, patch)  # (B, 3, h, w, patch, patch)
        height, width = rows.shape[2:4]
        rows = rows.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)  # (B, h·w, patch² · 3)
        side = own.position_embedding_size
        places = own.position_embedding.weight.unflatten(0, (side, side)).permute(2, 0, 1)[None]  # (1, D, side, side)
        places = interpolate(places.float(), (height, width), mode="bilinear", align_corners=False, antialias=True)
        tokens: torch.Tensor = own.patch_embedding(rows) + places.flatten(2).mT.to(rows)
        return tokens


class TipsTower(ImageTower):
    """Of a `Tipsv2Model` of transformers: two CLS tokens (alt texts, synthetic captions), text in the same width."""

    def __init__(self, model: Any) -> None:
        vision = model.vision_model
        super().__init__(map(Block.of_tips, vision.encoder.layer))
        self.embeddings, self.final_norm = vision.embeddings, vision.layernorm
        config = vision.config
        self.prefix = 1 + int(config.num_register_tokens)
        self.patch, self.width = int(config.patch_size), int(config.hidden_size)
        self.dims = self.width

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = self.embeddings(images)
        return tokens

    def normed(self, tokens: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.final_norm(tokens)
        return found

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.normed(tokens[:, 0])

    def project(self, patches: torch.Tensor) -> torch.Tensor:
        return self.normed(patches)
