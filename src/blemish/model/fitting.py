"""From normal images to a fitted model: survey, encode, leave out outliers, fit, hold out, calibrate."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from blemish.data import load_sample
from blemish.data.full_scale import learn_full_scale
from blemish.data.loading import ImageInputs, complete_samples, good_samples
from blemish.detectors.base import Detector, FitsToHeldOut, Progress
from blemish.encoders.base import Encoder, text_tower
from blemish.encoders.feature_cache import with_disk_cache
from blemish.encoders.precision import precision_of
from blemish.errors import DatasetError
from blemish.model.category_recognition import CategoryRecognisers
from blemish.model.feature_loader import FeatureLoader, check_enough
from blemish.model.fitted import FittedModel
from blemish.model.held_out_scores import HeldOutEncoder, calibrations_of, score_held_out
from blemish.model.model_folder import thumbnail_sheet
from blemish.model.outliers import Outlier, find_outliers
from blemish.model.reference_images import KEPT, MOST, ReferenceImages
from blemish.model.settings import ModelSettings, check_compatible
from blemish.model.standing_out import find_standing_out, scores_to_compare
from blemish.model.survey import NormalImages, survey
from blemish.preprocessing.framing import Framing, same_state
from blemish.preprocessing.ignored_area import IgnoreInput, fill_ignored, ignored_pixels, read_ignored
from blemish.scoring.held_out_plan import plan_held_out
from blemish.types import POINTS, ImageOrScan, Prompts, Sample
from blemish.utils.indices import evenly_spaced, group_indices
from blemish.utils.paths import expanded
from blemish.utils.progress import progress_of_step


def fit(
    settings: ModelSettings,
    images: ImageInputs,
    category: str | None = None,
    progress: Progress | None = None,
    clean: bool = False,
    cache: str | Path | None = None,
    assume_good: bool = False,
    ignore: IgnoreInput | None = None,
    learned_only: ImageInputs = (),
) -> FittedModel:
    """Fit a model on normal images; see `Inspector.fit` for the arguments and what it raises.

    What is cheap to check is checked before the first image is decoded.
    """
    needs = settings.detector.needs
    given = [settings.measured(sample) for sample in good_samples(images, category, assume_good)]
    samples = complete_samples(given, needs.modalities)
    check_enough([sample.category or "" for sample in samples], needs)
    chosen = complete_samples(
        [settings.measured(sample) for sample in chosen_samples(learned_only, category)], needs.modalities
    )
    samples = [*samples, *chosen]
    given_areas = read_ignored(ignore)
    encoder = settings.build_encoder()
    check_compatible(needs, encoder, settings.framing, settings.detector_name)
    prompts, text_encoder = embedded_prompts([sample.category or "" for sample in samples], settings, encoder)
    learning = encoder if cache is None else with_disk_cache(encoder, Path(cache))
    full_scale = learn_full_scale(samples, settings.bit_depth)
    load = partial(load_sample, modalities=needs.modalities, full_scale=full_scale)
    normal = survey(samples, load, partial(settings.build_framing, encoder), assume_good, given_areas)
    check_enough(normal.categories, needs)
    loader = feature_loader(normal, learning, settings, prompts, progress)
    outliers: tuple[Outlier, ...] = ()
    comparing = progress_of_step(progress, "comparing good pictures")
    if clean and (outliers := find_outliers(loader, normal.samples, normal.fingerprints, comparing)):
        normal, loader = without_outliers(normal, loader, settings, outliers, encoder)
    never = {i for i, sample in enumerate(normal.samples) if any(sample is one for one in chosen)}
    check_some_count(normal.categories, never)
    plan = plan_held_out(normal.categories, loader.needs, settings.false_alarm_rate, settings.seed, never)
    detector = unfitted(settings.detector).fit(loader.subset(plan.fitted), progress)
    if isinstance(detector, FitsToHeldOut) and plan.split:
        detector.fit_held_out(loader.plain_features(plan.split))
    framings = [normal.framings[name] for name in normal.categories]
    recognition = settings.recognition_framing(encoder, len(normal.framings), bool(normal.ignored))
    areas = [normal.ignored.get(name) for name in normal.categories]
    silent = replace(loader, progress=None)  # folds are counted, not the images of each
    held_out = HeldOutEncoder(silent, framings, encoder, recognition, settings.seed, areas)
    setting = progress_of_step(progress, "setting the limit")
    scores = score_held_out(plan, detector, partial(unfitted, settings.detector), held_out, setting)
    calibrations = calibrations_of(scores, plan, loader, settings.false_alarm_rate)
    compared = scores_to_compare(scores, calibrations, loader, clean, comparing)
    recogniser = CategoryRecognisers().fit(
        normal.categories,
        normal.images,
        held_out.for_recognition,
        held_out.encode_for_recognition,
        POINTS in needs.modalities,
    )
    standing_out = find_standing_out(compared, calibrations, normal.samples, normal.fingerprints)
    return FittedModel(
        settings=replace(settings, text_encoder=text_encoder, precision=precision_of(encoder)),
        encoder=encoder,
        detector=detector,
        full_scale=full_scale,
        framings=normal.framings,
        recognition_framing=recognition,
        recogniser=recogniser,
        calibrations={
            name or None: calibration.at(settings.false_alarm_rate, settings.unsure_rate)
            for name, calibration in calibrations.items()
        },
        fingerprints=frozenset(normal.fingerprints[i] for i in plan.fitted),
        held_out_fingerprints=frozenset(normal.fingerprints[i] for i in plan.split),
        repeat_fingerprints=normal.repeated,
        outliers=outliers,
        standing_out=standing_out,
        repeats=len(samples) - len(normal.samples) - len(outliers),
        thumbnails=thumbnail_sheet([one for _, one in sorted(normal.thumbnails.items())]),
        ignored=normal.ignored,
        references=kept_references(normal, loader, frozenset(one.fingerprint for one in standing_out)),
    )


def kept_references(
    normal: NormalImages, loader: FeatureLoader, left_out: frozenset[str]
) -> dict[str, ReferenceImages]:
    """A few evenly spaced normal images of each category, to compare regions with; none that is `left_out`."""
    groups = group_indices(normal.categories)
    each = max(1, min(KEPT, MOST // len(groups)))
    found: dict[str, ReferenceImages] = {}
    for name, members in groups.items():
        usual = [i for i in members if normal.fingerprints[i] not in left_out] or members
        chosen = [usual[i] for i in evenly_spaced(len(usual), each)]
        inputs = [filled_input_of(normal.framings[name], normal.ignored.get(name), normal.images[i]) for i in chosen]
        files = [normal.samples[i].name for i in chosen]
        kept = ReferenceImages.fit(files, inputs, list(loader.plain_features(chosen)))
        found |= {} if kept is None else {name: kept}
    return found


def chosen_samples(images: ImageInputs, category: str | None) -> list[Sample]:
    """Normal images that were chosen by their scores, to be fitted on alone; there may be none."""
    return [] if isinstance(images, Sequence) and not images else good_samples(images, category, assume_good=True)


def unfitted(detector: Detector) -> Detector:
    """A new detector of the same settings."""
    return type(detector)(**detector.settings)


def check_some_count(categories: Sequence[str], never_held_out: Collection[int]) -> None:
    """Raise DatasetError for a category whose images are all `never_held_out`: nothing would set its threshold."""
    counted = {name for i, name in enumerate(categories) if i not in never_held_out}
    if missing := [name for name in dict.fromkeys(categories) if name not in counted]:
        raise DatasetError(
            f"good pictures{f' of {missing[0]!r}' if missing[0] else ''} that thresholds may rest on",
            "only some to learn from alone",
            "give others beside them, or leave these out",
        )


def feature_loader(
    normal: NormalImages,
    encoder: Encoder,
    settings: ModelSettings,
    prompts: Mapping[str, Prompts] | None,
    progress: Progress | None,
) -> FeatureLoader:
    """The normal images as batches for the detector."""
    names = normal.categories
    framings, areas = [normal.framings[name] for name in names], [normal.ignored.get(name) for name in names]
    return FeatureLoader.of(
        normal.images,
        encoder,
        settings.detector.needs,
        [partial(filled_input_of, framing, area) for framing, area in zip(framings, areas, strict=True)],
        names,
        settings.seed,
        progress=progress,
        poses=[framing.poses for framing in framings],
        prompts=prompts,
        ignored=[
            None if area is None else partial(ignored_in_image, framing, area)
            for framing, area in zip(framings, areas, strict=True)
        ],
    )


def filled_input_of(framing: Framing, area: np.ndarray | None, image: ImageOrScan) -> ImageOrScan:
    """The encoder's input for an image, its ignored `area`, if any, filled in."""
    encoder_input: ImageOrScan = framing.frame(fill_ignored(image, area)).encoder_input
    return encoder_input


def ignored_in_image(framing: Framing, area: np.ndarray, image: ImageOrScan) -> np.ndarray:
    """The pixels `(h, w)` bool of the encoder's input for an image that show its ignored `area`."""
    return ignored_pixels(area, framing.frame(fill_ignored(image, area)))


def without_outliers(
    normal: NormalImages,
    loader: FeatureLoader,
    settings: ModelSettings,
    outliers: Sequence[Outlier],
    encoder: Encoder,
) -> tuple[NormalImages, FeatureLoader]:
    """The images that are left, and their features; encoded again only where a framing has changed."""
    gone = {(one.category, one.fingerprint) for one in outliers}
    left = [
        i
        for i, (sample, mark) in enumerate(zip(normal.samples, normal.fingerprints, strict=True))
        if (sample.category, mark) not in gone
    ]
    groups = group_indices([normal.categories[i] for i in left])
    framings = {
        name: settings.build_framing(encoder).fit(
            fill_ignored(normal.images[left[i]], normal.ignored.get(name)) for i in members
        )
        for name, members in groups.items()
    }
    unchanged = {name for name, framing in framings.items() if same_state(framing, normal.framings[name])}
    rest = normal.subset(left, framings)
    again = feature_loader(rest, loader.encoder, settings, loader.prompts, loader.progress)
    again.store.take(loader.store, {old: new for new, old in enumerate(left) if normal.categories[old] in unchanged})
    return rest, again


def check_names(categories: Iterable[str]) -> None:
    """Raise SettingsError for a category that cannot stand in a sentence."""
    from blemish.encoders.text.prompts import check_product, object_name

    for name in categories:
        check_product(object_name(name))


def embedded_prompts(
    categories: Sequence[str], settings: ModelSettings, encoder: Encoder
) -> tuple[Mapping[str, Prompts] | None, str]:
    """The sentences that a detector needs about each of `categories`, and the name of the encoder that embedded them:
    the text tower of `encoder`, where its features are to be compared with them.

    Learned prompts are read from the file that stands in the text encoder's place. None and the name as it was given
    where it needs none. Raises WeightsError when no text encoder loads.
    """
    needs = settings.detector.needs
    if needs.prompts is None:
        return None, settings.text_encoder
    if needs.prompts == "learned":
        from blemish.encoders.image_text.learned_prompts import read_prompts

        learned = read_prompts(expanded(settings.text_encoder), encoder)
        return dict.fromkeys(categories, learned), settings.text_encoder
    if needs.prompts == "learnable":
        from blemish.encoders.image_text.state_prompts import learnable_prompts

        check_names(names := dict.fromkeys(categories))
        prompts = {name: learnable_prompts(name, encoder) for name in names}
        return prompts, encoder.name
    from blemish.encoders.text.factory import build
    from blemish.encoders.text.prompts import embed_sentences, prompts_for

    reader = (text_tower(encoder) if needs.alignment else None) or build(settings.text_encoder, device=settings.device)
    names = dict.fromkeys(categories)
    if needs.alignment:  # other detectors learn from images what a name cut short leaves open
        check_names(names)
    return {name: embed_sentences(prompts_for(name, needs.prompts), reader) for name in names}, reader.name
