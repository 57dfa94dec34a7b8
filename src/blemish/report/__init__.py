"""What people see: overlays on images, charts as SVG, and self-contained HTML pages. Loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blemish.utils.lazy_names import resolve_in

if TYPE_CHECKING:
    from blemish.report.diagnosis import write_diagnosis_report
    from blemish.report.evaluation import write_evaluation_report
    from blemish.report.evidence import CalibrationFacts
    from blemish.report.inspection import InspectionReport, write_inspection_report
    from blemish.report.overlays import draw_overlay, thumbnail
    from blemish.report.relief import shaded_relief
    from blemish.report.scan_sheet import write_scan_sheet

# Loaded when first asked for: who needs one module of this folder does not wait for, or depend on, the others.
_HOME = {
    "CalibrationFacts": "evidence",
    "InspectionReport": "inspection",
    "draw_overlay": "overlays",
    "shaded_relief": "relief",
    "thumbnail": "overlays",
    "write_diagnosis_report": "diagnosis",
    "write_evaluation_report": "evaluation",
    "write_inspection_report": "inspection",
    "write_scan_sheet": "scan_sheet",
}

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


def __getattr__(name: str) -> Any:
    return resolve_in(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
