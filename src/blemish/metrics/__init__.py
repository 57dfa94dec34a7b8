"""Measures of how well images and pixels are told apart, and whether thresholds keep their promise."""

from blemish.metrics.calibration import (
    RiskCoverage,
    Uniformity,
    false_alarm_rate,
    miss_rate,
    promised_and_kept,
    risk_coverage,
    uniformity,
)
from blemish.metrics.pixels import PixelMeasures, pixel_measures
from blemish.metrics.ranking import F1Max, RankingMeasures, auroc, average_precision, f1_max, ranking_measures
from blemish.metrics.regions import aupro, spro

__all__ = [
    "F1Max",
    "PixelMeasures",
    "RankingMeasures",
    "RiskCoverage",
    "Uniformity",
    "aupro",
    "auroc",
    "average_precision",
    "f1_max",
    "false_alarm_rate",
    "miss_rate",
    "pixel_measures",
    "promised_and_kept",
    "ranking_measures",
    "risk_coverage",
    "spro",
    "uniformity",
]
