"""A generated benchmark of images with points: ten classes of parts, nine kinds of defects, all from one seed."""

from blemish.research.synthetic_scans.defects import BOTH, COLOUR, GEOMETRY, KINDS
from blemish.research.synthetic_scans.scans import CLASSES, ScanSetSpec, ScanSpec, render_scan, scan_set
from blemish.research.synthetic_scans.writing import read_scan, write_scans

__all__ = [
    "BOTH",
    "CLASSES",
    "COLOUR",
    "GEOMETRY",
    "KINDS",
    "ScanSetSpec",
    "ScanSpec",
    "read_scan",
    "render_scan",
    "scan_set",
    "write_scans",
]
