"""Encoder + framing + detector + maps + calibration behind a few verbs: fit, inspect, calibrate, save, load.

A facade: `fit` makes a `FittedModel` (fitting.py), which all other verbs use (prediction.py, recalibration.py,
persistence.py) and which is only ever replaced as a whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from blemish.data.loading import ImageInput, ImageInputs, as_sample, is_one, samples_of
from blemish.detectors.base import Detector, Progress
from blemish.encoders.base import Encoder
from blemish.encoders.precision import Precision
from blemish.errors import ImageError, NotFittedError
from blemish.model import fitting, persistence, prediction, recalibration, zero_shot
from blemish.model.fitted import FittedModel
from blemish.model.outliers import Outlier
from blemish.model.prediction import Inspected
from blemish.model.reasons import ReasonSettings
from blemish.model.recalibration import Recalibration
from blemish.model.settings import ModelSettings
from blemish.model.standing_out import StandingOut
from blemish.preprocessing.ignored_area import IgnoreInput
from blemish.scoring.calibration import Calibration
from blemish.types import Failure, Prediction, ScanGeometry
from blemish.utils.paths import shown
from blemish.utils.threads import quiet_numpy

__all__ = ["Failure", "Inspected", "Inspector"]


class Inspector:
    """Learns what good parts look like from a few images, and finds what differs in others.

    `encoder` and `detector` are names (see `blemish list`), a model folder for the encoder, or objects that keep
    their promises; "auto" takes the best that can be loaded. `image_size` is what the detector sees, in pixels of
    the short side (or of the square, where the detector needs one); None is the detector's own choice.
    `false_alarm_rate` is the target share of good parts that are called defective, `unsure_rate` the further share
    of them that may be left to a person (None: 3 %, or 10 % where the thresholds rest on perturbed copies alone).
    `layers` are the encoder's, None the detector's choice. `framing` is how images become the encoder's input
    ("plain": whole; "part": the part alone, in one pose), None the detector's choice. `text_encoder` embeds the
    sentences of detectors that learn from text, or is the file of prompts that `blemish fit-prompts` wrote;
    inspecting needs none. `precision` is the encoder's number format ("auto", "fp32", "bf16"): "auto" is what the
    machine is fast at, decided by `fit` and kept by the model wherever it runs. `bit_depth` is that of images with
    16 bits a channel, None learns it from them. `units` is that of measured points ("m", "mm", …), None assumes
    metres and refuses what cannot be. `geometry` is how depth images and height maps were measured, and the grid of
    clouds that have none; the model keeps it. Further settings go to the detector; an unknown one is a SettingsError
    that names those there are.

    After `fit` or `load`, `model_` is the `FittedModel`.

    Threads: any number may call `inspect`, `inspect_many` and `stream` of one inspector at once, as a web service does;
    predictions are bit-identical to those in one thread. `fit` and the verbs that calibrate replace the model as a
    whole: who inspects meanwhile has the old model or the new one. Fit in one thread at a time: training seeds torch's
    random numbers for the process.

    Fork: an inspector that has inspected holds threads of torch, which do not survive `os.fork`. With multiprocessing
    use the start method "spawn" or "forkserver", and load the model in each process.
    """

    def __init__(
        self,
        encoder: str | Path | Encoder = "auto",
        detector: str | Detector = "auto",
        image_size: int | None = None,
        false_alarm_rate: float = 0.05,
        unsure_rate: float | None = None,
        device: str = "auto",
        seed: int = 0,
        layers: Sequence[int] | None = None,
        framing: str | None = None,
        text_encoder: str = "auto",
        precision: Precision = "auto",
        bit_depth: int | None = None,
        units: str | None = None,
        geometry: ScanGeometry | None = None,
        **settings: Any,
    ) -> None:
        self._settings = ModelSettings.of(
            encoder,
            detector,
            image_size,
            framing,
            seed,
            settings,
            false_alarm_rate=false_alarm_rate,
            unsure_rate=unsure_rate,
            device=device,
            layers=layers,
            text_encoder=text_encoder,
            precision=precision,
            bit_depth=bit_depth,
            units=units,
            geometry=geometry,
        )
        self._model: FittedModel | None = None

    def __repr__(self) -> str:
        """One line: the method, and how many images it was fitted on."""
        method = f"{self.detector_name} on {self.encoder_name} at {self.image_size} px"
        if self._model is None:
            return f"<{type(self).__name__}: {method}, not fitted>"
        named = f" of {', '.join(self.categories)}" if self.categories else ""
        return f"<{type(self).__name__}: {method}, fitted on {len(self._model.fingerprints)} images{named}>"

    @classmethod
    def of(cls, model: FittedModel) -> Self:
        """The inspector of a fitted model."""
        self = cls.__new__(cls)
        self._settings, self._model = model.settings, model
        return self

    @quiet_numpy()
    def fit(
        self,
        images: ImageInputs,
        category: str | None = None,
        progress: Progress | None = None,
        clean: bool = False,
        cache: str | Path | None = None,
        assume_good: bool = False,
        ignore: IgnoreInput | None = None,
        learned_only: ImageInputs = (),
    ) -> Self:
        """Learn from good images: files, folders, dataset roots, arrays `(H, W, 3)`, PIL images or samples.

        Images of several categories make one model for all of them; `category` names that of all images given.
        `clean` leaves out those that are probably defective (see outliers.py); `outliers_` names them. `cache` is a
        folder where features are kept, rounded to float16, for learning again from the same images.
        `assume_good` says that all images are good even where their levels are like those of masks.
        `ignore` says what of every image is not judged: masks (files or arrays, white there) of the images' aspect
        ratio, boxes "x,y,width,height" in pixels or percent, one or several, or such by category. The model keeps it.
        `learned_only` are further good images that thresholds must not rest on, such as reviewed false alarms: they
        were chosen by their scores.
        `progress(done, total, facts)` is called while encoding, fitting, and scoring held-out images. An interrupted
        fit changes nothing. Images that repeat one another, exactly or nearly, count once.

        Raises DatasetError when there are no good images, some that are known to be defective or look like masks, too
        few with the points that the detector needs, or nothing is left to judge.
        """
        self._model = fitting.fit(
            self._settings, images, category, progress, clean, cache, assume_good, ignore, learned_only
        )
        return self

    @quiet_numpy()
    def fit_zero_shot(self, product: str) -> Self:
        """Make a model of one product from its name alone, such as "metal nut"; no picture of it is seen.

        Pictures are ranked by their scores, but there is no threshold yet: every part is unsure until `calibrate` has
        seen good ones. Raises SettingsError for a name that is empty or too long for a sentence, a detector that needs
        pictures, or an encoder that reads no sentences.
        """
        self._model = zero_shot.fit_zero_shot(self._settings, product)
        return self

    @quiet_numpy()
    def inspect(self, image: ImageInput, category: str | None = None) -> Prediction:
        """The prediction for one image; `category` when it is known. Raises ImageError when it cannot be read."""
        model = self._fitted("inspect")
        model.check_category(category)
        if isinstance(image, (str, Path)) and Path(image).is_dir():
            raise ImageError(f"a picture at '{shown(image)}'", "a folder", "give a picture, or call inspect_many")
        return prediction.predict(model, [prediction.open_image(model, as_sample(image), category)])[0]

    def inspect_many(
        self,
        images: ImageInputs,
        category: str | None = None,
        batch_size: int | None = None,
    ) -> Iterator[Prediction | Failure]:
        """The predictions for many images, in their order, as they are ready; a broken image becomes a Failure.

        `images` may be endless, or a live source: a few are decoded ahead in a thread while others are inspected,
        `batch_size` (by default 1 on a CPU, 16 elsewhere) of equal framed size at once, and memory stays bounded. An
        image of a live source (any iterable but a sequence) never waits for the next one; what the source raises
        comes after the predictions for what it gave before.
        """
        return (one.result for one in self.stream(images, category, batch_size))

    def stream(
        self, images: ImageInputs, category: str | None = None, batch_size: int | None = None
    ) -> Generator[Inspected]:
        """As `inspect_many`, each prediction together with its sample and decoded image, while they are in memory."""
        model = self._fitted("inspect")
        model.check_category(category)
        is_live = not (is_one(images) or isinstance(images, Sequence))
        return prediction.inspect_stream(model, samples_of(images), category, batch_size, is_live)

    @quiet_numpy()
    def calibrate(
        self,
        images: ImageInputs,
        category: str | None = None,
        false_alarm_rate: float | None = None,
        unsure_rate: float | None = None,
        progress: Progress | None = None,
        replace: bool = False,
    ) -> Recalibration:
        """Renew the thresholds with good images that were not learned from, without learning again.

        Their scores are pooled with those that the thresholds rest on already; with `replace` they take their place.
        Images that were learned from, or given before, do not count again; what nearly repeats another, as a JPEG copy
        does, is recognised among the images of one call alone. Images of no named category count for the one they are
        recognised as, those of unknown parts for none. A category without new images keeps its held-out
        scores, and of scans each modality alone keeps its own unless scans with nothing else are among them.

        What has changed is returned, and holds from now on. Raises DatasetError when there are no new images, or most
        of them show unknown parts.
        """
        model = self._fitted("calibrate")
        rates = accepted_rates(model.settings, false_alarm_rate, unsure_rate)
        return self._renew(recalibration.recalibrate(model, images, category, *rates, not replace, progress))

    @quiet_numpy()
    def calibrate_unlabelled(
        self,
        images: ImageInputs,
        category: str | None = None,
        expected_defects: float = 0.1,
        false_alarm_rate: float | None = None,
        unsure_rate: float | None = None,
        progress: Progress | None = None,
    ) -> Recalibration:
        """Renew the thresholds with images of unknown state, such as the first hours of a line give.

        Assumes that most of them show good parts, taken as those learned from; `expected_defects` is the share of
        defective ones to expect. How good parts score is estimated from all of them together with the scores that the
        thresholds rest on already (scoring/unlabelled.py). Images given so before are replaced. Categories of which
        fewer than ten are given keep their thresholds.

        What has changed is returned, and holds from now on. Raises DatasetError for too few images, or where the scores
        contradict what is assumed: about a third of defects or more, or good parts that score unlike those before.
        """
        model = self._fitted("calibrate")
        rates = accepted_rates(model.settings, false_alarm_rate, unsure_rate)
        return self._renew(
            recalibration.recalibrate_unlabelled(model, images, category, *rates, expected_defects, progress)
        )

    def _renew(self, renewed: tuple[FittedModel, Recalibration]) -> Recalibration:
        """Take a model with other thresholds; returns what has changed."""
        self._model, change = renewed
        self._settings = self._model.settings
        return change

    def save(self, folder: str | Path) -> Path:
        """Write the model to `folder` (see model_folder.py), in place of an older one; returns the full path.

        Raises SettingsError for a detector object without `state` and `load_state`, OutputError where the folder
        cannot be written.
        """
        return persistence.save(folder, self._fitted("save"))

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str = "auto",
        encoder: str | Path | Encoder | None = None,
        detector: Detector | None = None,
    ) -> Self:
        """The inspector that `save` wrote; its scores are bit-identical on the same machine.

        `encoder` says where its weights lie now; `detector` is an object of the class and settings that the model was
        fitted with, where that is the user's own. Raises ModelError for an incomplete, altered, older or newer model,
        WeightsError when the encoder's weights are not those it was fitted with.
        """
        return cls.of(persistence.load(folder, device, encoder, detector))

    def with_detector(self, detector: Detector) -> Self:
        """An inspector with another fitted detector and all else the same, thresholds included."""
        return type(self).of(dataclasses.replace(self._fitted("inspect"), detector=detector))

    def with_reasons(
        self,
        language: str = "en",
        mm_per_pixel: float | None = None,
        compare: bool = True,
        defect_names: Sequence[str] | None = None,
        names_encoder: str | Path | Encoder = "auto",
        vlm: str | Path | None = None,
    ) -> Self:
        """An inspector that describes regions in another `language`, or in mm where `mm_per_pixel` of images is known.

        Without `compare` regions are not compared with good images at all. With `defect_names`, such as ["scratch",
        "dent"], a region is called by the one that fits, if any does, by an encoder that reads words (`names_encoder`;
        "auto": the first that loads). A `vlm` (a vision-language model by name or folder) writes those sentences that
        do not contradict what was measured. Scores, maps and verdicts are the same. Raises SettingsError for an unknown
        language, a size that is not above 0 or names that cannot be, WeightsError where no such encoder loads.
        """
        model = self._fitted("inspect")
        device = str(getattr(model.encoder, "device", "cpu"))
        reasons = ReasonSettings.of(language, mm_per_pixel, compare, defect_names, names_encoder, vlm, device)
        return type(self).of(dataclasses.replace(model, reasons=reasons))

    @property
    def model_(self) -> FittedModel:
        """All that was fitted. Raises NotFittedError before `fit`."""
        return self._fitted("use")

    @property
    def settings(self) -> ModelSettings:
        """What was decided before fitting; once fitted, with what "auto" stood for."""
        return self._settings if self._model is None else self._model.settings

    @property
    def is_fitted(self) -> bool:
        return self._model is not None

    @property
    def encoder_(self) -> Encoder:
        return self.model_.encoder

    @property
    def detector_(self) -> Detector:
        """The fitted detector."""
        return self.model_.detector

    @property
    def outliers_(self) -> tuple[Outlier, ...]:
        """The images that `fit(clean=True)` left out."""
        return self.model_.outliers

    @property
    def standing_out_(self) -> tuple[StandingOut, ...]:
        """Images that were fitted on though they score apart from the others: look at them (see standing_out.py)."""
        return self.model_.standing_out

    @property
    def calibrations(self) -> dict[str | None, Calibration]:
        """The calibration of each category, that of a single unnamed one under None; none before `fit`."""
        return {} if self._model is None else dict(self._model.calibrations)

    @property
    def categories(self) -> tuple[str, ...]:
        """The named categories the model was fitted on, none for a model of one unnamed category."""
        return () if self._model is None else self._model.categories

    @property
    def detector(self) -> Detector:
        """The detector before fitting."""
        return self._settings.detector

    @property
    def detector_name(self) -> str:
        return self._settings.detector_name

    @property
    def encoder_name(self) -> str:
        """The encoder's name: once fitted that of the one in use."""
        if self._model is not None:
            return self._model.encoder.name
        encoder = self._settings.encoder
        return encoder if isinstance(encoder, str) else encoder.name

    @property
    def image_size(self) -> int:
        return self._settings.image_size

    @property
    def framing(self) -> str:
        return self._settings.framing

    @property
    def false_alarm_rate(self) -> float:
        return self._settings.false_alarm_rate

    @property
    def unsure_rate(self) -> float | None:
        return self._settings.unsure_rate

    @property
    def device(self) -> str:
        return self._settings.device

    @property
    def seed(self) -> int:
        return self._settings.seed

    @property
    def text_encoder(self) -> str:
        return self.settings.text_encoder

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the detector uses: images, measured points, or both."""
        return self._settings.detector.needs.modalities

    @property
    def chosen_encoder(self) -> str:
        """The encoder's name or folder, what "auto" stands for beside this detector included."""
        return self.encoder_name if self.encoder_name != "auto" else self._settings.encoder_name

    def built_encoder(self) -> Encoder:
        """The encoder as the detector needs it, loaded now. Raises WeightsError when it cannot load."""
        return self._settings.build_encoder()

    def _fitted(self, verb: str) -> FittedModel:
        if self._model is None:
            raise NotFittedError(
                f"a fitted inspector for {verb!r}", "one that has not learned", "call fit or load first"
            )
        return self._model


def accepted_rates(
    settings: ModelSettings, false_alarm_rate: float | None, unsure_rate: float | None
) -> tuple[float, float | None]:
    """The false-alarm and the unsure rate: those given, or else the model's own."""
    return (
        settings.false_alarm_rate if false_alarm_rate is None else false_alarm_rate,
        settings.unsure_rate if unsure_rate is None else unsure_rate,
    )
