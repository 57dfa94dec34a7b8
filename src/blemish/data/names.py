"""What names of folders and files say of the parts in them: good, defective, a mask, or nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from blemish.data.files import shown
from blemish.errors import DatasetError

Meaning = Literal["good", "defective", "mask"]

GOOD_WORDS = frozenset({"good", "ok", "okay", "normal", "passed"})
DEFECT_WORDS = frozenset(
    {"abnormal", "anomalies", "anomalous", "anomaly", "bad", "def", "defect", "defective", "defects", "defekt", "fail"}
    | {"failed", "failure", "failures", "fault", "faults", "faulty", "ko", "ng", "nio", "nogood", "nok", "notok"}
    | {"reject", "rejected", "rejects", "scrap"}
)
# Kinds of defect, of which a folder's name alone may speak: "scratch", "crack_left".
DEFECT_KINDS = frozenset(
    {"broken", "chipped", "contaminated", "contamination", "crack", "cracked", "cracks", "damaged", "dent", "dented"}
    | {"dents", "scratch", "scratched", "scratches"}
)
MASK_WORDS = frozenset({"gt", "groundtruth", "mask", "masks"})
TRAIN_NAMES, TEST_NAMES = frozenset({"train", "training"}), frozenset({"test", "testing"})

_NOT = frozenset({"no", "non", "not", "without", "zero"})
# Words after which a name speaks of the task ("defect_detection"), not of the parts.
_TASK_WORDS = frozenset(
    {"analysis", "benchmark", "classification", "data", "dataset", "datasets", "demo", "detection", "detector"}
    | {"detectors", "finder", "inspection", "project", "projects", "recognition", "segmentation"}
)
_RESOLUTION = frozenset({"hi", "high", "low", "standard"})  # before "def"
_CHUNK = re.compile(r"\d*([A-Za-z]+)\d*")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_NIO = re.compile(r"(?<![A-Za-z])(?:[nN][._ \-][iI][._ \-][oO]|niO)(?![A-Za-z])")  # German for "not in order"
_HEX = re.compile(r"[0-9a-fA-F]{12,}")
_MASK_STEM = re.compile(
    r"(?P<image>.+)[ _.\-](gt|mask|label|seg|segmentation|groundtruth|ground_truth|annotation)", re.IGNORECASE
)


def words_in(name: str) -> list[str]:
    """The words of a name in lower case: "okFront_12" is ok, front. A hexadecimal number has none; "n.i.O." is one."""
    chunks = re.split(r"[^A-Za-z0-9]+", _NIO.sub("nio", name))
    if _HEX.fullmatch("".join(chunks)):
        return []
    letters = (_CHUNK.fullmatch(chunk) for chunk in chunks)
    return [word.lower() for match in letters if match for word in _WORD.findall(match[1])]


def meaning_of(name: str, kinds: bool = False) -> Meaning | None:
    """What a name says of the part, None where it says nothing; `kinds` of defect are understood only on request.

    "not_ok" is defective and "defect-free" good; a name that says both is defective.
    """
    words = words_in(name)
    if _TASK_WORDS.intersection(words):
        return None
    found: set[Meaning] = set()
    for i, word in enumerate(words):
        before, after = words[i - 1] if i else "", words[i + 1] if i + 1 < len(words) else ""
        if word in GOOD_WORDS:
            found.add("defective" if before in _NOT else "good")
        elif word in DEFECT_WORDS or (kinds and word in DEFECT_KINDS):
            if word != "def" or before not in _RESOLUTION:
                found.add("good" if before in _NOT or after == "free" else "defective")
        elif word in MASK_WORDS or (word == "ground" and after == "truth"):
            found.add("mask")
    return next((meaning for meaning in ("mask", "defective", "good") if meaning in found), None)


def masks_beside(images: Iterable[Path]) -> list[Path]:
    """Those of `images` that are masks of others among them, by name: "x_GT.png" beside "x.jpg"."""
    listed = list(images)
    stems = {(image.parent, image.stem) for image in listed}
    matches = ((image, _MASK_STEM.fullmatch(image.stem)) for image in listed)
    return [image for image, match in matches if match and (image.parent, match["image"]) in stems]


def check_names(folder: Path, images: Sequence[Path]) -> None:
    """Raise DatasetError where names say, or leave in doubt, that not all `images` found in `folder` are good.

    Names of the folder, of those below it that hold images, and of the images. Doubtful are masks beside images, a
    folder beside one called "good", and test images beside those for training.
    """
    neighbours: dict[Path, set[str]] = {}
    for image in images:
        for place in image.relative_to(folder).parents:
            if place.name:
                neighbours.setdefault(place.parent, set()).add(place.name)
    telling = {name for names in neighbours.values() for name in names if meaning_of(name, kinds=True) in _BAD}
    root = folder.resolve().name
    if len(words_in(root)) <= 2 and meaning_of(root) in _BAD:  # a longer one names a project, not parts
        telling.add(root)
    for names in neighbours.values():
        if any(meaning_of(name) == "good" for name in names):
            telling |= {name for name in names if meaning_of(name) != "good"}
        lower = {name.lower() for name in names}
        if lower & TRAIN_NAMES:
            telling |= {name for name in names if name.lower() in TEST_NAMES}
    if telling:
        raise _doubt(folder, "folders that seem to hold other ones", sorted(telling))
    if masks := masks_beside(images):
        raise _doubt(folder, "masks of defects beside them", [str(mask.relative_to(folder)) for mask in masks])
    if named := [image for image in images if meaning_of(image.stem) in _BAD]:
        raise _doubt(folder, "files named after defective ones", [str(image.relative_to(folder)) for image in named])


_BAD: tuple[Meaning | None, ...] = ("defective", "mask")
_NAMED = 5  # names that an error lists


def _doubt(folder: Path, what: str, names: Sequence[str]) -> DatasetError:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return DatasetError(
        f"good pictures alone in '{shown(folder)}'",
        f"{what}: {', '.join(shown(name) for name in names[:_NAMED])}{more}",
        "give the folder of good pictures alone, or say that all of them are good (--assume-good)",
    )
