"""The surface of a part: height, outline, colour and gloss at any place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Surface:
    """A part seen from above at some places `(…)`, in its own coordinates.

    `height` is in millimetres above the ground it lies on, `colour` `(…, 3)` in 0…1 as a screen shows it under plain
    light, `gloss` 0…1. Where `inside` is False the part is not there, and the others mean nothing.
    """

    height: np.ndarray
    inside: np.ndarray
    colour: np.ndarray
    gloss: np.ndarray


Part = Callable[[np.ndarray, np.ndarray], Surface]
"""A part drawn from its class: its surface at places (x, y) in millimetres from its middle."""

Colour = tuple[float, float, float]


def painted(base: Colour, brightness: np.ndarray) -> np.ndarray:
    """A colour `(…, 3)` that is lighter and darker from place to place."""
    return np.asarray(brightness[..., None] * np.array(base, np.float32))


def blended(colour: np.ndarray, other: Colour | np.ndarray, share: np.ndarray) -> np.ndarray:
    """`other` laid over a colour `(…, 3)` with an opacity `(…)`."""
    return np.asarray(colour + share[..., None] * (np.asarray(other, np.float32) - colour))


def surface(height: np.ndarray, inside: np.ndarray, colour: np.ndarray, gloss: float | np.ndarray) -> Surface:
    """A surface whose gloss may be one number, clipped to what can be."""
    clipped = np.clip(colour, 0.01, 0.97).astype(np.float32)
    everywhere = np.broadcast_to(np.asarray(gloss, np.float32), height.shape)
    return Surface(np.maximum(height, 0.0).astype(np.float32), inside, clipped, everywhere)


def jittered(rng: np.random.Generator, colours: Sequence[Colour], spread: float = 0.03) -> Colour:
    """One of the colours, with its brightness and hue jittered."""
    base = np.array(colours[int(rng.integers(len(colours)))])
    r, g, b = np.clip(base * (1 + rng.normal(0, spread)) + rng.normal(0, spread / 3, 3), 0.02, 0.95).tolist()
    return r, g, b
