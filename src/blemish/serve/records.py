"""What the store holds, one dataclass a row; `to_dict` is what the REST API shows of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self, get_args

from blemish.types import Verdict

Decision = Literal["good", "defective", "unsure"]
Role = Literal["operator", "engineer"]
JobState = Literal["waiting", "running", "done", "failed", "cancelled", "interrupted"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class ProductSettings:
    """How a product is learned, and which share of its parts a person is asked about at random.

    `detector`, `encoder`, `image_size`, `false_alarm_rate`, `unsure_rate`, `device` and `seed` are those of
    `Inspector`; `audit_share` in [0, 1] is the share of all parts, whatever their verdict, that is put up for review.
    """

    detector: str = "auto"
    encoder: str = "auto"
    image_size: int | None = None
    false_alarm_rate: float = 0.05
    unsure_rate: float | None = None
    device: str = "auto"
    seed: int = 0
    audit_share: float = 0.02
    detector_settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """From what the store holds; a setting that this version does not know is left out."""
        return cls(**{name: value for name, value in json.loads(text).items() if name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Product:
    """One kind of part. `active_version` is the model that judges it, "" before it has learned."""

    id: str
    name: str
    created_at: float
    active_version: str
    settings: ProductSettings

    @classmethod
    def of(cls, row: sqlite3.Row) -> Self:
        return cls(
            row["id"],
            row["name"],
            row["created_at"],
            row["active_version"],
            ProductSettings.from_json(row["settings"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Version:
    """One model of a product, in the folder models/ID.

    `number` counts from 1 in a product. `change` says in a few words what made it from its `parent`, `details` in
    numbers. `scored_by` is the version whose learning made the detector: scores of versions that share it compare.
    `threshold` and `unsure_threshold` are its limits.
    """

    id: str
    product: str
    number: int
    parent: str
    change: str
    details: Mapping[str, Any]
    scored_by: str
    threshold: float
    unsure_threshold: float
    made_by: str
    made_at: float

    @classmethod
    def of(cls, row: sqlite3.Row) -> Self:
        return cls(**{**dict(row), "details": json.loads(row["details"])})

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class GoodPicture:
    """A picture that a product learns from: its content's hash, and the name it came with."""

    product: str
    sha256: str
    name: str
    added_at: float
    added_by: str

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Review:
    """A person's decision about an inspected part; `defect` is what kind of defect it is, "" where that is not said."""

    seq: int
    part: str
    decision: Decision
    defect: str
    who: str
    at: float

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class PartRecord:
    """One inspection of one part.

    `id` is the service's, `part_id` the user's ("" where none was given), `seq` counts all inspections. `prediction` is
    `Prediction.to_dict()` with the picture's `size` (height, width) and the `region_threshold`; empty where the picture
    could not be read, as `error` then says. `audit_draw` in [0, 1) was drawn whatever the verdict; a draw below
    `audit_share` puts the part up for review. `statistics` are those of the picture (brightness, sharpness, …).
    `review` is the decision that holds.
    """

    seq: int
    id: str
    part_id: str
    product: str
    version: str
    received_at: float
    sha256: str
    name: str
    source: str
    prediction: Mapping[str, Any]
    verdict: Verdict | None
    score: float | None
    p_value: float | None
    threshold: float | None
    unsure_threshold: float | None
    seconds: float
    audit_draw: float
    audit_share: float
    warnings: tuple[str, ...]
    statistics: Mapping[str, Any] = field(default_factory=dict)
    error: str
    review: Review | None = None
    has_picture: bool = True

    @property
    def is_audited(self) -> bool:
        """Whether the part is in the random sample that a person is asked about."""
        return self.audit_draw < self.audit_share

    @property
    def is_for_review(self) -> bool:
        """Whether a person should look: an alarm, an unsure part or one of the random sample, not decided yet."""
        return self.review is None and self.verdict is not None and (self.verdict != "good" or self.is_audited)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, with the places of its pictures."""
        base = f"/api/parts/{self.id}"
        pictures = ("image", "overlay", "heat", "thumbnail") if self.has_picture and not self.error else ()
        return {
            "id": self.id,
            "seq": self.seq,
            "part_id": self.part_id,
            "product": self.product,
            "version": self.version,
            "received_at": self.received_at,
            "sha256": self.sha256,
            "name": self.name,
            "source": self.source,
            "verdict": self.verdict,
            "score": self.score,
            "p_value": self.p_value,
            "threshold": self.threshold,
            "unsure_threshold": self.unsure_threshold,
            "seconds": self.seconds,
            "is_audited": self.is_audited,
            "is_for_review": self.is_for_review,
            "review": None if self.review is None else self.review.to_dict(),
            "warnings": list(self.warnings),
            "error": self.error,
            "prediction": dict(self.prediction),
            "links": {name: f"{base}/{name}" for name in pictures},
        }


@dataclass(frozen=True)
class ScoredPart:
    """What comparing limits needs of an inspected part: its score, its verdict, and the decision that holds."""

    id: str
    part_id: str
    score: float
    verdict: Verdict
    decision: Decision | None


@dataclass(frozen=True)
class Job:
    """One run of learning: how far it is, and how it ended."""

    id: str
    product: str
    kind: str
    state: JobState
    done: float
    total: int
    facts: Mapping[str, Any]
    error: str
    version: str
    who: str
    started_at: float
    ended_at: float | None

    @classmethod
    def of(cls, row: sqlite3.Row) -> Self:
        return cls(**{**dict(row), "facts": json.loads(row["facts"])})

    @property
    def is_over(self) -> bool:
        return self.state not in ("waiting", "running")

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class AuditEntry:
    """Who did what, when: `change` holds what it was before and is now."""

    seq: int
    at: float
    who: str
    what: str
    product: str
    change: Mapping[str, Any]

    @classmethod
    def of(cls, row: sqlite3.Row) -> Self:
        return cls(**{**dict(row), "change": json.loads(row["change"])})

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class User:
    """Somebody, or a program, that holds a token."""

    name: str
    role: Role
    created_at: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; of the token nothing is shown."""
        return asdict(self)


@dataclass(frozen=True)
class Webhook:
    """An address that is sent every inspection of one of `verdicts` (none: of all)."""

    id: str
    url: str
    verdicts: tuple[str, ...]
    product: str
    created_at: float

    @classmethod
    def of(cls, row: sqlite3.Row) -> Self:
        return cls(row["id"], row["url"], tuple(json.loads(row["verdicts"])), row["product"], row["created_at"])

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)
