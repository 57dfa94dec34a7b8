"""Which layers to take: a role's own, or the user's, counted from 0 and checked against the depth."""

from __future__ import annotations

from collections.abc import Sequence

from blemish.encoders.base import LayerRole
from blemish.errors import SettingsError


def resolve_layers(wanted: Sequence[int] | None, default: Sequence[int], depth: int, name: str) -> tuple[int, ...]:
    """`wanted` or else `default`, sorted, unique, negative ones counted from the end; `SettingsError` out of range."""
    chosen = tuple(default if wanted is None else wanted)
    if not chosen or any(not -depth <= layer < depth for layer in chosen):
        raise SettingsError(
            f"layers of {name!r} from 0 to {depth - 1} (or -{depth} to -1)", f"{list(chosen)}", "choose among them"
        )
    return tuple(sorted({layer % depth for layer in chosen}))


def token_roles(depth: int) -> dict[LayerRole, tuple[int, ...]]:
    """The blocks of a healthy vision transformer with `depth` blocks that answer each role."""
    last = depth - 1
    return {
        "deep": (last,),
        "projection": (max(0, depth - 3),),
        "pair": (depth // 2 - 1 if depth > 1 else 0, depth * 3 // 4),
        "middle": tuple(sorted({min(last, round(depth * twelfths / 12)) for twelfths in range(5, 9)})),
        "several": tuple(sorted({max(0, round(depth * share) - 1) for share in (8 / 12, 9 / 12, 10 / 12, 11 / 12)})),
        "many": tuple(sorted({min(last, round(depth * twelfths / 12)) for twelfths in range(2, 10)})),
        "quarters": quarter_ends(depth),
    }


def quarter_ends(depth: int) -> tuple[int, ...]:
    """The last block of each quarter of a transformer with `depth` blocks: 5, 11, 17 and 23 of 24 (MuSc, AnomalyCLIP).

    Ends that fall between two blocks are rounded; fewer than four blocks give fewer.
    """
    return tuple(sorted({max(0, round(depth * quarters / 4) - 1) for quarters in range(1, 5)}))


def stage_roles(depth: int) -> dict[LayerRole, tuple[int, ...]]:
    """The stages of a convolutional or windowed network with `depth` stages (strides 4, 8, 16, 32) for each role."""
    middle = max(0, depth - 2)
    return {
        "deep": (middle,),
        "projection": (middle,),
        "pair": (max(0, middle - 1), middle),
        "middle": (max(0, middle - 1), middle),
        "several": tuple(range(middle + 1)),
        "many": tuple(range(middle + 1)),
        "quarters": (max(0, middle - 1), middle),
    }
