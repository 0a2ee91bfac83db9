import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deconfuse.system.errors import (
    UserError,
    at_least,
    command,
    count,
    did_you_mean,
    number,
    one_of,
    shorten,
    within,
)

ROOT = Path(__file__).parents[1]
NO_NUMBERS = [True, False, "3", None, [3], math.nan]


def test_did_you_mean_names_the_nearest_and_lists_all_in_order():
    text = did_you_mean("softripl", ["softtriple", "proxynca", "pml"])
    assert text == "did you mean softtriple? Valid: pml, proxynca, softtriple"


def test_did_you_mean_suggests_nothing_where_nothing_is_near():
    assert did_you_mean("zzz", ["proxynca", "pml"]) == "Valid: pml, proxynca"


def test_did_you_mean_takes_choices_from_a_generator():
    assert did_you_mean("b", (c for c in "cba")) == "did you mean b? Valid: a, b, c"


@pytest.mark.parametrize(
    ("items", "limit", "text"),
    [
        ([], 5, ""),
        ([7], 5, "7"),
        (range(5), 5, "0, 1, 2, 3, 4"),
        (range(6), 5, "0, 1, 2, 3, 4 and 1 more"),
        ((x for x in "abcdefg"), 3, "a, b, c and 4 more"),
    ],
)
def test_shorten_says_how_many_are_left_out(items, limit, text):
    assert shorten(items, limit) == text


def test_one_of_returns_the_value_or_names_key_value_and_choices():
    assert one_of("noise.kind", "shift", ("symmetric", "shift")) == "shift"
    with pytest.raises(UserError) as caught:
        one_of("noise.kind", "shfit", ("symmetric", "shift"))
    assert str(caught.value) == "noise.kind=shfit is not known; did you mean shift? Valid: shift, symmetric"


@pytest.mark.parametrize("value", [None, 3, 1.5, True])
def test_one_of_refuses_what_is_no_word(value):
    with pytest.raises(UserError, match=rf"^k={value} is not known; Valid: a, b$"):
        one_of("k", value, ("a", "b"))


@pytest.mark.parametrize("value", [0, -3, 2.5, math.inf])
def test_number_returns_numbers(value):
    assert number("k", value) is value


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize(
    "check",
    [number, lambda k, v: within(k, v, 0, 9), lambda k, v: at_least(k, v, 0), lambda k, v: count(k, v, 0)],
)
def test_what_is_no_number_is_refused_by_every_check(check, value):
    with pytest.raises(UserError) as caught:
        check("some.key", value)
    assert str(caught.value) == f"some.key={value} is not a number"


@pytest.mark.parametrize("value", [0.25, 0.5, 0.75])
def test_within_includes_both_ends(value):
    assert within("k", value, 0.25, 0.75) == value


@pytest.mark.parametrize(
    "value", [np.nextafter(0.25, 0).item(), np.nextafter(0.75, 1).item(), math.inf, -math.inf]
)
def test_within_refuses_the_next_number_outside(value):
    with pytest.raises(UserError) as caught:
        within("k", value, 0.25, 0.75)
    assert str(caught.value) == f"k={value} is out of range; give a value in [0.25, 0.75]"


def test_within_with_an_open_end_leaves_the_upper_end_out():
    assert within("k", np.nextafter(1, 0).item(), 0.0, 1.0, open_end=True) < 1
    assert within("k", 0.0, 0.0, 1.0, open_end=True) == 0
    with pytest.raises(UserError) as caught:
        within("k", 1.0, 0.0, 1.0, open_end=True)
    assert str(caught.value) == "k=1.0 is out of range; give a value in [0.0, 1.0)"


def test_at_least_includes_its_bound():
    assert at_least("k", 3, 3) == 3
    assert at_least("k", 3.5, 3) == 3.5
    with pytest.raises(UserError, match=r"^k=2\.999 is too small; give 3 or more$"):
        at_least("k", 2.999, 3)


def test_count_takes_whole_numbers_from_its_bound_on():
    assert count("k", 2, 2) == 2
    with pytest.raises(UserError, match=r"^k=1 is too small; give 2 or more$"):
        count("k", 1, 2)


@pytest.mark.parametrize("value", [2.5, 5.0, math.inf])
def test_count_refuses_fractions_and_floats(value):
    with pytest.raises(UserError) as caught:
        count("k", value, 2)
    assert str(caught.value) == f"k={value} is not a whole number"


@pytest.mark.parametrize(
    ("ends", "code", "line"),
    [
        (None, None, ""),
        (3, 3, ""),
        (UserError("x: not there; give y"), "error: x: not there; give y", ""),
        (KeyboardInterrupt(), 130, "\ninterrupted; nothing was kept\n"),
    ],
)
def test_a_small_command_ends_with_a_code_and_a_line(monkeypatch, capsys, ends, code, line):
    def main(words):
        assert words == ["a", "b=1"]
        if isinstance(ends, BaseException):
            raise ends
        return ends

    monkeypatch.setattr("sys.argv", ["command", "a", "b=1"])
    with pytest.raises(SystemExit) as found:
        command(main, "interrupted; nothing was kept")
    assert found.value.code == code
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("lines", [2, 100_000])  # left in the buffer until the end, and written at once
def test_a_reader_that_leaves_early_gets_no_traceback(lines):
    script = f"from deconfuse.system.errors import command; command(lambda _: print('a line\\n' * {lines}))"
    shell = f'{sys.executable} -c "{script}" | true; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", f"sleep 0; {shell}"], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.returncode == 141
