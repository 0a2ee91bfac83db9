"""The whitened start of head and proxies as a function of the samples' weights, forwards and in reverse."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.frozen import start_derivative
from deconfuse.frozen.start import class_means, placed
from deconfuse.frozen.start_derivative import Adjoints, Samples, Whitened
from deconfuse.frozen.whitening import scatter, whitening

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class WeightedStart:
    """Where head and proxies start if the samples have other weights.

    shrink: recipe.whiten; own: `weight`, `bias` and `loss.proxies` of the start with all weights 1. A sample
    whose weight is 0 in `samples` takes no part whatever its other weights. blur: of the derivative.
    """

    samples: Samples
    shrink: float
    own: Mapping[str, Tensor]
    blur: float = 0.0

    def __call__(self, weights: Float[Tensor, "h n"]) -> Parameters:
        """The parameters of h heads, (h, ...), of the type and on the device of `own`.

        A direction is known but for its sign: each has the one of `own`.
        """
        found = [self._one(row) for row in weights.cpu()]
        return {name: torch.stack([each[name] for each in found]).to(self.own[name]) for name in found[0]}

    def _one(self, weights: Float[Tensor, " n"]) -> Parameters:
        s, like = self.samples, self.own["weight"].cpu()
        w = s.weights * weights
        weight, bias = whitening(scatter(s.features, s.labels, w), len(like), self.shrink)
        signs = torch.where((weight * like).sum(1) < 0, -1.0, 1.0)
        weight, bias = (signs[:, None] * weight).to(like), (signs * bias).to(like)
        means = class_means(s.features, s.labels, weight, bias, s.classes, w.to(like))
        return {"weight": weight, "bias": bias, "loss.proxies": placed(s.random, means)}

    @cached_property
    def whitened(self) -> Whitened:
        """The moments and directions with all weights 1."""
        s = self.samples
        return Whitened.of(scatter(s.features, s.labels, s.weights), self.shrink, self.own["weight"].cpu())

    @property
    def gap(self) -> float:
        """How far `own` is from the start of these samples: ||W - W0|| / ||W0||."""
        weight = self.whitened.weight
        return ((self.own["weight"].cpu() - weight).norm() / weight.norm()).item()

    def weight_derivatives(self, last: Parameters) -> Float[Tensor, "K n"]:
        """dv/dw_i of K values, float64, from their derivatives (K, ...) in the parameters of the start."""
        there = {name: value.double().cpu() for name, value in last.items()}
        count = len(there["weight"])
        proxies = there.get("loss.proxies", torch.zeros(count, *self.samples.random.shape).double())
        last = Adjoints(there["weight"], there["bias"], proxies)
        return start_derivative.weight_derivatives(self.samples, self.whitened, last, self.blur)
