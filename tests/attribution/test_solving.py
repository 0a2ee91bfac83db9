from functools import partial

import pytest
import torch

from deconfuse.attribution.curvature import hvp
from deconfuse.attribution.solving import conjugate_gradient, damping_of, residuals, say_residuals, spectrum
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
    with pytest.raises(UserError, match=r"^influence.damping=-1 is too small; give 0 or more"):
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


def counted(values):
    """A diagonal matrix as a product on (b, 2, n/2), and the list of the right sides of each of its calls."""
    diagonal, calls = torch.tensor(values, dtype=torch.float64).view(2, -1), []

    def product(x):
        calls.append(len(x))
        return diagonal * x

    return product, calls


@pytest.mark.parametrize(
    ("values", "products"),
    [([3.0] * 6, 1), ([2.0, 2, 2, 5, 5, 5], 2), ([0.0] * 6, 1), ([-1.0, 1, 1, 4, 4, 4], 3)],
)
def test_lanczos_takes_as_many_products_as_there_are_eigenvalues(values, products):
    product, calls = counted(values)
    found = spectrum(product, torch.zeros(2, 3, dtype=torch.float64))
    assert calls == [1] * products
    assert (found.largest, found.smallest) == (
        pytest.approx(max(values), rel=1e-9, abs=1e-12),
        pytest.approx(min(values), rel=1e-9, abs=1e-12),
    )


def test_lanczos_takes_no_more_products_than_allowed_or_than_there_are_numbers():
    for most, products in ((4, 4), (30, 10)):
        product, calls = counted(list(range(1, 11)))
        found = spectrum(product, torch.zeros(2, 5, dtype=torch.float64), most)
        assert calls == [1] * products
        assert 1 - 1e-9 <= found.smallest < found.largest <= 10 + 1e-9


def test_the_least_damping_of_an_indefinite_matrix_is_said(capsys):
    product, _ = counted([-1.0, 1, 1, 4, 4, 4])
    like = torch.zeros(2, 3, dtype=torch.float64)
    value, _ = damping_of(product, like, 0.2)
    assert value == pytest.approx(0.8)
    said = " ".join(capsys.readouterr().err.split())
    assert "Hessian: eigenvalues from -1 to 4, damping 0.8" in said
    assert "raise influence.damping above 0.25" in said
    damping_of(product, like, 0.26)
    assert "warning" not in capsys.readouterr().err
    damping_of(counted([0.0] * 6)[0], like, 0.0)  # a matrix of zeros has no inverse either
    assert "warning: the damped Hessian is indefinite" in capsys.readouterr().err


def test_right_sides_that_are_solved_take_no_more_products():
    """Conjugate gradients take as many products as there are eigenvalues whose eigenvectors have a part."""
    product, calls = counted([1.0, 2, 3, 4, 5, 6])
    v = torch.zeros(3, 2, 3, dtype=torch.float64)
    v[0, 0, 1] = 7.0
    v[1, 0, 0], v[1, 1, 2] = 1.0, 12.0
    v[2, 0] = torch.tensor([1.0, -2.0, 3.0])
    x = conjugate_gradient(product, v, 1e-10, 50)
    assert calls == [3, 2, 1]
    want = v / torch.arange(1.0, 7).view(2, 3)
    torch.testing.assert_close(x, want, rtol=1e-9, atol=1e-12)


def test_conjugate_gradients_end_after_the_products_allowed_or_with_a_preconditioner_that_is_the_inverse():
    diagonal = torch.arange(1.0, 7, dtype=torch.float64).view(2, 3)
    v = torch.ones(1, 2, 3, dtype=torch.float64)
    product, calls = counted([1.0, 2, 3, 4, 5, 6])
    once = conjugate_gradient(product, v, 1e-10, 1)
    assert calls == [1]
    # One step along v has the length v.v / v.Av = 6 / 21; the residual left is smaller than v.
    torch.testing.assert_close(once, 6 / 21 * v)
    product, calls = counted([1.0, 2, 3, 4, 5, 6])
    found = conjugate_gradient(product, v, 1e-10, 50, lambda r: r / diagonal)
    assert calls == [1]
    torch.testing.assert_close(found, v / diagonal)


def test_residuals_above_ten_times_the_tolerance_are_said(capsys):
    say_residuals("cg", [], 1e-3, " or x")
    assert capsys.readouterr().err == ""
    say_residuals("cg", [0.0, 0.0099], 1e-3, " or x")
    assert capsys.readouterr().err == "solved with cg: largest relative residual 0.0099\n"
    for kind, nothing in (("cg", ", and 1 of them not at all, with scores of 0"), ("lissa", "")):
        say_residuals(kind, [0.5, 0.0101, 1.0, 0.001], 1e-3, ", or x")
        assert " ".join(capsys.readouterr().err.split()) == (
            f"solved with {kind}: largest relative residual 1 warning: 3 of 4 explanations are not solved "
            f"(tolerance 0.001), so their scores are those of another damping{nothing}; raise "
            "influence.damping, or x"
        )
    say_residuals("cg", [float("nan")], 1e-3, "")
    assert "1 of 1 explanation is not solved" in " ".join(capsys.readouterr().err.split())
