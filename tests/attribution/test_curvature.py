import pytest
import torch

from deconfuse.attribution.curvature import (
    bend_of,
    explicit,
    gradient_z,
    hvp,
    sample_gradients,
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


def test_a_head_too_large_for_a_matrix_is_refused():
    from deconfuse.loss.proxynca import ProxyNCA

    training = Training(
        torch.zeros(2, 2000),
        torch.zeros(2, dtype=torch.long),
        torch.zeros(3, 2000),
        torch.zeros(3),
        ProxyNCA(1, 3),
    )
    with pytest.raises(
        UserError, match=r"at most 4096 weights, the head has 6000; use influence.solver.kind=cg"
    ):
        explicit(training)
