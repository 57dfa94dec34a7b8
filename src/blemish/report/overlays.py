"""Verdicts drawn on images: heat where the map rises above its limit, outlines, numbered boxes, a verdict strip.

Areas below the limit keep their pixels. Images are `(H, W, 3)` uint8; maps may be larger or smaller than the image
they are drawn on (a thumbnail, say), as long as both show the same view.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from blemish.errors import ImageError
from blemish.numeric import raster
from blemish.preprocessing.ignored_area import resized_area
from blemish.report.colours import DEFECT, GOOD, HEAT, TRUTH, UNKNOWN, UNSURE
from blemish.scoring.describe import count_in_words, times_in_words
from blemish.types import Prediction, Region

JPEG_SIDE = 65_500  # pixels a side that libjpeg writes at most
_MOST_BOXES = 12  # more numbers than this hide the part they point at
_MOST_CROPS, _GAP = 4, 6  # regions shown close up beside the image; pixels between these
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_GREY, _HATCH = 120, 200  # levels of an area that is not judged, and of the lines across it
_TONES = {"good": GOOD, "defective": DEFECT, "unsure": UNSURE, "unknown": UNKNOWN}
_WORDS = {"good": "GOOD", "defective": "DEFECTIVE", "unsure": "UNSURE", "unknown": "UNKNOWN PART"}


def draw_overlay(
    image: np.ndarray,
    prediction: Prediction,
    *,
    boxes: bool = True,
    strip: bool = True,
    scale: float = 1.0,
    crops: bool = False,
) -> np.ndarray:
    """The image with its verdict drawn on it, `(H, W, 3)` uint8, a new array of the image's own size.

    What rises above the map threshold is tinted, the stronger the score the denser, and outlined; `boxes` marks the
    strongest regions with corners and a number; `strip` writes the verdict along the edge with the least to see. An
    area that is not judged is greyed and hatched. `crops` adds a column to the right: the strongest regions close up,
    each beside the place of a good part that it is compared with.
    Lines and letters grow with the image, and by `scale` where it will be shown smaller.

    Raises ImageError when the image is not `(H, W, 3)` uint8.
    """
    canvas = _checked(image).copy()
    height, width = canvas.shape[:2]
    scores = _map_at(prediction.map, (height, width))
    over = _inside_regions(scores, prediction)
    if prediction.ignored is not None:
        canvas = draw_ignored(canvas, prediction.ignored, scale)
    if over.any():
        stroke = _stroke(height, width, scale)
        window = _window(over, stroke + 2)
        _tint(canvas[window], scores[window], over[window], prediction.region_threshold)
        _trace(canvas[window], over[window], stroke)
    if boxes:
        canvas = _draw_boxes(canvas, prediction, scale)
    if strip:
        canvas = _draw_strip(canvas, prediction, at_top=_less_to_see_on_top(over))
    return _with_crops(canvas, prediction) if crops else canvas


def _with_crops(canvas: np.ndarray, prediction: Prediction) -> np.ndarray:
    """The image and, in a column to its right, up to four regions close up, each beside its matched good place."""
    pairs = [region.crops for region in strongest_regions(prediction) if region.crops is not None][:_MOST_CROPS]
    if not pairs:
        return canvas
    height = canvas.shape[0]
    side = max(16, min(height // len(pairs), height // 3) - _GAP)
    column = np.full((height, 2 * (side + _GAP), 3), 255, np.uint8)
    for row, pair in enumerate(pairs):
        for place, crop in enumerate((pair.found, pair.good)):
            longest = max(crop.shape[:2])
            size = max(1, crop.shape[1] * side // longest), max(1, crop.shape[0] * side // longest)
            small = np.asarray(Image.fromarray(crop).resize(size, Image.Resampling.BILINEAR))
            top, left = row * (side + _GAP), _GAP + place * (side + _GAP)
            fits = column[top : top + size[1], left : left + size[0]]
            fits[:] = small[: fits.shape[0], : fits.shape[1]]
    return np.concatenate([canvas, column], axis=1)


def heat_image(prediction: Prediction, size: tuple[int, int] | None = None) -> np.ndarray:
    """The whole map in heat colours, `(H, W, 3)` uint8, the outline of what exceeds the limit drawn in white.

    The limit always lies at the middle of the colours, twice the limit at their top, so images compare.
    """
    size = size or (prediction.map.shape[0], prediction.map.shape[1])
    scores = _map_at(prediction.map, size)
    limit = prediction.region_threshold
    top = 2 * limit if limit > 0 else float(scores.max(initial=0.0))
    canvas = HEAT[np.clip(scores * (255 / max(top, 1e-12)), 0, 255).astype(np.uint8)]  # (h, w, 3)
    if prediction.ignored is not None:
        canvas = draw_ignored(canvas, prediction.ignored)
    over = _inside_regions(scores, prediction)
    if over.any():
        _trace(canvas, over, _stroke(*size))
    return canvas


def draw_ignored(image: np.ndarray, area: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """The image with an `area` `(h, w)` bool of it, at any resolution, greyed and hatched: it is not judged.

    So it says in the largest connected part, where that has the room.
    """
    canvas = _checked(image).copy()
    height, width = canvas.shape[:2]
    inside = resized_area(area, (height, width))
    if not inside.any():
        return canvas
    window = _window(inside, 0)
    part, own = canvas[window], inside[window]
    period = 6 * _stroke(height, width, scale)
    y, x = np.ogrid[: own.shape[0], : own.shape[1]]
    is_line = (x + y) % period < period // 3
    grey = np.where(is_line, _HATCH, _GREY)[..., None]  # (h, w, 1)
    part[own] = (0.4 * part + 0.6 * grey).astype(np.uint8)[own]
    return _write_inside(canvas, inside, "not judged", _letters(height, width, scale))


def _write_inside(canvas: np.ndarray, inside: np.ndarray, text: str, letters: int) -> np.ndarray:
    """The image with a text in the middle of the largest connected part of an area, if that has the room."""
    labels, _ = raster.label(inside)
    rows, columns = raster.find_objects(labels)[int(np.argmax(np.bincount(labels[inside])[1:]))]
    font = _font(letters)
    wide, high = font.getlength(text) + letters, 1.5 * letters
    if columns.stop - columns.start < wide or rows.stop - rows.start < high:
        return canvas
    image = Image.fromarray(canvas)
    x, y = (columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2
    draw = ImageDraw.Draw(image)
    draw.rectangle((x - wide / 2, y - high / 2, x + wide / 2, y + high / 2), fill=(_GREY // 2,) * 3)
    draw.text((x, y), text, font=font, fill=_WHITE, anchor="mm")
    return np.asarray(image).copy()


def draw_mask(image: np.ndarray, mask: np.ndarray, tint: float = 0.15, scale: float = 1.0) -> np.ndarray:
    """The image with its true defect outlined in blue and tinted by `tint`; `mask` `(h, w)` is resized to fit."""
    canvas = _checked(image).copy()
    height, width = canvas.shape[:2]
    inside = np.asarray(mask) > 0
    if inside.shape != (height, width):
        # Averaging shrinks small defects away; whatever is touched counts.
        shares = Image.fromarray(inside.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BOX)
        inside = np.asarray(shares) > 32
    if inside.any():
        canvas[inside] = ((1 - tint) * canvas[inside] + tint * np.array(TRUTH)).astype(np.uint8)
        _trace(canvas, inside, _stroke(height, width, scale), line=TRUTH)
    return canvas


def thumbnail(image: np.ndarray, side: int = 320) -> np.ndarray:
    """A copy whose longer side is at most `side` pixels; small images stay as they are."""
    height, width = _checked(image).shape[:2]
    longest = max(height, width)
    if longest <= side:
        return image.copy()
    size = (max(1, round(width * side / longest)), max(1, round(height * side / longest)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)).copy()


def fits_jpeg(image: np.ndarray) -> np.ndarray:
    """The image itself, or a smaller copy where it has more pixels a side than a JPEG holds: line scans may."""
    return image if max(image.shape[:2]) <= JPEG_SIDE else thumbnail(image, JPEG_SIDE)


def _scaled(region: Region, x: float, y: float) -> Region:
    left, top, right, bottom = region.box
    box = (
        int(left * x),
        int(top * y),
        max(int(left * x) + 1, round(right * x)),
        max(int(top * y) + 1, round(bottom * y)),
    )
    centroid = (region.centroid[0] * x, region.centroid[1] * y)
    return replace(region, box=box, area=max(1, round(region.area * x * y)), centroid=centroid)


def _checked(image: np.ndarray) -> np.ndarray:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ImageError(
            "a picture (H, W, 3) of uint8",
            f"{image.shape} of {image.dtype}",
            "decode it with blemish.data.images",
        )
    return image


def _map_at(scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The map `(H, W)` float32 at another size, holes (NaN) as 0; an empty map is 0 everywhere."""
    if scores.size == 0:
        return np.zeros(size, np.float32)
    scores = np.asarray(scores, np.float32)
    if not np.isfinite(scores).all():
        scores = np.nan_to_num(scores, nan=0.0)
    if scores.shape == size:
        return scores
    return np.asarray(Image.fromarray(scores).resize((size[1], size[0]), Image.Resampling.BILINEAR, reducing_gap=3.0))


def _inside_regions(scores: np.ndarray, prediction: Prediction) -> np.ndarray:
    """Where a map `(h, w)`, the prediction's own at any size, rises above its limit inside a region's box.

    What rises above the limit elsewhere was too small or too weak for a region, as good parts show it too.
    """
    inside = np.zeros(scores.shape, dtype=bool)
    if not prediction.map.size:
        return inside
    down, across = scores.shape[0] / prediction.map.shape[0], scores.shape[1] / prediction.map.shape[1]
    for left, top, right, bottom in (region.box for region in prediction.regions):
        rows = slice(math.floor(top * down), math.ceil(bottom * down))
        inside[rows, math.floor(left * across) : math.ceil(right * across)] = True
    return inside & (scores >= prediction.region_threshold) & (scores > 0)


def _stroke(height: int, width: int, scale: float = 1.0) -> int:
    """Line width in pixels: 2 in a 512 px image, growing with it."""
    return max(1, round(scale * min(height, width) / 256))


def _window(inside: np.ndarray, margin: int) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return (
        slice(max(0, rows[0] - margin), rows[-1] + margin + 1),
        slice(max(0, columns[0] - margin), columns[-1] + margin + 1),
    )


# Heat by strength in 254 steps, colours times opacity, both × 256 so that blending stays in integers; step 0 is clear.
# It starts at crimson violet, as the darkest colours would look like shadow.
_STRENGTH = np.linspace(0, 1, 255)
_OPACITY = np.append(0, np.round(256 * (0.12 + 0.5 * _STRENGTH))).astype(np.uint16)  # (256,)
_TINTS = np.append([[0, 0, 0]], HEAT[(100 + 150 * np.sqrt(_STRENGTH)).astype(int)], axis=0).astype(np.uint16)
_TINTS *= _OPACITY[:, None]  # (256, 3), at most 255 × 159
_CLEARNESS = 256 - _OPACITY
_BAND = 32  # rows blended at once: what is worked on stays in the processor's cache


def _tint(canvas: np.ndarray, scores: np.ndarray, over: np.ndarray, limit: float) -> None:
    """Blend heat in place. Strength s = 1 − limit/score: 0 at the limit, ½ at twice, ¾ at four times the limit."""
    top = scores.max()
    for row in range(0, len(canvas), _BAND):
        band = slice(row, row + _BAND)
        strength = 1 - limit / np.maximum(scores[band], limit) if limit > 0 else scores[band] / top
        steps = (1 + 254 * strength).astype(np.uint8)
        steps *= over[band]
        clear = _CLEARNESS.take(steps)[..., None]  # (rows, W, 1)
        canvas[band] = (canvas[band] * clear + _TINTS.take(steps, axis=0)) >> 8


def _trace(canvas: np.ndarray, inside: np.ndarray, stroke: int, line: tuple[int, int, int] = _WHITE) -> None:
    """Draw the edge of an area in place: a line on its inner rim, a dark halo outside, to show on any background."""
    halo = _grown(inside, max(1, stroke // 2 + 1)) & ~inside
    canvas[halo] = (canvas[halo] * np.float32(0.35)).astype(np.uint8)
    canvas[inside & _grown(~inside, stroke)] = line


def _grown(inside: np.ndarray, by: int) -> np.ndarray:
    """The area grown by `by` pixels (a diamond), without wrapping around the image's edge."""
    grown = inside.copy()
    for _ in range(by):
        before = grown.copy()
        grown[1:] |= before[:-1]
        grown[:-1] |= before[1:]
        grown[:, 1:] |= before[:, :-1]
        grown[:, :-1] |= before[:, 1:]
    return grown


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _letters(height: int, width: int, scale: float = 1.0) -> int:
    """Letter height in pixels: at least 11, so that it can be read; 16 in a 512 px image."""
    return max(11, round(scale * min(height, width) / 32))


def _draw_boxes(canvas: np.ndarray, prediction: Prediction, scale: float) -> np.ndarray:
    """Corners and a number for the strongest regions, numbered from the strongest."""
    height, width = canvas.shape[:2]
    if not prediction.regions or min(height, width) < 24:
        return canvas
    map_height, map_width = prediction.map.shape[:2] if prediction.map.size else (height, width)
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    strongest = strongest_regions(prediction)[:_MOST_BOXES]
    for i in reversed(range(len(strongest))):  # the strongest last, on top
        box = _scaled(strongest[i], width / map_width, height / map_height).box
        _draw_corners(draw, box, (height, width), _stroke(height, width, scale))
        if min(height, width) >= 64:
            _draw_number(draw, str(i + 1), box, (height, width), _letters(height, width, scale))
    return np.asarray(image).copy()


def strongest_regions(prediction: Prediction) -> list[Region]:
    """The regions from the largest peak down: the order of the numbers on the overlay and in the report."""
    return sorted(prediction.regions, key=lambda r: (-r.peak, r.box))


def _draw_corners(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], size: tuple[int, int], stroke: int
) -> None:
    """Four corner brackets a little outside the box: they point without covering."""
    margin = 2 * stroke + 2
    left, top = max(stroke, box[0] - margin), max(stroke, box[1] - margin)
    right, bottom = min(size[1] - 1 - stroke, box[2] + margin), min(size[0] - 1 - stroke, box[3] + margin)
    reach_x, reach_y = ((b - a) // 4 if b - a > 8 else (b - a) // 2 for a, b in ((left, right), (top, bottom)))
    reach = max(2, min(reach_x, reach_y, 12 * stroke))
    for colour, extra in ((_BLACK, 2 * max(1, stroke // 2)), (_WHITE, 0)):  # white with a black rim shows anywhere
        for x, dx in ((left, reach), (right, -reach)):
            for y, dy in ((top, reach), (bottom, -reach)):
                draw.line([(x + dx, y), (x, y), (x, y + dy)], fill=colour, width=stroke + extra, joint="curve")


def _draw_number(
    draw: ImageDraw.ImageDraw, text: str, box: tuple[int, int, int, int], size: tuple[int, int], letters: int
) -> None:
    """A white number on the colour of defects, above the box where there is room, otherwise below or inside."""
    font, pad, margin = _font(letters), max(2, letters // 4), max(4, letters // 2)
    wide, high = round(draw.textlength(text, font=font)) + 2 * pad + 2, letters + 2 * pad
    x = min(max(0, box[0] - margin), size[1] - wide)
    y = box[1] - margin - high
    if y < 0:
        y = box[3] + margin if box[3] + margin + high < size[0] else box[1] + margin
    y = min(max(0, y), size[0] - high)
    draw.rounded_rectangle((x, y, x + wide - 1, y + high - 1), radius=pad, fill=DEFECT, outline=_WHITE, width=1)
    draw.text((x + wide / 2, y + high / 2), text, font=font, fill=_WHITE, anchor="mm")


def _less_to_see_on_top(over: np.ndarray) -> bool:
    band = max(1, over.shape[0] // 12)
    return int(over[:band].sum()) < int(over[-band:].sum())


def _draw_strip(canvas: np.ndarray, prediction: Prediction, at_top: bool) -> np.ndarray:
    """The verdict along one edge: as many words as fit, or a bare coloured line on small images."""
    height, width = canvas.shape[:2]
    letters = _letters(height, width)
    high = letters + 2 * max(3, letters // 3)
    colour = tone_of(prediction)
    options = [text for text in _strip_texts(prediction) if _font(letters).getlength(text) + 2 * letters <= width]
    if not options or high > height / 5:
        line = max(1, height // 32)
        canvas[slice(0, line) if at_top else slice(height - line, height)] = colour
        return canvas
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    top = 0 if at_top else height - high
    draw.rectangle((0, top, width - 1, top + high - 1), fill=colour)
    draw.text((letters, top + high / 2), options[0], font=_font(letters), fill=_WHITE, anchor="lm")
    return np.asarray(image).copy()


def tone_of(prediction: Prediction) -> tuple[int, int, int]:
    """The colour of the verdict."""
    return _TONES[prediction.verdict]


def _strip_texts(prediction: Prediction) -> list[str]:
    """The verdict in few letters, the longest wording first."""
    word = _WORDS[prediction.verdict]
    score = times_in_words(prediction.score, prediction.threshold).replace("×", " times")  # Pillow's letters have no ×
    texts = [f"{word}  ·  {score}", word]
    if prediction.regions and prediction.is_defective:
        texts.insert(0, f"{word}  ·  {count_in_words(len(prediction.regions), 'region')}  ·  {score}")
    return texts
