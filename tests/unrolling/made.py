"""A small training of a head in float64, described step by step, and what it is compared with."""

import torch

from deconfuse.loss.proxyanchor import ProxyAnchor
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.loss.softtriple import SoftTriple
from deconfuse.retrieval.confusion import distance
from deconfuse.unrolling.batch_loss import Weighted
from deconfuse.unrolling.descent import Descent
from deconfuse.unrolling.optimizers import SGD, Adam, LookAhead

N, D, M, C = 23, 7, 5, 4
LOSSES = {
    "proxynca": lambda: ProxyNCA(C, M),
    "softtriple": lambda: SoftTriple(C, M),
    "softtriple3": lambda: SoftTriple(C, M, centres=3),
    "proxyanchor": lambda: ProxyAnchor(C, M, alpha=4.0),
}
OPTIMIZERS = {
    "sgd": SGD(0.05),
    "momentum": SGD(0.05, momentum=0.9, decay=0.01),
    "dampened": SGD(0.05, momentum=0.8, dampening=0.3),
    "nesterov": SGD(0.05, momentum=0.9, nesterov=True),
    "adam": Adam(0.02, (0.9, 0.99), 1e-3, 0.05, False),
    "adamw": Adam(0.02, (0.9, 0.999), 1e-8, 0.5, True),
    "lookahead": LookAhead(0.05, 0.9),
}
PAIRS = torch.tensor([[0, 1], [2, 3], [4, 5]])


def made(loss="proxynca", optimizer="momentum", steps=11, every_moves=True, batch=6, pull=0.3):
    """(a descent of some batches, in which a row may occur twice; test features)."""
    draw = torch.Generator().manual_seed(5)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    module = LOSSES[loss]().double().requires_grad_(False)
    for value in module.parameters():
        value.copy_(normal(*value.shape))
    labels = torch.arange(N) % C
    start = {"weight": normal(M, D) / 2, "bias": normal(M) / 3}
    moves = {"weight": OPTIMIZERS[optimizer]}
    by_batch = every_moves and hasattr(module, "of_batch")
    if every_moves:
        start["loss.proxies"] = module.proxies.detach().clone()
        moves = dict.fromkeys(start, OPTIMIZERS[optimizer])
    batches = tuple(torch.randint(0, N - 2, (batch,), generator=draw) for _ in range(steps))
    factors = tuple(1 - 0.5 * t / steps for t in range(steps))
    weighted = Weighted(module, by_batch, every_moves)
    return Descent(normal(N, D), labels, weighted, start, moves, batches, factors, pull), normal(6, D)


def distances(parameters, test):
    """d of PAIRS at the parameters (h, ...): (h, 3)."""
    z = test @ parameters["weight"].transpose(1, 2) + parameters["bias"][:, None]
    return distance(z[:, PAIRS[:, 0]], z[:, PAIRS[:, 1]])


def slopes(descent, parameters, test):
    """The gradient of each d in the parameters that move, by autograd: (3, ...) each."""
    names = list(descent.optimizers)
    values = {name: value[0].clone().requires_grad_(name in names) for name, value in parameters.items()}
    d = distances({name: value[None] for name, value in values.items()}, test)[0]
    rows = [
        torch.autograd.grad(one, [values[n] for n in names], retain_graph=True, allow_unused=True)
        for one in d
    ]
    return {
        name: torch.stack([torch.zeros_like(values[name]) if row[i] is None else row[i] for row in rows])
        for i, name in enumerate(names)
    }
