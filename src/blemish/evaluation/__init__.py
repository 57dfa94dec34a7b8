"""Datasets × methods × shots × seeds → one row of measures each, with what a report needs to explain it."""

from blemish.evaluation.calibration_quality import CalibrationQuality, calibration_quality
from blemish.evaluation.probes import PeakMemory, milliseconds_per_image
from blemish.evaluation.results import RunDetail, ScoredImage, TestResults
from blemish.evaluation.runner import evaluate, evaluate_run, fit_run, inspect_test_images
from blemish.evaluation.runs import CategoryData, Run, build_inspector, check_runs, plan_runs, training_samples
from blemish.evaluation.shared_encoders import SharedEncoders
from blemish.evaluation.table import COLUMNS, MEASURES, csv_cell, mean_rows

__all__ = [
    "COLUMNS",
    "MEASURES",
    "CalibrationQuality",
    "CategoryData",
    "PeakMemory",
    "Run",
    "RunDetail",
    "ScoredImage",
    "SharedEncoders",
    "TestResults",
    "build_inspector",
    "calibration_quality",
    "check_runs",
    "csv_cell",
    "evaluate",
    "evaluate_run",
    "fit_run",
    "inspect_test_images",
    "mean_rows",
    "milliseconds_per_image",
    "plan_runs",
    "training_samples",
]
