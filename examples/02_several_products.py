"""One model for several products, which recognises what it sees: python 02_several_products.py [DATASET IMAGE ...]"""

import sys

from blemish import Inspector
from blemish.data import draw_cells

if len(sys.argv) > 2:
    good, images = sys.argv[1], sys.argv[2:]
else:  # two kinds of solar cells; every sample names its category
    good, others = draw_cells(12, 6)
    images = [cell.image for cell in others]

inspector = Inspector(image_size=224).fit(good)
for category, calibration in inspector.calibrations.items():
    print(f"{category}: limit {calibration.threshold:.3f}. {calibration.source.words}")
for answer in inspector.inspect_many(images):
    if hasattr(answer, "error"):  # an image that cannot be read is named, the others are done
        print(answer.file, answer.error)
    else:
        print(answer.source, answer.category, "defective" if answer.is_defective else "good")
