"""The parts that charts share: SVG elements that escape what they hold, scales, axes, and the figure around them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup, escape

from blemish.scoring.describe import number

LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 38  # room for ticks and axis names, pixels

Scale = Callable[[float], float]  # a value → its place in pixels


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """One element. Children are escaped unless they are Markup, None is left out.

    Attribute names: a trailing underscore is dropped (`class_`), other underscores become hyphens; numbers are written
    with two decimals at most, None leaves the attribute out.
    """
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _plain(value))
        for key, value in attributes.items()
        if value is not None
    )
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, join(*children))


def join(*parts: object) -> Markup:
    """Parts one after the other, escaped where they are not Markup; None is left out."""
    return Markup("").join(escape(part) for part in parts if part is not None)


def _plain(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def text(x: float, y: float, words: object, anchor: str, class_: str) -> Markup:
    """Words at a place; `anchor` is "start", "middle" or "end"."""
    return tag("text", words, x=float(x), y=float(y), text_anchor=anchor, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line, drawn as its class says."""
    return tag("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def linear_scale(low: float, high: float, start: float, end: float) -> Scale:
    """Maps low…high to start…end pixels; values outside are clipped to the ends."""
    width = (high - low) or 1.0
    return lambda value: start + (min(max(float(value), low), high) - low) / width * (end - start)


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most `most` round numbers (steps of 1, 2, 2.5 or 5 × 10ⁿ) within low…high."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    rough = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10, 20) if s * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def x_axis(
    ticks: Sequence[float],
    scale: Scale,
    y: float,
    label: str,
    last_prefix: str = "",
    names: Mapping[float, str] | None = None,
) -> Markup:
    """The axis at height `y` with its ticks, their numbers or `names`, and its label."""
    left, right = scale(-math.inf), scale(math.inf)
    parts = [line(left, y, right, y, "axis")]
    for i, tick in enumerate(ticks):
        prefix = last_prefix if i == len(ticks) - 1 else ""  # before a number that is not round
        parts.append(line(scale(tick), y, scale(tick), y + 4, "axis"))
        words = names[tick] if names else prefix + number(tick) if prefix else f"{tick:,.6g}"
        parts.append(text(scale(tick), y + 16, words, "end" if prefix else "middle", "tick"))
    return join(*parts, text((left + right) / 2, y + 33, label, "middle", "label"))


def y_axis(ticks: Sequence[float], scale: Scale, left: float, right: float, label: str, height: int) -> Markup:
    """Grid lines across the drawing with their numbers, and the label standing upright."""
    parts = []
    for tick in ticks:
        y = scale(tick)
        parts.append(line(left, y, right, y, "grid"))
        parts.append(text(left - 6, y + 4, f"{tick:.4g}", "end", "tick"))
    middle = (TOP + height - BOTTOM) / 2
    turn = f"translate(12 {middle:.0f}) rotate(-90)"
    turned = tag("text", label, x=0, y=0, text_anchor="middle", class_="label", transform=turn)
    return join(*parts, turned)


def legend(entries: Sequence[tuple[str, str]]) -> Markup:
    """Names with the tones they are drawn in."""
    keys = (tag("li", tag("span", class_=f"key t-{tone}", aria_hidden="true"), name) for name, tone in entries)
    return tag("ul", *keys, class_="legend")


def figure(title: str, says: str, width: float, height: float, *parts: object, below: Markup | None = None) -> Markup:
    """A titled drawing; `says` is what a person who cannot see it should know."""
    drawing = tag(
        "svg",
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=width,
        height=height,
        role="img",
        aria_label=says,
    )
    return tag("figure", tag("figcaption", title), drawing, below, class_="chart")
