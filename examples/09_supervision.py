"""Regions as supervision's Detections: python 09_supervision.py [GOOD_FOLDER IMAGE]"""

import sys

import numpy as np

from blemish import Inspector
from blemish.data import draw_cells
from blemish.scoring.region_masks import region_masks

cells, others = draw_cells(4, 4) if len(sys.argv) < 3 else ([], [])
inspector = Inspector(image_size=224).fit([cell.image for cell in cells] or sys.argv[1])
prediction = inspector.inspect(others[0].image if others else sys.argv[2])
regions = prediction.regions
fields = {
    "xyxy": np.array([region.box for region in regions], np.float32).reshape(-1, 4),
    "mask": region_masks(prediction),  # (n, H, W) bool
    "confidence": np.full(len(regions), 1 - prediction.p_value, np.float32),  # good parts that score less, of all
    "class_id": np.zeros(len(regions), int),
    "data": {
        "class_name": np.array(["defect"] * len(regions)),
        "peak": np.array([region.peak / prediction.region_threshold for region in regions]),  # in units of its limit
        "words": np.array([region.words for region in regions]),
    },
}  # detections = supervision.Detections(**fields)
print(prediction.verdict, *(f"{name} {np.shape(value)}" for name, value in fields.items() if name != "data"))
