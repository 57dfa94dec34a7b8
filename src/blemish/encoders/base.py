"""The promise of every encoder: a batch of prepared images in, Features out; frozen, with its facts as attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from blemish.types import Features

if TYPE_CHECKING:
    from blemish.encoders.text.factory import TextEncoder

# What a detector asks an encoder for; each encoder knows which of its layers answer best.
#   deep        the one layer that describes patches best (AnomalyDINO; the last block of a healthy ViT)
#   projection  the layer FoundAD learns on (third-last block)
#   pair        two mid-level layers (PatchCore: stages 2 and 3 of a CNN)
#   middle      neighbouring layers in the middle of a transformer (SubspaceAD); of other networks, what `pair` takes
#   several     a handful of neighbouring mid-to-deep layers
#   many        eight layers across the middle of a transformer (Dinomaly); of other networks, what `several` takes
#   quarters    the last layer of each quarter of a transformer (MuSc); of other networks, what `pair` takes
LayerRole = Literal["deep", "projection", "pair", "middle", "several", "many", "quarters"]

# What of an image an encoder with a text tower embeds in the space of sentences, beside the image as a whole; for
# patches, what takes the place of attention on their way there (see image_text/patch_alignment.py).
#   windows     windows of 2 × 2 and 3 × 3 patches, each encoded by itself (WinCLIP)
#   value       patches: each its own value (MaskCLIP)
#   v-v         patches: similarity of values, on a path beside the last blocks (CLIP Surgery)
#   v-v-all     as v-v, on a path beside all blocks (PromptAD)
#   q-q         patches: similarity of queries, nothing else of the last block (ClearCLIP)
#   k-k         patches: similarity of keys and nearness, nothing else of the last block (NACLIP)
#   v-v-layers  patches of four depths on one path of v-v (AnomalyCLIP)
#   head        patches as they are: what was trained to align them follows the encoder (dino.txt)
Alignment = Literal["windows", "value", "v-v", "v-v-all", "q-q", "k-k", "v-v-layers", "head"]


@runtime_checkable
class Encoder(Protocol):
    """A frozen network that turns images into patch features.

    `stride` is the side of a patch in pixels on the finest layer taken; image height and width given to `encode`
    must be multiples of `size_multiple`. `dims` are the widths of the layers taken, `weights_sha256` the hash of the
    weights that were loaded. What else decides features may be stated as `feature_settings` (identity.py).
    """

    name: str
    modalities: tuple[str, ...]
    layers: tuple[Any, ...]  # numbers; of a joint encoder, those of each part
    stride: int
    size_multiple: int
    dims: tuple[int, ...]
    licence: str
    weights_sha256: str

    def encode(self, images: Any) -> Features:
        """`images` `(B, H, W, 3)` uint8 RGB → Features with float32 layers `(B, h, w, D)`; no gradient.

        Encoders whose `modalities` hold `POINTS` take B scans of one shape, `Sequence[Scan]`, in the images' place.
        """
        ...


@runtime_checkable
class PointsEncoder(Protocol):
    """Turns measured surfaces into features, on a grid with one cell for every `stride` × `stride` points."""

    name: str
    modalities: tuple[str, ...]
    stride: int
    dims: tuple[int, ...]
    licence: str
    weights_sha256: str

    def encode_points(self, points: np.ndarray) -> Features:
        """`points` `(B, H, W, 3)` float32 in metres, NaN where nothing was measured; H and W multiples of `stride`.

        Features with float32 layers `(B, H/stride, W/stride, D)` under `POINTS`, 0 where not `valid[POINTS]`
        `(B, H/stride, W/stride)`. A surface's features never depend on its batch; no gradient.
        """
        ...


def text_tower(encoder: Encoder) -> TextEncoder | None:
    """The encoder of the sentences that share an encoder's space; None where it has none."""
    found: TextEncoder | None = getattr(encoder, "text", None)
    return found
