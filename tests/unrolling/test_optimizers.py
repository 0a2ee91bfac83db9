from functools import partial

import pytest
import torch

from deconfuse.system.errors import UserError
from deconfuse.unrolling.optimizers import SGD, Adam, LookAhead, optimizer_of

MAKES = {
    "sgd": partial(torch.optim.SGD, lr=0.1),
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.2),
    "dampened": partial(torch.optim.SGD, lr=0.1, momentum=0.9, dampening=0.4),
    "nesterov": partial(torch.optim.SGD, lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.1),
    "adam": partial(torch.optim.Adam, lr=0.03),
    "adam with decay": partial(torch.optim.Adam, lr=0.03, weight_decay=0.3, betas=(0.8, 0.95)),
    "adamw": partial(torch.optim.AdamW, lr=0.03, weight_decay=0.4, eps=1e-3),
}
EACH = {name: optimizer_of(make, "recipe.optimizer") for name, make in MAKES.items()} | {
    "lookahead": LookAhead(0.1, 0.9)
}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", MAKES)
def test_steps_are_torchs(name):
    """Six steps with rates that fall, the gradients of a curved function."""
    theta = torch.nn.Parameter(draw(3, 4))
    optimizer, state = MAKES[name]([theta]), EACH[name].begin(theta.detach().clone())
    rate = optimizer.param_groups[0]["lr"]
    for t in range(6):
        optimizer.param_groups[0]["lr"] = rate * (1 - t / 10)
        theta.grad = theta.detach() ** 3 + draw(3, 4, seed=t)
        gradient = state[0] ** 3 + draw(3, 4, seed=t)
        optimizer.step()
        state = EACH[name].step(state, gradient, 1 - t / 10, t + 1)
        torch.testing.assert_close(state[0], theta.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("t", [1, 2, 9])
@pytest.mark.parametrize("name", EACH)
def test_back_is_autograds_derivative_of_a_step(name, t):
    """With g a function of where it is taken, as a Hessian A: 5 adjoints side by side."""
    optimizer = EACH[name]
    count = len(optimizer.begin(draw(3, 4)))
    state = tuple((draw(3, 4, seed=i).abs() if i == 2 else draw(3, 4, seed=i)) for i in range(count))
    after_ = tuple(draw(5, 3, 4, seed=10 + i) for i in range(count))
    a = draw(12, 12, seed=20)
    a = a + a.T

    def step(*state):
        g = (optimizer.at(state).flatten() @ a).view(3, 4) + draw(3, 4, seed=30)
        return optimizer.step(state, g, 0.7, t)

    want = [
        torch.stack(parts)
        for parts in zip(
            *(torch.func.vjp(step, *state)[1](tuple(x[k] for x in after_)) for k in range(5)), strict=True
        )
    ]
    found = tuple(x.clone() for x in after_)
    g = (optimizer.at(state).flatten() @ a).view(3, 4) + draw(3, 4, seed=30)
    g_ = optimizer.back(state, g, 0.7, t, found)
    optimizer.receive(found, (g_.flatten(1) @ a).view(5, 3, 4))
    for mine, theirs in zip(found, want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_weights_without_any_gradient_have_finite_adjoints():
    optimizer, zero = Adam(0.1, (0.9, 0.999), 1e-8, 0.0, False), torch.zeros(2, 3)
    adjoint = tuple(torch.ones(4, 2, 3) for _ in range(3))
    g_ = optimizer.back(optimizer.begin(zero), zero, 1.0, 1, adjoint)
    assert torch.isfinite(g_).all()
    assert all(torch.isfinite(each).all() for each in adjoint)


def test_the_values_of_a_group_count_before_the_partials():
    make = partial(torch.optim.AdamW, lr=0.1, weight_decay=0.4)
    assert optimizer_of(make, "k", lr=0.5, weight_decay=0.0) == Adam(0.5, (0.9, 0.999), 1e-8, 0.0, True)
    assert optimizer_of(partial(torch.optim.SGD, lr=1e-3), "k") == SGD(1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(torch.optim.RMSprop, lr=1), "goes back through Adam, AdamW and SGD, and k is RMSprop"),
        (partial(torch.optim.Adam, lr=1, amsgrad=True), "does not go back through k.amsgrad=true"),
        (partial(torch.optim.SGD, lr=1, maximize=True), "does not go back through k.maximize=true"),
    ],
)
def test_other_optimizers_are_refused_in_one_line(make, message):
    with pytest.raises(UserError, match=message):
        optimizer_of(make, "k")
