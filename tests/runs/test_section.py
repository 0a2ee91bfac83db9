import math

import pytest

from deconfuse.runs.section import MISSING, median_of, spread


@pytest.mark.parametrize(
    ("values", "cell"),
    [
        ([0.1, 0.2, 0.6], "0.300 ± 0.265"),  # sd sqrt((0.04 + 0.01 + 0.09) / 2)
        ([0.25], "0.250"),
        ([0.1, None, 0.3], "0.200 ± 0.141 (2 of 3)"),
        ([math.nan, 0.5], "0.500 (1 of 2)"),
        ([None, math.inf], MISSING),
        ([], MISSING),
    ],
)
def test_mean_and_deviation_of_what_is_known(values, cell):
    assert spread(values) == cell
    assert spread(iter(values)) == cell


def test_digits():
    assert spread([99.96, 100.0], 1) == "100.0 ± 0.0"
    assert spread([10, 12], 0) == "11 ± 1"


@pytest.mark.parametrize(
    ("values", "cell"),
    [
        ([0.0012, 0.0018], "0.0015 ± 0.0004"),
        ([0.0007, 0.0009], "8.0e-04 ± 1.4e-04"),
        ([-3e-6, 1e-6], "-1.0e-06 ± 2.8e-06"),
        ([0.0, 0.0], "0.0000 ± 0.0000"),
        ([1e-9, None], "1.0e-09 (1 of 2)"),
        ([0.1, 0.2, -0.3], "0.0000 ± 0.2646"),
        ([0.02, -0.0199], "0.0000 ± 0.0282"),
    ],
)
def test_a_small_mean_keeps_two_digits(values, cell):
    assert spread(values, 4, small=True) == cell
    assert "e" not in spread(values, 4)


def test_the_median_and_the_largest_p():
    assert median_of([0.04, 1e-9, 0.002]) == "2.0e-03 (4.0e-02)"
    assert median_of([0.02, 0.04, math.nan]) == "3.0e-02 (4.0e-02)"
    assert median_of([math.nan]) == median_of([]) == "-"
