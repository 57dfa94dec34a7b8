"""Prompts that do not separate: sentences about defects describe a made-up defect no better than the normal place.

Measured by the margin of a patch, its cosine to the abnormal sentences less that to the normal ones (cf. Jeong et al.,
"WinCLIP", CVPR 2023, which reports pixel AUROC below chance for sentences alone): inside synthetic spots against the
same places untouched. A detector may find defects all the same, by the normal images that it stores beside its prompts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from blemish.detectors.base import ComparesWithText
from blemish.diagnosis.advice import advice_for
from blemish.diagnosis.material import Material
from blemish.diagnosis.signs import InspectedImage, Measure, Sign, Thresholds
from blemish.metrics import auroc
from blemish.preprocessing.framing import Frame
from blemish.preprocessing.ignored_area import fill_ignored

if TYPE_CHECKING:
    from blemish.model.fitted import FittedModel

NAME = "prompts do not separate"
POINTS = 4  # points a side of a patch at which a mask is looked up


def prompts(material: Material, thresholds: Thresholds) -> Sign:
    """Whether the sentences that the detector compares patches with tell synthetic spots from the part."""
    detector = material.model.detector
    separation, gap, why = None, None, ""
    if not isinstance(detector, ComparesWithText):
        why = "the detector compares no sentences with patches"
    elif not material.pairs:
        why = "no good picture of a known part"
    else:
        values = [spot_margins(material.model, detector, *pair) for pair in material.pairs]
        untouched, altered = (np.concatenate(margins) for margins in zip(*values, strict=True))
        if len(untouched):
            separation = auroc(np.concatenate([untouched, altered]), np.repeat([0, 1], len(untouched)))
            gap = float(altered.mean() - untouched.mean())
        else:
            why = "no made-up spot lies where the model looks"
    return Sign(
        NAME,
        "Sentences about defects fit a made-up defect no better than the good part, so words find nothing there.",
        (
            Measure(
                "nearness to sentences about defects, inside made-up spots above the same places untouched (AUROC)",
                separation,
                thresholds.prompts,
                True,
                why,
            ),
        ),
        advice_for(NAME, detector),
        facts={} if gap is None else {"difference of cosines inside made-up spots, mean": gap},
    )


def spot_margins(
    model: FittedModel, detector: ComparesWithText, untouched: InspectedImage, altered: InspectedImage
) -> tuple[np.ndarray, np.ndarray]:
    """The margins `(n,)` of the patches that a synthetic spot covers, of the untouched and of the altered image."""
    assert altered.mask is not None  # a pair's second image has one
    before, after = (margins_of(model, detector, one) for one in (untouched, altered))  # each (h, w)
    frame = model.framing_of(altered.prediction.category).frame(altered.image)
    covered = covered_share(altered.mask, frame, before.shape)  # (h, w)
    inside = (covered > 0) & (covered >= 0.5 * covered.max())
    return before[inside], after[inside]


def margins_of(model: FittedModel, detector: ComparesWithText, one: InspectedImage) -> np.ndarray:
    """The margins `(h, w)` of an inspected image's patches."""
    category = one.prediction.category
    image = fill_ignored(one.image, model.ignored_in(category))
    frame = model.framing_of(category).frame(image)
    features = model.encoder.encode(frame.encoder_input[None]).with_categories([category or ""])
    found: np.ndarray = detector.text_margins(features)[0].float().cpu().numpy()
    return found


def covered_share(mask: np.ndarray, frame: Frame, grid: tuple[int, ...]) -> np.ndarray:
    """How much of each patch `(h, w)` of a `grid` a mask `(H, W)` of the framed image covers, in [0, 1]."""
    height, width = frame.encoder_input.shape[:2]
    (down, across), (tall, wide) = grid, frame.original_size
    y, x = np.meshgrid(
        (np.arange(down * POINTS) + 0.5) * height / (down * POINTS),
        (np.arange(across * POINTS) + 0.5) * width / (across * POINTS),
        indexing="ij",
    )
    to_image = np.array([[wide / width, 0, 0], [0, tall / height, 0]]) if frame.to_image is None else frame.to_image
    column, row = np.tensordot(to_image, np.stack([x, y, np.ones_like(x)]), axes=1)  # each (h · POINTS, w · POINTS)
    is_there = (row >= 0) & (row < mask.shape[0]) & (column >= 0) & (column < mask.shape[1])
    found = np.zeros(row.shape)
    found[is_there] = mask[row[is_there].astype(int), column[is_there].astype(int)]
    share: np.ndarray = found.reshape(down, POINTS, across, POINTS).mean(axis=(1, 3))
    return share
