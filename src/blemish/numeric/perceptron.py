"""A multi-layer perceptron with GELU and no norm: what maps one space of features to another, cell by cell."""

from __future__ import annotations

from itertools import pairwise

from torch import nn


def perceptron(enter: int, width: int, leave: int, hidden: int = 1) -> nn.Sequential:
    """`(…, enter)` → `(…, leave)` through `hidden` layers of `width`, a GELU after each."""
    layers: list[nn.Module] = []
    widths = [enter, *[width] * hidden, leave]
    for one, other in pairwise(widths):
        layers += [nn.Linear(one, other), nn.GELU()]
    return nn.Sequential(*layers[:-1])
