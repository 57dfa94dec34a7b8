"""How well normal and anomalous images and pixels are separated, and whether thresholds keep their promise."""

from blemish.metrics.calibration import (
    KeptRate,
    RiskCoverage,
    Uniformity,
    false_alarm_rate,
    kept_rate,
    miss_rate,
    oracle_miss_rate,
    promised_and_kept,
    risk_coverage,
    uniformity,
    verdict_rate,
)
from blemish.metrics.pixels import PixelMeasures, pixel_measures
from blemish.metrics.ranking import F1Max, RankingMeasures, auroc, average_precision, f1_max, ranking_measures
from blemish.metrics.regions import aupro, spro

__all__ = [
    "F1Max",
    "KeptRate",
    "PixelMeasures",
    "RankingMeasures",
    "RiskCoverage",
    "Uniformity",
    "aupro",
    "auroc",
    "average_precision",
    "f1_max",
    "false_alarm_rate",
    "kept_rate",
    "miss_rate",
    "oracle_miss_rate",
    "pixel_measures",
    "promised_and_kept",
    "ranking_measures",
    "risk_coverage",
    "spro",
    "uniformity",
    "verdict_rate",
]
