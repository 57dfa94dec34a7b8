"""Keep a model, renew its limit later: python 04_save_load_calibrate.py [GOOD_FOLDER NEW_GOOD_FOLDER]"""

import sys
from tempfile import TemporaryDirectory

from blemish import Inspector
from blemish.data import draw_cells

if len(sys.argv) == 3:
    good, new = sys.argv[1:]
else:
    cells = [cell.image for cell in draw_cells(20, 2)[0]]
    good, new = cells[:6], cells[6:]

with TemporaryDirectory() as folder:
    Inspector(image_size=224).fit(good).save(f"{folder}/model")
    inspector = Inspector.load(f"{folder}/model")
    before = inspector.calibrations[None]
    inspector.calibrate(new, false_alarm_rate=0.1)  # pooled with the scores of the first six
    after = inspector.calibrations[None]
    inspector.save(f"{folder}/model")  # replaces the older model at once, or not at all
print(f"before: limit {before.threshold:.3f}. {before.source.words}")
print(f"after: limit {after.threshold:.3f}. {after.source.words}")
