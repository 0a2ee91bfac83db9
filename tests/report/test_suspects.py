import numpy as np
import pytest

from deconfuse.report.suspects import bend, suspects, two_groups


def slow_two_groups(falling):
    """The cut with the least squared distance of each value to the mean of its group."""
    best, least = len(falling), np.inf
    for k in range(1, len(falling)):
        parts = falling[:k], falling[k:]
        within = sum(((part - part.mean()) ** 2).sum() for part in parts)
        if within < least - 1e-12:
            best, least = k, within
    return best


@pytest.mark.parametrize("seed", range(8))
def test_two_groups_have_the_least_spread_within_them(seed):
    random = np.random.default_rng(seed)
    values = np.concatenate([random.normal(0.9, 0.1, 23), random.normal(0.2, 0.1, 40 + seed)]) + 1000 * seed
    falling = np.sort(values)[::-1]
    assert two_groups(falling) == slow_two_groups(falling)


def test_equal_values_and_few_values_are_one_group():
    assert two_groups(np.full(5, 0.3)) == 5
    assert two_groups(np.array([0.7])) == 1
    assert two_groups(np.array([])) == 0
    assert bend(np.full(5, 0.3)) == 5
    assert bend(np.array([2.0, 1.0])) == 2


def test_the_bend_is_where_a_steep_fall_becomes_flat():
    falling = np.concatenate([np.linspace(1, 0.2, 21), np.linspace(0.19, 0.1, 80)])
    assert bend(falling) in (20, 21)
    # A straight line, and a curve above it, bend nowhere.
    assert bend(np.linspace(1, 0, 11)) == 11
    assert bend(1 - np.linspace(0, 1, 11) ** 2) == 11
    assert bend(5 + 100 * falling) == bend(falling)


def test_suspects_are_recommended_another_label_and_not_skipped():
    suspicion = np.array([0.1, 0.9, 0.9, np.nan, 0.8, 0.2, 1.0])
    other = np.array([1, 1, 1, 1, 0, 1, 1], bool)
    skipped = np.array([0, 0, 0, 0, 0, 0, 1], bool)
    found = suspects(suspicion, other, skipped)
    assert found.order.tolist() == [1, 2, 5, 0]
    assert found.wrong == 2
    assert found.stop >= found.wrong
    assert suspects(suspicion, ~np.ones(7, bool), skipped).order.tolist() == []
