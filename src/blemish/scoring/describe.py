"""Numbers in words: where a region lies, how large and strong it is, how rare a score is. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from blemish.types import POINTS, RGB, Region

MODALITIES = {RGB: "colour", POINTS: "surface", "text": "text"}  # what people call them
_WITH_ARTICLE = {"surface": "the surface", "text": "the text"}
_ROWS = ("upper", "", "lower")
_COLUMNS = ("left", "", "right")
MOST = 0.5  # of a picture that what is "all over" covers at least


def place_in_words(at: Sequence[float], size: tuple[int, int]) -> str:
    """Where a point or box lies in an image: "upper left", "left edge", "centre", … in a 3 × 3 grid.

    `at` is a point (x, y) or a box (left, top, right, bottom), `size` the image's (height, width), all in pixels.
    A box that spans most of the image is "all over", one that spans most of one side "full width" or "full height".
    """
    height, width = size
    if len(at) == 4:
        wide, high = (at[2] - at[0]) >= 0.8 * width, (at[3] - at[1]) >= 0.8 * height
        if wide and high:
            return "all over"
        x, y = (at[0] + at[2]) / 2, (at[1] + at[3]) / 2
        row, column = _third(y, height, _ROWS), _third(x, width, _COLUMNS)
        if wide:
            return f"full width, {row or 'middle'}"
        if high:
            return f"full height, {column or 'middle'}"
    else:
        x, y = at
        row, column = _third(y, height, _ROWS), _third(x, width, _COLUMNS)
    if row and column:
        return f"{row} {column}"
    return {"upper": "top centre", "lower": "bottom centre", "left": "left of centre", "right": "right of centre"}.get(
        row or column, "centre"
    )


def _third(value: float, length: int, names: tuple[str, str, str]) -> str:
    return names[min(2, max(0, int(3 * value / max(1, length))))]


def share_in_words(area: float, size: tuple[int, int]) -> str:
    """An area in pixels as a share of an image of (height, width): "2.1 % of the picture"."""
    share = 100 * area / max(1, size[0] * size[1])
    return f"{_percent(share)} of the picture"


def _percent(share: float) -> str:
    if share < 0.01:
        return "under 0.01 %"
    return f"{share:.2f} %" if share < 1 else f"{share:.1f} %" if share < 10 else f"{share:.0f} %"


def times_in_words(value: float, limit: float) -> str:
    """A score as a multiple of its limit, "3.2× the limit"; the bare score where the limit is not above 0."""
    return f"{ratio_in_words(value / limit)}× the limit" if limit > 0 else number(value)


def strength_in_words(peak: float, limit: float) -> str:
    """A region's peak in units of the limit of the map, "strength 3.2 (outlined from 1)".

    Not "× the limit": that is said of scores, whose limit the verdict is from. Without a limit above 0, the bare peak.
    """
    return f"strength {ratio_in_words(peak / limit)} (outlined from 1)" if limit > 0 else f"strength {number(peak)}"


def ratio_in_words(ratio: float) -> str:
    """A multiple of a limit: "12", "3.2", "1.04"; just over or under it must not read as "1.00", a tie."""
    if ratio >= 1.1:
        return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"
    return f"{max(ratio, 1.01) if ratio > 1 else min(ratio, 0.99) if ratio < 1 else ratio:.2f}"


def number(value: float) -> str:
    """A score in three significant digits: 0.00123, 0.412, 12.3, 1,234."""
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    if value and abs(value) < 1e-4:
        return f"{value:.2e}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def count_in_words(count: int, one: str, many: str | None = None) -> str:
    """ "1 region", "2 regions", "1,200 regions"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def region_in_words(region: Region, size: tuple[int, int], limit: float) -> str:
    """One region: "upper left, 2.1 % of the picture, strength 3.2 (outlined from 1)".

    `size` is the image's (height, width) in pixels, `limit` the map threshold the region rose above.
    """
    place = place_in_words(region.box, size)
    spreads = place == "all over" and region.area >= MOST * size[0] * size[1]
    if not spreads and not place.startswith("full"):
        place = place_in_words(region.centroid, size)  # the centre of mass says more than the middle of the box
    said = f"{place}, {share_in_words(region.area, size)}, {strength_in_words(region.peak, limit)}"
    return f"{said}; {modalities_in_words(region.modalities)}" if region.modalities else said


def modalities_in_words(shares: Mapping[str, float]) -> str:
    """Who raised an alarm, the loudest first: "mostly the surface (72 %), colour 21 %, text 7 %"."""
    ordered = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    (first, most), *others = [(MODALITIES.get(name, name), f"{100 * share:.0f} %") for name, share in ordered]
    loudest = f"mostly {_WITH_ARTICLE.get(first, first)} ({most})" if ordered[0][1] > 0.5 else f"{first} {most}"
    return ", ".join([loudest, *(f"{name} {share}" for name, share in others)])


def rarity_in_words(p_value: float) -> str:
    """A p-value as a frequency among good parts: "about 1 good part in 50 scores this high"."""
    if p_value >= 0.5:
        return f"{round(100 * p_value)} % of good parts score at least this"
    return f"about 1 good part in {round(1 / max(p_value, 1e-9)):,} scores this high"
