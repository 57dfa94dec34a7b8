"""A detector of your own, far from the average patch is strange: python 03_add_a_detector.py [GOOD_FOLDER IMAGE]"""

import sys

import torch

from blemish import Inspector
from blemish.data import draw_cells
from blemish.detectors.base import Needs
from blemish.types import RGB, PatchScores


class Average:
    needs, settings = Needs(image_size=224), {}

    def fit(self, batches, progress=None):
        self.mean_ = torch.cat([batch.features[RGB].flatten(0, 2) for batch in batches]).mean(dim=0)  # (D,)
        return self

    def score(self, features):
        return PatchScores((features[RGB] - self.mean_).norm(dim=-1))  # (B, h, w)


cells, others = draw_cells(8, 2) if len(sys.argv) < 3 else ([], [])
inspector = Inspector(detector=Average()).fit([cell.image for cell in cells] or sys.argv[1])
print(inspector.inspect(others[0].image if others else sys.argv[2]).score)
