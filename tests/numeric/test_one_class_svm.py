"""The linear one-class SVM from two tensors is scikit-learn's."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from sklearn.linear_model import SGDOneClassSVM

from blemish.errors import MissingPackageError
from blemish.numeric.one_class_svm import LinearOneClassSVM


def rows(count: int, seed: int = 0) -> torch.Tensor:
    """Rows `(count, 3)` ≥ 0, like distances."""
    return 3 + torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)).abs() * torch.tensor([0.5, 1, 2])


@pytest.mark.parametrize("count", [2, 500])
def test_the_decision_is_that_of_scikit_learn(count: int) -> None:
    known, new = rows(count), rows(50, seed=1)
    expected = SGDOneClassSVM(nu=0.5, max_iter=1000, random_state=42).fit(known.double().numpy())
    found = LinearOneClassSVM.fit(known)
    np.testing.assert_allclose(
        found.decision(new), expected.decision_function(new.double().numpy()), rtol=1e-4, atol=1e-4
    )


def test_rows_above_zero_have_weights_above_zero() -> None:
    """So that a score never falls where a distance grows."""
    assert (LinearOneClassSVM.fit(rows(500)).coef > 0).all()


def test_of_nothing_but_zeros_all_weights_are_equal() -> None:
    assert LinearOneClassSVM.fit(torch.zeros(20, 3)).coef.tolist() == [1, 1, 1]


def test_without_scikit_learn_the_error_says_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sklearn", "sklearn.linear_model"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError, match=r"pip install 'blemish\[m3dm\]'"):
        LinearOneClassSVM.fit(rows(20))
