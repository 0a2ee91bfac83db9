import numpy as np
import pytest

from src.statistics import detection, detection_curve, mean_interval


def test_by_hand():
    # Ranked: flipped, clean, flipped, clean: precision 1/1 and 2/3; 3 of 4 (flipped, clean) pairs in order.
    found = detection(np.array([0.9, 0.1, 0.5, 0.7]), np.array([True, False, True, False]))
    assert found == {"auroc": 0.75, "average_precision": pytest.approx((1 + 2 / 3) / 2), "recall": 0.5}


def test_ties_are_checked_in_the_order_given():
    suspicion, flipped = np.array([0.2, 0.5, 0.5, 0.5, 0.9]), np.array([True, True, False, True, False])
    checked, found = detection_curve(suspicion, flipped)
    # Checked one after another: 4, 1, 2, 3, 0.
    np.testing.assert_allclose(checked, [0, 0.2, 0.4, 0.6, 0.8, 1])
    np.testing.assert_allclose(found, [0, 0, 1 / 3, 1 / 3, 2 / 3, 1])
    assert detection(suspicion, flipped)["recall"] == pytest.approx(1 / 3)
    assert detection(np.zeros(5), flipped)["recall"] == pytest.approx(2 / 3)
    assert detection(np.zeros(5), flipped[::-1].copy())["recall"] == pytest.approx(1 / 3)


def test_undefined_without_both_kinds():
    assert detection(np.arange(3.0), np.zeros(3, bool)) is None
    assert detection(np.arange(3.0), np.ones(3, bool)) is None


def test_the_interval_is_students():
    found = mean_interval(np.array([1.0, 2.0, 3.0, 4.0, np.nan]))
    # sd = sqrt(5/3), t(0.975, 3) = 3.182446: half = 3.182446 * 1.290994 / 2
    assert found["mean"] == 2.5
    assert found["high"] - found["mean"] == pytest.approx(2.054260, rel=1e-5)
    assert found["mean"] - found["low"] == pytest.approx(2.054260, rel=1e-5)
    assert found["n"] == 4
    assert mean_interval(np.array([1.0, np.nan])) == {"mean": 1.0, "low": None, "high": None, "n": 1}
    assert mean_interval(np.array([np.nan])) is None
