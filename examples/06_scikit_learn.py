"""In the shape of scikit-learn's outlier detectors: python 06_scikit_learn.py [GOOD_FOLDER IMAGE ...]"""

import sys

from blemish import AnomalyInspector
from blemish.data import draw_cells

if len(sys.argv) > 2:
    good, images = sys.argv[1], sys.argv[2:]
else:
    cells, others = draw_cells(4, 4)
    good, images = [cell.image for cell in cells], [cell.image for cell in others]

detector = AnomalyInspector(image_size=224, false_alarm_rate=0.1).fit(good)
labels, distances = detector.predict(images), detector.decision_function(images)
for image, label, distance in zip(images, labels, distances, strict=True):
    print(image, "outlier" if label == -1 else "inlier", f"{distance:+.3f} from the threshold")
