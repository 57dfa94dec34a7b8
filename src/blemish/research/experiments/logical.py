"""Which methods find what no single place shows: wrong counts, missing, extra and misplaced parts, wrong pairs.

Bergmann et al., "Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection and Localization",
IJCV 130, 2022, asks it of MVTec LOCO AD; here of generated kits as well, whose kinds of anomalies are measured apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from blemish.evaluation import CategoryData
from blemish.research.experiments.base import BarChart, Chart, Row, Verdict, gathered
from blemish.research.experiments.comparisons import AUROC, PAIR, WORDS, LocalVsGlobal
from blemish.research.experiments.sources import SA_PATCHCORE
from blemish.research.experiments.verdicts import RULE, compared, paired, ranked
from blemish.research.kits import NAME, kits

LOCO = (
    'Bergmann, Batzner, Fauser, Sattlegger & Steger, "Beyond Dents and Scratches: Logical Constraints in Unsupervised '
    'Anomaly Detection and Localization" (MVTec LOCO AD), IJCV 130, 2022'
)


@dataclass(frozen=True, kw_only=True)
class Logical(LocalVsGlobal):
    """Detectors on given categories and on generated kits, by kind of anomaly.

    `local` is what the other `detectors` are compared with; "components" needs 8 normal images or more. `generated`:
    with the kits of `generated_seed`.
    """

    QUESTION: ClassVar[str] = (
        "Which methods find wrong counts, missing, extra and misplaced parts, where every part is right by itself?"
    )
    SOURCE: ClassVar[str] = f"{LOCO}, of methods that compare patches, {SA_PATCHCORE}, and counted visual words."
    FULL: ClassVar[Mapping[str, Any]] = {"most_test": None, "shots": (None,)}

    detectors: tuple[str, ...] = ("hybrid", "patchcore", "sa-patchcore", "components")
    local: str = "hybrid"
    shots: tuple[int | None, ...] = (16,)
    most_test: int | None = 60
    generated_seed: int = 0

    def own_categories(self, folder: Path, given: Sequence[CategoryData]) -> tuple[CategoryData, ...]:
        if not self.generated:
            return ()
        made = kits(self.generated_seed)
        return (CategoryData("generated", NAME, tuple(made.train), tuple(made.test)),)

    def verdict(self, rows: Sequence[Row]) -> Verdict:
        by_kind = [row for row in rows if row["defect"]]
        sentences = []
        for kind in dict.fromkeys((str(row["category"]), str(row["defect"])) for row in by_kind):
            here = [row for row in by_kind if (row["category"], row["defect"]) == kind]
            values = {key[0]: found for key, found in gathered(here, AUROC, "variant").items()}
            sentences.append(f"{kind[0]}, {kind[1]}: {ranked(values)}.")
        for other in (name for name in self.names(rows) if name != self.local):
            found = paired(
                by_kind or rows,
                AUROC,
                lambda row, name=other: row["variant"] == name,  # type: ignore[misc]
                lambda row: row["variant"] == self.local,
                (*PAIR, "defect"),
            )
            words = compared(other, self.local, found, WORDS[AUROC])
            sentences.append(f"Over all kinds: {words}")
        return Verdict(tuple(sentences), RULE)

    def charts(self, rows: Sequence[Row]) -> list[Chart]:
        found = gathered([row for row in rows if row["defect"]], AUROC, "category", "defect", "variant")
        kinds = dict.fromkeys(key[:2] for key in found)
        charts: list[Chart] = [
            BarChart(
                f"{category}, {defect}: picture AUROC",
                {key[2]: values for key, values in found.items() if key[:2] == (category, defect)},
            )
            for category, defect in kinds
        ]
        return charts or super().charts(rows)
