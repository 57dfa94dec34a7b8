"""Python that starts with this folder on its path has a quicker default detector: the same one, on smaller images.

For tests of programs whose statements do not depend on what the detector finds.
"""

from blemish.detectors.hybrid import Hybrid

Hybrid.image_size = 224
Hybrid.__init__.__kwdefaults__["image_size"] = 224
