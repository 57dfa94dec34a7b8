"""An inspector in the shape of scikit-learn's outlier detectors, for pipelines, cross-validation and grid search.

The API is that of Buitinck et al., "API design for machine learning software: experiences from the scikit-learn
project", ECML PKDD workshop 2013, arXiv 1309.0238. scikit-learn itself is not needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np

from blemish.data.loading import ImageInput, ImageInputs, is_one
from blemish.encoders.base import Encoder
from blemish.errors import ImageError, NotFittedError, SettingsError
from blemish.model.inspector import Inspector
from blemish.types import ALARMS, Failure, Prediction

JUST_ABOVE = float(np.nextafter(1.0, 2.0))  # in units of the threshold


class AnomalyInspector:
    """`Inspector` with `fit`, `score_samples`, `decision_function` and `predict` as `sklearn.ensemble.IsolationForest`.

    `X` is a list of images (paths, arrays `(H, W, 3)` and all that `Inspector.fit` takes), an array `(n, H, W)`,
    `(n, H, W, 3)` or of n paths, or one folder. Images may differ in size, so there is no `n_features_in_`. Parameters
    are those of `Inspector`, and `clean` and `category` those of its `fit`; settings of the detector, such as
    `coreset_ratio`, are parameters, too. The constructor stores them and `fit` checks them. An encoder or a detector is
    best given by its name: `sklearn.base.clone` copies objects.

    Anomaly scores are stated in units of the category's threshold, so that those of several categories compare. After
    `fit`, `offset_` is -1, the normality score at the threshold, and `inspector_` the fitted `Inspector`, which has
    maps, regions, p-values and `save`.
    """

    _estimator_type: ClassVar[str] = "outlier_detector"  # read by scikit-learn before 1.6

    def __init__(
        self,
        *,
        encoder: str | Path | Encoder = "auto",
        detector: Any = "auto",
        image_size: int | None = None,
        false_alarm_rate: float = 0.05,
        framing: str | None = None,
        device: str = "auto",
        seed: int = 0,
        clean: bool = False,
        category: str | None = None,
        **settings: Any,
    ) -> None:
        self.encoder = encoder
        self.detector = detector
        self.image_size = image_size
        self.false_alarm_rate = false_alarm_rate
        self.framing = framing
        self.device = device
        self.seed = seed
        self.clean = clean
        self.category = category
        self.settings = settings

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """All parameters by name; `deep` changes nothing, as none is an estimator."""
        return {name: getattr(self, name) for name in PARAMETERS} | self.settings

    def set_params(self, **parameters: Any) -> Self:
        """Change parameters, those of the detector included; they hold from the next `fit` on."""
        for name, value in parameters.items():
            if name in PARAMETERS:
                setattr(self, name, value)
            else:
                self.settings = self.settings | {name: value}
        return self

    def fit(self, X: ImageInputs | np.ndarray, y: Any = None) -> Self:
        """Learn from normal images; `y` is ignored, as by all outlier detectors, so `X` should hold no defective ones.

        Raises SettingsError for parameters that cannot be, and as `Inspector.fit`.
        """
        own = ("clean", "category")
        parameters = {name: value for name, value in self.get_params().items() if name not in own}
        self.inspector_ = Inspector(**parameters).fit(several(X), self.category, clean=self.clean)
        self.offset_ = -1.0
        return self

    def predictions(self, X: ImageInputs | np.ndarray) -> list[Prediction]:
        """The whole prediction for each image. Raises ImageError for the first that cannot be read.

        Every one holds a map as large as its image: of very many images ask `inspector_.inspect_many` one by one.
        """
        return list(self._predicted(X))

    def _predicted(self, X: ImageInputs | np.ndarray) -> Iterator[Prediction]:
        """The same, one by one, so that few maps are in memory."""
        if not hasattr(self, "inspector_"):
            raise NotFittedError("a fitted AnomalyInspector", "one that has not learned", "call fit first")
        for result in self.inspector_.inspect_many(several(X), self.category):
            if isinstance(result, Failure):
                raise ImageError(f"a picture in '{result.file}'", result.error, "leave it out")
            yield result

    def score_samples(self, X: ImageInputs | np.ndarray) -> np.ndarray:
        """Normality scores `(n,)` float64 ≤ 0, larger is more normal: the anomaly score over the threshold, negated.

        Below -1 are those that `predict` calls outliers, and no others: a part that resembles nothing that was learned
        (verdict "unknown") is just below it where its score alone would not be.
        """
        return -np.array([excess(one) for one in self._predicted(X)], dtype=np.float64)

    def decision_function(self, X: ImageInputs | np.ndarray) -> np.ndarray:
        """Normality scores `(n,)` from the threshold: 0 at it, negative for outliers; `score_samples` less `offset_`.

        The threshold is the model's own, for its `false_alarm_rate`.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: ImageInputs | np.ndarray) -> np.ndarray:
        """-1 for outliers (verdicts "defective" and "unknown"), 1 for all others ("good" and "unsure"), `(n,)` int."""
        return np.array([-1 if one.verdict in ALARMS else 1 for one in self._predicted(X)], dtype=np.int64)

    def fit_predict(self, X: ImageInputs | np.ndarray, y: Any = None) -> np.ndarray:
        """`fit`, then `predict` of the same images.

        A model knows the images that it was fitted on: of those with defects only `clean=True` finds some.
        """
        return self.fit(X).predict(X)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "inspector_")

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn (from 1.6 on) wants to know about an estimator; it alone asks."""
        from sklearn.utils import InputTags, Tags, TargetTags

        images = InputTags(one_d_array=True, two_d_array=False, three_d_array=True, string=True)
        return Tags("outlier_detector", TargetTags(required=False), input_tags=images)

    def __repr__(self) -> str:
        given = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if name not in DEFAULTS or value is not DEFAULTS[name]
        ]
        return f"{type(self).__name__}({', '.join(given)})"


DEFAULTS: Mapping[str, Any] = dict(AnomalyInspector.__init__.__kwdefaults__ or {})
PARAMETERS = tuple(DEFAULTS)


def excess(prediction: Prediction) -> float:
    """The anomaly score in units of its threshold; above 1 exactly where the verdict is an alarm."""
    above = prediction.excess if prediction.threshold > 0 else 1 + prediction.score
    return max(above, JUST_ABOVE) if prediction.verdict in ALARMS else above


def several(X: ImageInputs | np.ndarray) -> str | Path | Sequence[ImageInput]:
    """Samples in scikit-learn's sense as a folder or a list. Raises SettingsError for one image in memory."""
    if isinstance(X, np.ndarray):
        if X.ndim in (1, 4) or (X.ndim == 3 and X.shape[2] not in (3, 4)):
            return [str(one) if isinstance(one, np.str_) else one for one in X]
        got = f"an array of shape {X.shape}"
    elif isinstance(X, (str, Path)):
        return X
    elif not is_one(X):
        return list(cast(Iterable[ImageInput], X))
    else:
        got = f"one {type(X).__name__}"
    raise SettingsError("several pictures: a list, or an array (n, H, W, 3)", got, "give [picture] for a single one")
