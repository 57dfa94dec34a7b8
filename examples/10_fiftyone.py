"""Predictions as samples of FiftyOne: python 10_fiftyone.py [GOOD_FOLDER IMAGE OUTPUT]"""

import json
import sys
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from PIL import Image

from blemish import Inspector
from blemish.data import draw_cells

cells, others = draw_cells(4, 2) if len(sys.argv) < 4 else ([], [])
image, output = (others[0].image, Path(mkdtemp())) if others else (sys.argv[2], Path(sys.argv[3]))
found = Inspector(image_size=224).fit([cell.image for cell in cells] or sys.argv[1]).inspect(image)
(height, width), heat = found.map.shape, output / "heat.png"
Image.fromarray((255 * np.clip(found.map / (2 * found.region_threshold), 0, 1)).astype(np.uint8)).save(heat)
confidence = 1 - found.p_value
boxes = [(x / width, y / height, (r - x) / width, (b - y) / height) for x, y, r, b in (g.box for g in found.regions)]
named = [{"_cls": "Detection", "label": "defect", "bounding_box": box, "confidence": confidence} for box in boxes]
sample = {
    "filepath": str(Path(found.source).resolve()),
    "verdict": {"_cls": "Classification", "label": found.verdict, "confidence": confidence},
    "defects": {"_cls": "Detections", "detections": named},
    "heat": {"_cls": "Heatmap", "map_path": str(heat.resolve()), "range": [0, 255]},  # 128 is the limit of regions
}  # dataset.add_sample(fiftyone.Sample.from_dict(sample))
(output / "samples.json").write_text(json.dumps({"samples": [sample]}, indent=1))
print(output / "samples.json", found.verdict)
