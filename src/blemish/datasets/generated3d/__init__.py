"""A generated benchmark of pictures with points: ten classes of parts, nine kinds of defects, all from one seed."""

from blemish.datasets.generated3d.defects import BOTH, COLOUR, GEOMETRY, KINDS
from blemish.datasets.generated3d.scans import CLASSES, Plan, Shot, scan_set, take
from blemish.datasets.generated3d.writing import read_scan, write_scans

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
