"""Reasons without a model: a region is compared with the most normal of the images that judged one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from blemish.data.samples import as_rgb, batch_of
from blemish.encoders.base import Encoder
from blemish.errors import BlemishError
from blemish.model.reasons import InspectedFrame, ReasonSettings, with_reasons
from blemish.model.reference_images import KEPT, ReferenceImages
from blemish.preprocessing.framing import Frame
from blemish.types import Features, ImageOrScan, Prediction, Sample


@dataclass(frozen=True, eq=False)
class MutualReferences:
    """The images of a set with the lowest scores, as the kept normal images of each category.

    They are read and encoded a second time, once a category, when the first region is to be compared. `images` gives
    the decoded image of an index, `frame` its frame.
    """

    samples: Sequence[Sample]
    images: Callable[[int], ImageOrScan]
    frame: Callable[[int, ImageOrScan], Frame]
    encoder: Encoder
    _fitted: dict[str, tuple[Sequence[int], ReferenceImages | None]] = field(default_factory=dict)

    def explained(
        self,
        index: int,
        frame: Frame,
        prediction: Prediction,
        members: Mapping[int, float],
        settings: ReasonSettings,
        is_repeat: Callable[[int], bool],
    ) -> Prediction:
        """The prediction of the image at `index`, its regions compared with those of the lowest scores among `members`.

        `members` are the scores of the category's different images; those that show the image itself, as `is_repeat`
        says, are no match for it.
        """
        if not prediction.regions or not settings.compare:
            return prediction
        numbers, kept = self._references(self.samples[index].category or "", members)
        left = [n for n, i in enumerate(numbers) if not is_repeat(i)]
        if kept is not None and len(left) < len(numbers):
            kept = replace(kept, images=tuple(kept.images[n] for n in left)) if left else None
        inspected = InspectedFrame(
            frame=frame,
            features=self._features(frame),
            scores=prediction.map,
            threshold=prediction.region_threshold,
            references=kept,
            settings=settings,
        )
        return replace(prediction, regions=with_reasons(prediction.regions, inspected))

    def _references(self, category: str, members: Mapping[int, float]) -> tuple[Sequence[int], ReferenceImages | None]:
        if category not in self._fitted:
            frames: dict[int, Frame] = {}
            for i in sorted(members, key=lambda i: (members[i], i)):
                try:
                    frames[i] = self.frame(i, as_rgb(self.images(i)))
                except BlemishError:  # its file has gone or changed since
                    continue
                if len(frames) == KEPT:
                    break
            files = [self.samples[i].name for i in frames]
            inputs = [frame.encoder_input for frame in frames.values()]
            features = [self._features(frame) for frame in frames.values()]
            self._fitted[category] = list(frames), ReferenceImages.fit(files, inputs, features) if frames else None
        return self._fitted[category]

    def _features(self, frame: Frame) -> Features:
        return self.encoder.encode(batch_of([frame.encoder_input]))
