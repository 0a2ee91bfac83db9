"""What every loss must satisfy for influence and detectors: two ways to the same numbers, each."""

import torch
from torch import nn

from deconfuse.attribution.curvature import bend_of, gradient_z, hvp
from deconfuse.attribution.head import Targets, Training, loss_change
from deconfuse.detector import loss as loss_detector
from deconfuse.detector import margin, self_influence
from deconfuse.influence import eif, ekfac, influence_function, tracin, unrolled
from deconfuse.influence.influence_function import Solver
from deconfuse.labels.relabel import vote


class OnlyForward(nn.Module):
    """A loss without its shortcuts."""

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.inner = loss

    def forward(self, z, y):
        return self.inner(z, y)


def small(loss: nn.Module, c: int) -> tuple[Training, Targets]:
    """A training side of n 23, D 11, m 5 with c classes, in float64, and three pairs to explain."""
    random = torch.Generator().manual_seed(7)

    def draw(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    for parameter in loss.double().parameters():
        parameter.data = draw(*parameter.shape)
    labels = torch.randint(0, c, (23,), generator=random)
    training = Training(draw(23, 11), labels, draw(5, 11) / 3, draw(5) / 3, loss.requires_grad_(False))
    test = draw(6, 11)
    return training, Targets.pairs(test, test, torch.arange(6).view(3, 2))


def with_weight(training: Training, weight: torch.Tensor) -> Training:
    return Training(training.features, training.labels, weight, training.bias, training.loss)


def check(loss: nn.Module, c: int) -> None:
    """All of it, for a loss of c classes on embeddings of 5."""
    training, targets = small(loss, c)
    plain = Training(
        training.features, training.labels, training.weight, training.bias, OnlyForward(training.loss)
    )
    random = torch.Generator().manual_seed(8)

    def draw(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    # Every loss after a move of W, and before it.
    torch.testing.assert_close(training.losses, loss(training.z, training.labels), rtol=1e-10, atol=1e-11)
    sides, move = draw(3, 2, 11), draw(3, 2, 5) / 10
    moved = [with_weight(training, training.weight + a.T @ u) for u, a in zip(sides, move, strict=True)]
    want = torch.stack([loss(one.z, one.labels) for one in moved]) - training.losses
    torch.testing.assert_close(loss_change(training, sides, move), want, rtol=1e-8, atol=1e-9)

    # The gradient in z, by central differences; a row's loss depends on no other row.
    step = 1e-6
    gradient = gradient_z(training, training.z)
    for j in range(5):
        shift = torch.zeros(5, dtype=torch.float64)
        shift[j] = step
        up, down = (loss(training.z + sign * shift, training.labels) for sign in (1, -1))
        torch.testing.assert_close(gradient[:, j], (up - down) / (2 * step), rtol=1e-5, atol=1e-7)

    # A product with the Hessian, by central differences of the gradient in W.
    v = draw(1, 5, 11)

    def slope(weight):
        one = with_weight(training, weight)
        return gradient_z(one, one.z).T @ one.features / len(one)

    want = (slope(training.weight + step * v[0]) - slope(training.weight - step * v[0])) / (2 * step)
    torch.testing.assert_close(hvp(training, v)[0], want, rtol=1e-5, atol=1e-6)
    bend = bend_of(training)
    if bend is not None:
        torch.testing.assert_close(hvp(training, v, bend), hvp(training, v), rtol=1e-9, atol=1e-10)

    # The methods: with the loss's shortcuts, and without.
    for method in (eif.scores, tracin.scores, unrolled.scores):
        torch.testing.assert_close(method(training, targets), method(plain, targets), rtol=1e-7, atol=1e-9)
    by_cg, by_matrix = (
        influence_function.scores(side, targets, solver=Solver(kind, 1e-12, 300), damping=2.0)
        for side, kind in ((training, "cg"), (plain, "explicit"))
    )
    torch.testing.assert_close(by_cg, by_matrix, rtol=1e-6, atol=1e-8 * by_matrix.abs().max().item())
    for found in (by_cg, ekfac.scores(training, targets)):
        assert torch.isfinite(found).all()
        assert (found != 0).any(1).all()

    # The detectors.
    votes = vote(nn.functional.normalize(training.z), training.labels, 3)
    torch.testing.assert_close(loss_detector.suspicion(training, by_cg, votes), training.losses)
    assert (self_influence.suspicion(training, by_cg, votes) > 0).all()
    proxies = nn.functional.normalize(loss.proxies, dim=1)
    each = len(proxies) // c
    for k, found in enumerate(margin.suspicion(training, by_cg, votes)):
        cosine = proxies @ training.z[k] / training.z[k].norm()
        near = [cosine[j * each : (j + 1) * each].max() for j in range(c)]
        own = near.pop(int(training.labels[k]))
        torch.testing.assert_close(found, max(near) - own)
