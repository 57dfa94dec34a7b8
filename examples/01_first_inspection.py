"""Learn from good images, inspect another: python 01_first_inspection.py [GOOD_FOLDER IMAGE]"""

import sys

from blemish import Inspector
from blemish.data import draw_cells

if len(sys.argv) == 3:
    good, image = sys.argv[1:]
else:  # solar cells, of which 4 come with a label that is not looked at
    cells, others = draw_cells(4, 4)
    good, image = [cell.image for cell in cells], others[0].image

inspector = Inspector().fit(good)
prediction = inspector.inspect(image)
print(prediction.source, "is defective" if prediction.is_defective else "is good")
print(f"{100 * prediction.p_value:.1f} % of good parts score at least {prediction.score:.3f}")
for region in prediction.regions:
    print(f"defect in box {region.box}, {region.area} pixels")
