import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from deconfuse.retrieval.statistics import (
    HARMFUL,
    calibration_error,
    detection,
    detection_curve,
    evenly,
    holm,
    mean_interval,
    most_harmful,
    paired,
    wilson,
)
from tests.drawn import numbers


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


def test_places_of_a_long_curve_are_evenly_spaced_with_both_ends():
    assert evenly(10, 6).tolist() == [0, 2, 4, 6, 8, 10]
    assert evenly(4, 200).tolist() == [0, 1, 2, 3, 4]
    assert evenly(1003, 200)[[0, 1, -1]].tolist() == [0, 5, 1003]
    assert len(evenly(1003, 200)) == 200
    assert evenly(5, 4).tolist() == [0, 2, 3, 5]  # the nearest numbers to 5/3 and 10/3


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
    # Of five: sd = sqrt(5/2), t(0.975, 4) = 2.776445; of four sqrt(n) is n / 2
    five = mean_interval(np.arange(1.0, 6))
    assert five["high"] - 3 == pytest.approx(2.776445 * (5 / 2) ** 0.5 / 5**0.5, rel=1e-6)
    # t(0.75, 3) = 0.764892
    half = mean_interval(np.array([1.0, 2.0, 3.0, 4.0]), level=0.5)
    assert half["high"] - 2.5 == pytest.approx(0.764892 * (5 / 3) ** 0.5 / 2, rel=1e-5)
    assert mean_interval(np.array([1.0, np.nan])) == {"mean": 1.0, "low": None, "high": None, "n": 1}
    assert mean_interval(np.array([np.nan])) is None


@pytest.mark.parametrize("n", [3, 11, 60])
def test_paired_tests_are_scipys(n):
    random = np.random.default_rng(n)
    second = random.normal(size=n)
    first = second + random.normal(0.3, 1, size=n)
    found = paired(first, second)
    x = first - second
    assert found["n"] == n
    assert found["improvement"] == pytest.approx(x.mean())
    # One-sided from the two-sided p: half of it where the mean is positive.
    t, both = stats.ttest_1samp(x, 0)
    assert found["p_t"] == pytest.approx(both / 2 if t > 0 else 1 - both / 2)
    assert found["p_wilcoxon"] == pytest.approx(stats.wilcoxon(x, alternative="greater").pvalue)
    assert found["p_normal"] == pytest.approx(stats.shapiro(x).pvalue)
    assert found["effect"] == pytest.approx(t / n**0.5)


def test_the_effect_size_and_its_interval_by_hand():
    # x = 1, 2, 3, 4: mean 2.5, sd sqrt(5/3); d = 1.936492; half = 1.96 sqrt(1/4 + 3.75/8) = 1.661671
    found = paired(np.array([2.0, 3, 5, 4]), np.array([1.0, 1, 2, 0]))
    assert found["improvement"] == 2.5
    assert found["effect"] == pytest.approx(1.936492, rel=1e-6)
    assert found["low"] == pytest.approx(1.936492 - 1.661671, rel=1e-5)
    assert found["high"] == pytest.approx(1.936492 + 1.661671, rel=1e-5)
    assert found["p_wilcoxon"] == 2**-4  # all signs positive: one of 16 ways
    # x = 1 to 5: d = 3 / sqrt(5/2) = 1.897367; half = 1.96 sqrt(1/5 + 3.6/10) = 1.466730
    found = paired(np.array([2.0, 3, 5, 4, 6]), np.array([1.0, 1, 2, 0, 1]))
    assert found["effect"] == pytest.approx(1.897367, rel=1e-6)
    assert found["high"] - found["effect"] == pytest.approx(1.466730, rel=1e-5)
    assert found["effect"] - found["low"] == pytest.approx(1.466730, rel=1e-5)


def test_pairs_are_tested_to_one_side():
    first, second = np.array([0.1, 0.5, 0.4, 0.9, 0.3]), np.array([0.0, 0.3, 0.1, 0.5, 0.4])
    up, down = paired(first, second), paired(second, first)
    assert up["p_t"] < 0.1 < 0.9 < down["p_t"]
    assert up["p_t"] + down["p_t"] == pytest.approx(1)
    assert up["p_wilcoxon"] < 0.2 < 0.8 < down["p_wilcoxon"]
    assert (down["effect"], down["low"]) == pytest.approx((-up["effect"], -up["high"]))


@pytest.mark.parametrize(
    ("first", "second", "improvement"),
    [
        ([0.5, 0.7], [0.1, 0.2], 0.45),
        ([0.3, 0.5, 0.6, 0.9], [0.2, 0.4, 0.5, 0.8], 0.1),  # equal but for rounding
        ([0.3, 0.5, 0.6], [0.3, 0.5, 0.6], 0.0),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], 0.0),
    ],
)
def test_without_spread_or_with_two_pairs_no_test_is_defined(first, second, improvement):
    found = paired(np.array(first), np.array(second))
    assert (found.pop("n"), found.pop("improvement")) == (len(first), pytest.approx(improvement))
    assert set(found) == {"p_t", "effect", "low", "high", "p_wilcoxon", "p_normal"}
    assert np.isnan(list(found.values())).all()


def test_no_pair_has_no_improvement():
    found = paired(np.empty(0), np.empty(0))
    assert found.pop("n") == 0
    assert np.isnan(list(found.values())).all()


@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(numbers(n), st.lists(st.booleans(), min_size=n, max_size=n))
    )
)
def test_detection_of_any_scores_is_within_its_range(drawn):
    suspicion, flipped = (np.array(part) for part in drawn)
    found = detection(suspicion, flipped)
    assert (found is None) == (flipped.all() or not flipped.any())
    if found is None:
        return
    assert all(0 <= value <= 1 for value in found.values())
    pairs = suspicion[flipped][:, None] - suspicion[~flipped][None]
    assert found["auroc"] == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    if np.ptp(suspicion) == 0:
        assert found["auroc"] == 0.5
    checked, share = detection_curve(suspicion, flipped)
    assert (checked[0], share[0], checked[-1], share[-1]) == (0, 0, 1, 1)
    assert (np.diff(share) >= 0).all()


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(numbers(n), numbers(n))))
def test_paired_tests_of_any_numbers_are_defined_or_nan(drawn):
    """Also of one pair, of equal numbers, and of numbers that differ by rounding alone."""
    first, second = (np.array(part) for part in drawn)
    found = paired(first, second)
    assert found["n"] == len(first)
    assert found["improvement"] == pytest.approx((first - second).mean())
    tested = [found[key] for key in ("p_t", "p_wilcoxon", "p_normal")]
    assert all(np.isnan(tested)) or all(0 <= p <= 1 for p in tested)
    assert len(first) >= 3 or all(np.isnan(tested))
    if not np.isnan(found["effect"]):
        assert found["low"] < found["effect"] < found["high"]


def test_differences_count_as_equal_relative_to_the_larger_side():
    near, steps = np.ones(4), np.array([1.0, 2, 3, 4])
    # A spread of 3e-11 of 1 is more than rounding, one of 3e-13 is not, nor is 3e-11 beside numbers of 1000.
    assert paired(near + 1e-11 * steps, near)["effect"] == pytest.approx(1.936492, rel=1e-3)
    assert np.isnan(paired(near + 1e-13 * steps, near)["effect"])
    assert np.isnan(paired(near + 1e-11 * steps, 1000 * near)["effect"])
    assert np.isnan(paired(1000 * near, near + 1e-11 * steps)["effect"])
    assert np.isnan(paired(near + 1e-11 * steps, -1000 * near)["effect"])
    assert np.isnan(paired(-1000 * near, near + 1e-11 * steps)["effect"])


def test_differences_are_taken_in_float64():
    first, second = np.full(2, 2**24, np.float32), np.full(2, 0.5, np.float32)
    assert paired(first, second)["improvement"] == 2**24 - 0.5


def test_the_most_harmful_are_the_largest_scores_above_zero():
    scores = np.array([0.0, 3, -1, 5, 3, 4, 0.5, 0.25, 7])
    assert most_harmful(scores).tolist() == [8, 3, 5, 1, 4]
    assert HARMFUL == 5
    assert most_harmful(scores, 2).tolist() == [8, 3]
    assert most_harmful(scores, 99).tolist() == [8, 3, 5, 1, 4, 6, 7]
    assert most_harmful(np.array([0.0, -1, 2])).tolist() == [2]
    assert most_harmful(np.zeros(3)).tolist() == []


@pytest.mark.parametrize(
    ("scores", "most", "order"),
    [
        ([1.0, -2, 3, 0, 1, 2, 4], 5, [6, 2, 5, 0, 4]),
        ([1.0, -2, 3, 0, 1, 2, 4], 2, [6, 2]),
        ([1.0, 1, 1, 2, 1, 1, 1, 1], 3, [3, 0, 1]),
        ([0.0, -1, 1e-30], 5, [2]),
        ([0.0, -1], 5, []),
    ],
)
def test_most_harmful_score_above_zero_largest_first_ties_by_index(scores, most, order):
    assert most_harmful(np.array(scores), most).tolist() == order


def test_calibration_error_by_hand():
    # Bins [0, 0.5) and [0.5, 1]: mean chance 0.2 where 1 of 2 happened, 0.8 where 2 of 3 did.
    chance, happened = np.array([0.1, 0.3, 0.5, 0.9, 1.0]), np.array([False, True, True, False, True])
    assert calibration_error(chance, happened, bins=2) == pytest.approx(0.4 * 0.3 + 0.6 * (0.8 - 2 / 3))
    assert calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0
    # A chance of 1 is in the last bin, with 0.9: (0.9 - 1) + (1 - 0) there, not |0.9 - 1| + |1 - 0|.
    last = calibration_error(np.array([0.9, 1.0]), np.array([True, False]), bins=2)
    assert last == pytest.approx(0.9 / 2)
    assert calibration_error(np.array([0.3]), np.array([True])) == pytest.approx(0.7)
    assert calibration_error(np.empty(0), np.empty(0, bool)) == 0


def test_holm_multiplies_by_what_is_left_and_never_falls():
    found = holm([0.01, 0.04, float("nan"), 0.03, 0.6])
    assert found[:2] == pytest.approx([0.04, 0.09])  # 4 x 0.01; 2 x 0.04 is below 3 x 0.03
    assert np.isnan(found[2])
    assert found[3:] == pytest.approx([0.09, 0.6])
    assert holm([]) == []


def test_wilsons_interval_by_its_formula():
    z, n, share = 1.959964, 20, 0.15
    middle, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    want = (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)
    assert wilson(3, 20) == pytest.approx(want, rel=1e-6)
    assert wilson(0, 5)[0] == pytest.approx(0, abs=1e-12)
