import torch

from deconfuse.unrolling.full_batch import descend, retrain, stable_rate


def test_it_is_nesterovs_descent_written_out_with_autograd(toy):
    training, _ = toy
    share = torch.rand(23, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight, velocity = training.weight, 0
    for _ in range(7):
        leaf = (weight + 0.9 * velocity).clone().requires_grad_()
        losses = training.loss(training.features @ leaf.T + training.bias, training.labels)
        (slope,) = torch.autograd.grad((share * losses).sum(), leaf)
        velocity = 0.9 * velocity - 0.01 * slope
        weight = weight + velocity
    before = training.weight.clone()
    torch.testing.assert_close(retrain(training, share, 7, 0.01), weight, rtol=1e-10, atol=1e-12)
    assert torch.equal(training.weight, before)


def test_it_converges_to_the_minimum_of_a_convex_problem(toy_convex):
    """Descent on the mean loss from the regularised minimum brings the mean loss further down, never up."""
    training, _, _ = toy_convex
    share = torch.full((40,), 1 / 40, dtype=torch.float64)
    losses = [
        (share * training.loss(training.features @ weight.T + training.bias, training.labels)).sum().item()
        for weight in (retrain(training, share, steps, 0.5) for steps in (0, 10, 100))
    ]
    assert losses[0] > losses[1] > losses[2]


def test_with_a_stable_rate_the_loss_never_rises(toy_convex):
    training, _, _ = toy_convex
    share = torch.full((40,), 1 / 40, dtype=torch.float64)

    def rises(rate):
        losses = torch.stack(
            [
                (share * training.loss(training.features @ weight.T + training.bias, training.labels)).sum()
                for weight in descend(training, share, 30, rate)
            ]
        )
        return bool((losses.diff() > 1e-6 * losses[:-1]).any())

    assert rises(30.0)
    rate = stable_rate(training, share, 30, 1 / 30.0)
    assert rate < 30
    assert not rises(rate)
    assert rises(2 * rate)
