"""A generated benchmark of images with points: ten classes of parts, nine kinds of defects, all from one seed."""

from blemish.research.synthetic_scans.defects import BOTH, COLOUR, GEOMETRY, KINDS
from blemish.research.synthetic_scans.scans import CLASSES, Plan, Shot, scan_set, take
from blemish.research.synthetic_scans.writing import read_scan, write_scans

__all__ = [
    "BOTH",
    "CLASSES",
    "COLOUR",
    "GEOMETRY",
    "KINDS",
    "Plan",
    "Shot",
    "read_scan",
    "scan_set",
    "take",
    "write_scans",
]
