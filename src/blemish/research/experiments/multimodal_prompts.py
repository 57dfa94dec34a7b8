"""Which sentences a text-guided detector should be trained with.

Li, Ye, Yu, Xie & Shen, "Text-Guided Multimodal Unified Industrial Anomaly Detection", arXiv 2604.22899, 2026, table VI.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from blemish.research.experiments.base import Row
from blemish.research.experiments.comparisons import Variant
from blemish.research.experiments.multimodal import TEXTUAL, Multimodal

# What each set of prompts (`Needs.prompts`) is called in the published table; None: no sentences at all.
NAMES = {
    None: "no sentences",
    "object": "object-conditioned",
    "ensemble": "compositional ensemble",
    "contrastive": "generated abnormal, contrastive",
}


@dataclass(frozen=True, kw_only=True)
class MultimodalPrompts(Multimodal):
    """One detector, trained with different sentences about each category, or with none."""

    QUESTION: ClassVar[str] = "Which sentences about a good part help most, and do those about defects help at all?"
    SOURCE: ClassVar[str] = (
        f"Table VI of {Multimodal.PUBLISHED}: I-AUROC 91.58 without sentences, 94.02 with object-conditioned ones, "
        "which lead; the ensemble and generated abnormal sentences (AUPRO@1 44.74) lie between."
    )

    def variants(self, seed: int) -> list[Variant]:
        return [
            Variant(
                words,
                TEXTUAL,
                self.encoder,
                self.textual(text=False) if prompts is None else self.textual(prompts=prompts),
            )
            for prompts, words in NAMES.items()
        ]

    def notes(self, rows: Sequence[Row]) -> list[str]:
        return [
            *super().notes(rows),
            "Object-conditioned: normal states of the named part in two templates. Ensemble: the same states in many "
            "templates, learned from as these are. Contrastive: the ensemble's, and abnormal sentences of a grammar of "
            "defects, to which cells under made-up defects are drawn.",
        ]
