"""A training of the head on fixed features, described step by step, so that it can be repeated and reversed.

Step t moves every parameter by its optimizer along the gradient of the loss of batch t,

    L_t = sum_k w_k l(W phi_k + b, y_k; P) / B  (+ the loss's regulariser + pull ||W - W_0||^2)

with a weight w_k for each training sample, 1 in the training as it was. Of the parameters W (`weight`), b
(`bias`) and the loss's own (`loss.proxies`), those without an optimizer stay as they are. Where the start is
computed from the samples, it is a function of their weights too.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deconfuse.frozen.weighted_start import WeightedStart
from deconfuse.unrolling.batch_loss import Parameters, Weighted, slopes
from deconfuse.unrolling.optimizers import Optimizer, State

States = dict[str, State]  # of each parameter that moves, with a leading dimension of heads


@dataclass(frozen=True)
class Descent:
    """A start, T batches of rows, and how each parameter moves.

    start: all parameters, by name; optimizers: of those that move; batches: rows of the training set, where a
    row may occur twice; factors: of all rates, by step; pull: of ||W - W_0||^2 in the loss, nats; begun: how
    the start follows from the samples' weights, None where it does not.
    """

    features: Float[Tensor, "n D"]
    labels: Int[Tensor, " n"]
    weighted: Weighted
    start: Parameters
    optimizers: Mapping[str, Optimizer]
    batches: tuple[Int[Tensor, " _"], ...]
    factors: tuple[float, ...]
    pull: float = 0.0
    begun: WeightedStart | None = None

    def __len__(self) -> int:
        return len(self.batches)

    @cached_property
    def every(self) -> int:
        """The number of steps between the states that are kept: sqrt(T), rounded up."""
        return max(1, math.isqrt(max(0, len(self) - 1)) + 1) if len(self) else 1

    @cached_property
    def first_seen(self) -> Int[Tensor, " D"]:
        """The first step whose batch has a feature that is not 0, for each feature; T where none has."""
        result = torch.full_like(self.start["weight"][0], len(self), dtype=torch.int64)
        for t in reversed(range(len(self))):
            _, phi, _ = self.batch(t)
            result[phi.any(0)] = t
        return result

    def batch(self, t: int) -> tuple[Int[Tensor, " B"], Float[Tensor, "B D"], Int[Tensor, " B"]]:
        """(rows, features, labels) of a batch, on the device of W."""
        rows, there = self.batches[t], self.start["weight"].device
        return (
            rows.to(there),
            self.features[rows.to(self.features.device)].to(there),
            self.labels[rows.to(there)],
        )

    def starts(self, weights: Float[Tensor, "h n"]) -> Parameters:
        """The parameters of h heads before the first step, (h, ...), each with its weights on the samples."""
        h = len(weights)
        found = {name: value.expand(h, *value.shape) for name, value in self.start.items()}
        return found | (self.begun(weights) if self.begun else {})

    def begin(self, starts: Parameters | None = None) -> States:
        """The states before the first step, of heads that start there; by default of one head at `start`."""
        starts = starts or {name: value[None] for name, value in self.start.items()}
        return {name: optimizer.begin(starts[name].clone()) for name, optimizer in self.optimizers.items()}

    def point(self, states: States) -> Parameters:
        """Where the gradients of a step are taken, with a leading dimension of heads."""
        return {name: optimizer.at(states[name]) for name, optimizer in self.optimizers.items()}

    def embeddings(self, point: Parameters, phi: Float[Tensor, "B D"]) -> Float[Tensor, "h B m"]:
        """z = W phi + b of each head."""
        weight = point.get("weight", self.start["weight"][None])
        bias = point.get("bias", self.start["bias"][None])
        h, m, _ = weight.shape
        z = (phi @ weight.flatten(0, 1).T).view(len(phi), h, m).transpose(0, 1)
        return z + bias[:, None]

    def gradients(
        self,
        point: Parameters,
        phi: Float[Tensor, "B D"],
        of_z: Float[Tensor, "h B m"],
        own: Parameters,
        held: Float[Tensor, "h m D"] | None = None,
    ) -> Parameters:
        """The gradient of each parameter that moves, from L's slopes in z and in the loss's own.

        held: each head's W_0; by default the one of `start`.
        """
        held = self.start["weight"] if held is None else held
        moved = {"weight": point["weight"] - held} if "weight" in point else {}
        return self.spread(point | moved, phi, of_z, own)

    def spread(
        self, along: Parameters, phi: Float[Tensor, "B D"], of_z: Float[Tensor, "h B m"], own: Parameters
    ) -> Parameters:
        """Rows of z as W and b, with the pull's part 2 pull `along` for W; the loss's own as they are."""
        found = dict(own)
        if "weight" in along:
            found["weight"] = of_z.transpose(1, 2) @ phi
            if self.pull:
                found["weight"].add_(along["weight"], alpha=2 * self.pull)
        if "bias" in along:
            found["bias"] = of_z.sum(1)
        return found

    def step(
        self,
        t: int,
        states: States,
        weights: Float[Tensor, "h n"],
        held: Float[Tensor, "h m D"] | None = None,
    ) -> States:
        """The states of h heads after step t, counted from 0, each with its weights on the samples.

        held: each head's W_0; by default the one of `start`.
        """
        rows, phi, labels = self.batch(t)
        point = self.point(states)
        z = self.embeddings(point, phi)
        h = max((len(each) for each in point.values()), default=1)
        found = slopes(self.weighted, labels, z.expand(h, -1, -1), of_loss(point), weights[:, rows])
        gradients = self.gradients(point, phi, found.z, found.moving, held)
        return {
            name: optimizer.step(states[name], gradients[name], self.factors[t], t + 1)
            for name, optimizer in self.optimizers.items()
        }

    def ones(self) -> Float[Tensor, "1 n"]:
        """The weights of the training as it was."""
        like = self.start["weight"]
        return torch.ones(1, len(self.labels), dtype=like.dtype, device=like.device)


def of_loss(parameters: Parameters) -> Parameters:
    """Those parameters that are the loss's own."""
    return {name: value for name, value in parameters.items() if name.startswith("loss.")}


def train(descent: Descent, weights: Float[Tensor, "h n"]) -> Parameters:
    """All parameters (h, ...) after the last step, one head for each row of weights."""
    starts = descent.starts(weights)
    states = descent.begin(starts)
    for t in range(len(descent)):
        states = descent.step(t, states, weights, starts["weight"])
    return ends(descent, states)


def ends(descent: Descent, states: States) -> Parameters:
    """All parameters with the states' leading dimension, those that stay with one of 1."""
    return {name: states[name][0] if name in states else value[None] for name, value in descent.start.items()}


def checkpoints(descent: Descent) -> tuple[list[States], States]:
    """(the states before every `descent.every`-th step, those after the last)."""
    states, weights, kept = descent.begin(), descent.ones(), []
    for t in range(len(descent)):
        if t % descent.every == 0:
            kept.append(states)
        states = descent.step(t, states, weights)
    return kept, states
