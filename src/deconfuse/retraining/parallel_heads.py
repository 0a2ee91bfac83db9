"""Many heads trained at once on the same batches, each with its own weights on the training samples (Eq. 7).

Each head h of g starts at the trained W, and its loss on a batch of B samples is

    L_h = sum_k w_hk l(z_hk, y_k) / B,   z_hk = W_h phi_k + b

with bias, backbone and proxies frozen. The batch phi (B, D) is shared, so the heads, stacked as (g, m, D),
cost one product (B, D) x (D, g m) forward, the derivative of B g losses in their z, and one product
(g m, B) x (B, D) back, in place of 2 g small ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from deconfuse.attribution.head import Sides, Training
from deconfuse.retrieval.confusion import mean_distance

CHUNK_BYTES = 512 * 2**20  # of heads held at once, with their gradients and the optimizer's states


@dataclass(frozen=True)
class Heads:
    """g heads in training, and what they share; the optimizer changes `weight` in place.

    sample_weights (g, n): w >= 0 of every training sample for each head; parameters: the g heads as views of
    weight, whose .grad are views of gradient, so that an optimizer treats each head as a parameter.
    """

    weight: Float[Tensor, "g m D"]
    gradient: Float[Tensor, "g m D"]
    bias: Float[Tensor, " m"]
    loss: nn.Module
    sample_weights: Float[Tensor, "g n"]
    parameters: tuple[nn.Parameter, ...]

    @classmethod
    def start(
        cls, training: Training, sample_weights: Float[Tensor, "g n"], device: torch.device | str = "cpu"
    ) -> "Heads":
        """A copy of the trained head for each row of sample_weights; training is not modified."""
        weight = training.weight.detach().to(device).repeat(len(sample_weights), 1, 1)
        gradient = torch.zeros_like(weight)
        parameters = tuple(nn.Parameter(each) for each in weight)
        for parameter, slope in zip(parameters, gradient, strict=True):
            parameter.grad = slope
        weights = sample_weights.to(weight)
        return cls(weight, gradient, training.bias.detach().to(device), training.loss, weights, parameters)

    def optimizer(self, make: Callable[..., torch.optim.Optimizer]) -> torch.optim.Optimizer:
        """The optimizer of all heads; `make` takes a list of parameters.

        On a CPU the fused form is used if the optimizer has one and `make` does not choose a form: fused Adam
        reads memory once instead of ten times, which halves the time of a batch (scripts/bench_retrain.py).
        """
        chosen = {"fused", "foreach", "capturable", "differentiable"} & getattr(make, "keywords", {}).keys()
        fused = (
            "fused" in signature(getattr(make, "func", make)).parameters
            and not chosen
            and self.weight.device.type == "cpu"
        )
        return make(list(self.parameters), **({"fused": True} if fused else {}))

    def learn(
        self,
        optimizer: torch.optim.Optimizer,
        phi: Float[Tensor, "B D"],
        labels: Int[Tensor, " B"],
        rows: Int[Tensor, " B"],
    ) -> float:
        """One step on a batch; rows: of the training set.

        Returns the mean of L_h before the step (nats, >= 0).
        """
        weights = self.sample_weights[:, rows].T  # (B, g)

        def closure() -> float:
            z = (phi @ self.weight.flatten(0, 1).T).unflatten(1, self.weight.shape[:2]) + self.bias
            value, slope = value_and_slope(self.loss, z, labels, weights)
            torch.mm(slope.flatten(1).T, phi, out=self.gradient.flatten(0, 1))
            return value.mean().item()

        return float(optimizer.step(closure))

    def distances(self, sides: Sides) -> Float[Tensor, " g"]:
        """d of each head's group, times the targets' sign, at the head; sides: one group per head."""
        z = sides.features.to(self.weight) @ self.weight.mT + self.bias
        return mean_distance(z, sides.share.to(z)).cpu()


def value_and_slope(
    loss: nn.Module, z: Float[Tensor, "B g m"], labels: Int[Tensor, " B"], weights: Float[Tensor, "B g"]
) -> tuple[Float[Tensor, " g"], Float[Tensor, "B g m"]]:
    """(L_h = sum_k w_hk l_hk / B, dL_h/dz_h) of each head."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        each = loss(z.flatten(0, 1), labels.repeat_interleave(z.shape[1])).view_as(weights)
        value = (weights * each).sum(0) / len(weights)
        (slope,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), slope


def chunk_size(training: Training, batch: int, budget: int = CHUNK_BYTES) -> int:
    """The number of heads that are trained at once, such that they fit into `budget` bytes.

    A head takes W, its gradient and two states of the optimizer, and a batch's embeddings and logits with
    their derivatives.
    """
    m, features = training.weight.shape
    wide = len(training.loss.proxies) if hasattr(training.loss, "proxies") else int(training.labels.max()) + 1
    numbers = 4 * m * features + 4 * batch * (m + wide)
    return max(1, budget // (training.weight.element_size() * numbers))
