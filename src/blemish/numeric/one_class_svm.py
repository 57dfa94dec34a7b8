"""A linear one-class SVM, fitted by scikit-learn and kept as two tensors, so that nothing else needs scikit-learn.

Schölkopf, Platt, Shawe-Taylor, Smola & Williamson, "Estimating the Support of a High-Dimensional Distribution", Neural
Computation 13, 2001, solved by stochastic gradient descent (scikit-learn's SGDOneClassSVM). With weights w and offset
ρ, w·x − ρ is positive for those rows x that lie far from the origin in the direction of w, as most normal ones do.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Self

import torch
from torch import Tensor

from blemish.utils.optional import need

# As M3DM (detectors/rgb3d/m3dm.py) published them.
NU = 0.5  # the share of normal rows on the negative side, roughly
MAX_EPOCHS = 1000
RANDOM_STATE = 42


def linear_models() -> ModuleType:
    """`sklearn.linear_model`. Raises MissingPackageError without scikit-learn."""
    return need("sklearn.linear_model", "m3dm", "one-class SVMs")


@dataclass(frozen=True, eq=False)
class LinearOneClassSVM:
    """Weights `coef` `(K,)` and `offset` `()`, float32."""

    coef: Tensor
    offset: Tensor

    @classmethod
    def fit(cls, rows: Tensor) -> Self:
        """Fit to normal rows `(N, K)`. Rows ≥ 0 give weights ≥ 0: these are sums of rows.

        Weights are equal where the rows are all 0, of which nothing can be learned. Raises MissingPackageError without
        scikit-learn.
        """
        svm = linear_models().SGDOneClassSVM(nu=NU, max_iter=MAX_EPOCHS, random_state=RANDOM_STATE)
        svm.fit(rows.detach().double().cpu().numpy())
        coef = torch.from_numpy(svm.coef_).float()
        return cls(coef if coef.any() else torch.ones_like(coef), torch.from_numpy(svm.offset_).float()[0])

    def decision(self, rows: Tensor) -> Tensor:
        """w·x − ρ of rows `(…, K)`: `(…)`."""
        return rows @ self.coef.to(rows.device) - self.offset.to(rows.device)
