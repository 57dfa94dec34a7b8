"""What people see: overlays on images, charts as SVG, and self-contained HTML pages. Loads no torch."""

from blemish.report.diagnosis import write_diagnosis_report
from blemish.report.evaluation import write_evaluation_report
from blemish.report.evidence import CalibrationFacts
from blemish.report.inspection import InspectionReport, write_inspection_report
from blemish.report.overlays import draw_overlay, thumbnail
from blemish.report.relief import shaded_relief
from blemish.report.scan_sheet import write_scan_sheet

__all__ = [
    "CalibrationFacts",
    "InspectionReport",
    "draw_overlay",
    "shaded_relief",
    "thumbnail",
    "write_diagnosis_report",
    "write_evaluation_report",
    "write_inspection_report",
    "write_scan_sheet",
]
