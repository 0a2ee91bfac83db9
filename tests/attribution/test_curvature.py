from functools import partial

import pytest
import torch

from deconfuse.attribution.curvature import (
    bend_of,
    conjugate_gradient,
    damping_of,
    explicit,
    gradient_z,
    hvp,
    lissa,
    sample_gradients,
    spectrum,
)
from deconfuse.attribution.head import Training
from deconfuse.system.errors import UserError


def mean_loss(training, weight):
    return training.loss(training.features @ weight.T + training.bias, training.labels).mean()


def autograd_hessian(training):
    h = torch.autograd.functional.hessian(lambda w: mean_loss(training, w), training.weight)
    return h.reshape(55, 55)


def test_gradient_is_autograds(toy):
    training, _ = toy
    for k in (0, 7, 22):
        weight = training.weight.clone().requires_grad_()
        z = training.features[k : k + 1] @ weight.T + training.bias
        (want,) = torch.autograd.grad(training.loss(z, training.labels[k : k + 1]).sum(), weight)
        ours = gradient_z(training, training.z)[k]
        torch.testing.assert_close(torch.outer(ours, training.features[k]), want)


def test_explicit_and_products_are_autograds_hessian(toy):
    training, _ = toy
    want = autograd_hessian(training)
    torch.testing.assert_close(explicit(training), want, rtol=1e-8, atol=1e-10)
    v = torch.randn(3, 5, 11, dtype=torch.float64)
    torch.testing.assert_close(hvp(training, v).flatten(1), v.flatten(1) @ want, rtol=1e-8, atol=1e-10)


def test_the_closed_form_is_autograds(toy):
    training, _ = toy
    v = torch.randn(3, 5, 11, dtype=torch.float64)
    bend = bend_of(training)
    assert (bend is None) == (training.loss.softmax() is None)
    if bend is not None:
        torch.testing.assert_close(hvp(training, v, bend), hvp(training, v), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(sample_gradients(training), gradient_z(training, training.z))


def test_spectrum_finds_both_ends(toy):
    training, _ = toy
    values = torch.linalg.eigvalsh(autograd_hessian(training))
    product = partial(hvp, training)
    found = spectrum(product, training.weight, 55)
    assert found.largest == pytest.approx(values[-1].item(), rel=1e-2)
    assert found.smallest == pytest.approx(values[0].item(), abs=1e-2 * values[-1].item())
    few = spectrum(product, training.weight, 12)
    assert few.largest == pytest.approx(values[-1].item(), rel=1e-2)


def test_damping_units_and_the_warning(toy, capsys):
    training, _ = toy
    values, product = torch.linalg.eigvalsh(autograd_hessian(training)), partial(hvp, training)
    assert damping_of(product, training.weight, 0.5, "relative")[0] == pytest.approx(
        0.5 * values[-1].item(), rel=1e-2
    )
    assert damping_of(product, training.weight, 0.5, "absolute")[0] == 0.5
    damping_of(product, training.weight, 0.0, "absolute")
    said = capsys.readouterr().err
    assert "eigenvalues from" in said
    assert ("indefinite" in said) is bool(values[0] <= 0)
    with pytest.raises(UserError, match=r"influence.damping_unit=foo"):
        damping_of(product, training.weight, 0.1, "foo")


def test_conjugate_gradient_solves_many_right_sides_and_leaves_zero_alone():
    random = torch.Generator().manual_seed(0)
    root = torch.randn(12, 12, dtype=torch.float64, generator=random)
    a = root @ root.T + torch.eye(12)
    v = torch.randn(4, 3, 4, dtype=torch.float64, generator=random)
    v[2] = 0
    x = conjugate_gradient(lambda p: (p.flatten(1) @ a).view_as(p), v, 1e-12, 100)
    torch.testing.assert_close(x.flatten(1), torch.linalg.solve(a, v.flatten(1).T).T, rtol=1e-8, atol=1e-9)
    assert (x[2] == 0).all()


def test_lissa_is_its_recursion_written_out(toy):
    training, _ = toy
    v = torch.randn(2, 5, 11, dtype=torch.float64)
    want = v.clone()
    for k in range(23):
        one = Training(
            training.features[k : k + 1],
            training.labels[k : k + 1],
            training.weight,
            training.bias,
            training.loss,
        )
        want = v + 0.99 * want - hvp(one, want) / 700
    torch.testing.assert_close(lissa(training, v, 700.0, 0.01, 1), want / 700, rtol=1e-9, atol=1e-12)


def test_lissa_over_the_whole_set_converges_to_its_damped_inverse(toy):
    training, _ = toy
    h = autograd_hessian(training)
    scale = 10 * torch.linalg.eigvalsh(h)[-1].item()  # enough that the damped H is positive definite
    v = torch.randn(1, 5, 11, dtype=torch.float64)
    found = lissa(training, v, scale, 0.2, batch=23, epochs=150)
    want = torch.linalg.solve(h + 0.2 * scale * torch.eye(55), v.flatten())
    torch.testing.assert_close(found.flatten(), want, rtol=1e-6, atol=1e-9)


def test_lissa_that_diverges_says_what_to_raise(toy):
    training, _ = toy
    with pytest.raises(UserError, match=r"LiSSA diverged .* raise influence.scale"):
        lissa(training, torch.ones(1, 5, 11, dtype=torch.float64), 1e-12, 0.0, 1, epochs=30)


def test_a_head_too_large_for_a_matrix_is_refused():
    from deconfuse.loss.proxynca import ProxyNCA

    training = Training(
        torch.zeros(2, 2000),
        torch.zeros(2, dtype=torch.long),
        torch.zeros(3, 2000),
        torch.zeros(3),
        ProxyNCA(1, 3),
    )
    with pytest.raises(UserError, match=r"at most 4096 weights, the head has 6000; use influence.solver=cg"):
        explicit(training)


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
    damping_of(product, torch.zeros(4, 6, dtype=torch.float64), 0.005, "relative")
    assert "indefinite" in capsys.readouterr().err


def test_conjugate_gradient_is_never_worse_than_nothing_on_an_indefinite_matrix():
    product = indefinite(torch.linspace(-3, 20, 24, dtype=torch.float64))
    v = torch.randn(9, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = conjugate_gradient(product, v, 1e-10, 50)
    assert ((product(x) - v).norm(dim=(1, 2)) <= v.norm(dim=(1, 2)) * (1 + 1e-12)).all()
