"""A dataset is a name and its categories; a category is normal images to fit on and labelled ones to test on."""

from __future__ import annotations

from dataclasses import dataclass, field

from blemish.types import Sample


@dataclass(frozen=True)
class Category:
    """One kind of part: `train` holds normal samples, `test` labelled ones (mask None where none was found).

    `validation` holds further normal samples where a dataset has them: nothing is fitted or tested on them, so
    thresholds can be taken from them.
    """

    train: list[Sample]
    test: list[Sample]
    validation: list[Sample] = field(default_factory=list)

    @property
    def good(self) -> list[Sample]:
        """The normal test samples."""
        return [sample for sample in self.test if sample.label == 0]

    @property
    def defective(self) -> list[Sample]:
        """The anomalous test samples."""
        return [sample for sample in self.test if sample.label == 1]

    @property
    def has_masks(self) -> bool:
        """True when every defective sample has a mask, so that pixels can be measured."""
        return bool(self.defective) and all(sample.mask is not None for sample in self.defective)


@dataclass(frozen=True)
class Dataset:
    """Categories by name, in sorted order; `layout` is the way its folders are arranged ("mvtec", "visa", …)."""

    name: str
    categories: dict[str, Category]
    layout: str
