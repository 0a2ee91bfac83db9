"""The sums of exponentials: torch's operators, compiled code and the kernel against float64."""

import pytest
import torch

from deconfuse.compute import exp_sums
from deconfuse.compute.exp_sums import by_operators, chosen, one_pass
from deconfuse.system.errors import UserError

CPU = torch.device("cpu")


def drawn(b, t, c, r=2, dtype=torch.float32, seed=0):
    """Pieces of b moves of t samples and c proxies; logits of some +-20 in units of log 2."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=random, dtype=dtype)

    return draw(t, c), draw(b, r, t) / 3, draw(b, r, c) / 3, 1 + 4 * draw(b, t).abs().clamp_max(1)


def truth(similarity, reach, pull, scale):
    """The definition, in float64, one sample after the other."""
    similarity, reach, pull, scale = (each.double() for each in (similarity, reach, pull, scale))
    total = torch.empty_like(scale)
    for i in range(len(reach)):
        for k in range(len(similarity)):
            total[i, k] = (2 ** (scale[i, k] * (similarity[k] + reach[i, :, k] @ pull[i]))).sum()
    return total


@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 7, 5), (5, 33, 101), (2, 130, 3)])
@pytest.mark.parametrize("r", [0, 2, 6])
@pytest.mark.parametrize("tile", [1, 40, 10**9])
def test_operators_sum_what_the_definition_says(sizes, r, tile, monkeypatch):
    monkeypatch.setattr(exp_sums, "TILE_BYTES", 4 * tile)
    parts = drawn(*sizes, r=r, dtype=torch.float64)
    torch.testing.assert_close(by_operators(*parts), truth(*parts), rtol=1e-12, atol=0)


def test_float32_is_within_its_rounding():
    """An exponent of up to 40 is off by 40 eps log 2, some 3e-6, and a sum by less than its largest term."""
    parts = drawn(5, 40, 99)
    torch.testing.assert_close(by_operators(*parts).double(), truth(*parts), rtol=5e-6, atol=0)


@pytest.mark.slow
def test_one_pass_equals_the_operators_on_odd_sizes(monkeypatch):
    """Compiled once for all sizes; a tile that is not full overlaps the one before."""
    if not any(map(exp_sums.shutil.which, exp_sums.COMPILERS)):
        pytest.skip("there is no C++ compiler here")
    monkeypatch.setattr(exp_sums, "SHARED_BYTES", 4 * 7 * 21)
    for b, t, c in [(3, 50, 21), (2, 7, 21), (9, 64, 5), (4, 1000, 3), (1, 50, 21), (3, 4, 21)]:
        parts = drawn(b, t, c, seed=b)
        found = one_pass(*parts)
        assert found.shape == (b, t)
        torch.testing.assert_close(found.double(), truth(*parts), rtol=5e-6, atol=0)


@pytest.mark.parametrize(
    ("word", "terms", "sides", "found"),
    [
        ("auto", 1e10, 2, by_operators),
        ("auto", 1e13, 2, one_pass),
        ("auto", 1e13, 4, by_operators),
        (True, 1.0, 2, one_pass),
        (True, 1.0, 6, by_operators),
        (False, 1e15, 2, by_operators),
    ],
)
def test_it_compiles_where_that_pays(word, terms, sides, found, monkeypatch):
    monkeypatch.setattr(exp_sums.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert chosen(word, CPU, terms, sides) is found


def test_without_a_compiler_the_operators_work_and_a_wish_is_answered(monkeypatch, capsys):
    monkeypatch.setattr(exp_sums.shutil, "which", lambda name: None)
    assert chosen("auto", CPU, 1e12, 2) is by_operators
    assert capsys.readouterr().err == ""
    assert chosen(True, CPU, 1, 2) is by_operators
    said = capsys.readouterr()
    assert "no C++ compiler" in said.err + said.out


def test_a_cuda_device_has_a_kernel_and_another_device_the_operators():
    pytest.importorskip("triton", reason="triton is not installed")
    assert chosen("auto", torch.device("cuda"), 1e12, 2) is exp_sums.on_cuda
    assert chosen("auto", torch.device("cuda"), 1e9, 2) is by_operators
    assert chosen("auto", torch.device("mps"), 1e15, 2) is by_operators


def test_another_word_is_refused():
    with pytest.raises(UserError, match="one_pass=always is not known; take auto, true or false"):
        chosen("always", CPU, 1, 2)
