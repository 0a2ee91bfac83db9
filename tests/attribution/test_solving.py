from functools import partial

import pytest
import torch

from deconfuse.attribution.curvature import hvp
from deconfuse.attribution.solving import conjugate_gradient, damping_of, residuals, spectrum
from deconfuse.system.errors import UserError
from tests.attribution.test_curvature import autograd_hessian


def test_spectrum_finds_both_ends(toy):
    training, _ = toy
    values = torch.linalg.eigvalsh(autograd_hessian(training))
    product = partial(hvp, training)
    found = spectrum(product, training.weight, 55)
    assert found.largest == pytest.approx(values[-1].item(), rel=1e-2)
    assert found.smallest == pytest.approx(values[0].item(), abs=1e-2 * values[-1].item())
    few = spectrum(product, training.weight, 12)
    assert few.largest == pytest.approx(values[-1].item(), rel=1e-2)


def test_damping_is_in_units_of_the_largest_eigenvalue_and_the_warning(toy, capsys):
    training, _ = toy
    values, product = torch.linalg.eigvalsh(autograd_hessian(training)), partial(hvp, training)
    found, ends = damping_of(product, training.weight, 0.5)
    assert found == 0.5 * ends.largest == pytest.approx(0.5 * values[-1].item(), rel=1e-2)
    damping_of(product, training.weight, 0.0)
    said = capsys.readouterr().err
    assert "eigenvalues from" in said
    assert ("indefinite" in said) is bool(values[0] <= 0)
    with pytest.raises(UserError, match=r"influence.damping=-1"):
        damping_of(product, training.weight, -1)


def test_conjugate_gradient_solves_many_right_sides_and_leaves_zero_alone():
    random = torch.Generator().manual_seed(0)
    root = torch.randn(12, 12, dtype=torch.float64, generator=random)
    a = root @ root.T + torch.eye(12)
    v = torch.randn(4, 3, 4, dtype=torch.float64, generator=random)
    v[2] = 0
    x = conjugate_gradient(lambda p: (p.flatten(1) @ a).view_as(p), v, 1e-12, 100)
    torch.testing.assert_close(x.flatten(1), torch.linalg.solve(a, v.flatten(1).T).T, rtol=1e-8, atol=1e-9)
    assert (x[2] == 0).all()


def indefinite(ends):
    """A symmetric matrix with these eigenvalues, as a product on (b, 4, 6)."""
    random = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(24, 24, dtype=torch.float64, generator=random))
    a = q @ torch.diag(ends) @ q.T
    return lambda x: (x.flatten(1) @ a).view_as(x)


def test_a_negative_end_of_one_per_cent_is_not_missed(capsys):
    ends = torch.cat([torch.linspace(0.1, 10, 23, dtype=torch.float64) ** 2, torch.tensor([-1.0])])
    product = indefinite(ends)
    found = spectrum(product, torch.zeros(4, 6, dtype=torch.float64))
    assert found.largest == pytest.approx(100, rel=1e-3)
    assert found.smallest == pytest.approx(-1, rel=1e-2)
    damping_of(product, torch.zeros(4, 6, dtype=torch.float64), 0.005)
    assert "indefinite" in capsys.readouterr().err


def test_conjugate_gradient_is_never_worse_than_nothing_on_an_indefinite_matrix():
    product = indefinite(torch.linspace(-3, 20, 24, dtype=torch.float64))
    v = torch.randn(9, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = conjugate_gradient(product, v, 1e-10, 50)
    assert ((product(x) - v).norm(dim=(1, 2)) <= v.norm(dim=(1, 2)) * (1 + 1e-12)).all()


def test_residuals_are_those_of_a_matrix_and_zero_right_sides_are_solved():
    a = torch.diag(torch.arange(1.0, 7))
    x, v = torch.ones(2, 2, 3), torch.stack([torch.full((2, 3), 2.0), torch.zeros(2, 3)])
    found = residuals(lambda p: (p.flatten(1) @ a).view_as(p), x * torch.tensor([1.0, 0.0])[:, None, None], v)
    # A x = (1, ..., 6) beside v = (2, ..., 2): |(-1, 0, 1, 2, 3, 4)| / |(2, ..., 2)| = sqrt(31 / 24).
    assert found == pytest.approx([(31 / 24) ** 0.5, 0])
