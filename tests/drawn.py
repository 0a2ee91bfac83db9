"""What property tests draw: points of a coarse grid, where ties are many and sums exact, and labels."""

import torch
from hypothesis import strategies as st

DTYPES = (torch.float32, torch.float64)


@st.composite
def points(draw, least: int = 1, most: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, m) points and (n,) labels; n from least on, m from 1 on, of any number of classes, one too."""
    n, m, c = draw(st.integers(least, most)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    rows = draw(st.lists(st.lists(st.integers(-2, 2), min_size=m, max_size=m), min_size=n, max_size=n))
    labels = draw(st.lists(st.integers(0, c - 1), min_size=n, max_size=n))
    return torch.tensor(rows, dtype=draw(st.sampled_from(DTYPES))), torch.tensor(labels)


def numbers(n: int) -> st.SearchStrategy[list[float]]:
    """n numbers, some of them equal, some large."""
    return st.lists(st.sampled_from([-1e6, -2.0, 0.0, 1e-9, 1.0, 1.0, 3e7]), min_size=n, max_size=n)
