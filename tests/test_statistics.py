import numpy as np
import pytest

from src.statistics import detection


def test_by_hand():
    # Ranked: flipped, clean, flipped, clean: precision 1/1 and 2/3; 3 of 4 (flipped, clean) pairs in order.
    found = detection(np.array([0.9, 0.1, 0.5, 0.7]), np.array([True, False, True, False]))
    assert found == {"auroc": 0.75, "average_precision": pytest.approx((1 + 2 / 3) / 2)}


def test_undefined_without_both_kinds():
    assert detection(np.arange(3.0), np.zeros(3, bool)) is None
    assert detection(np.arange(3.0), np.ones(3, bool)) is None
