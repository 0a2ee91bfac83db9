"""The loss of a batch as a function of embeddings, the loss's parameters and the samples' weights.

    L(z, P, w) = sum_k w_k l(z_k, y_k; P) / B

With all weights 1 it is what training minimises.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

Parameters = dict[str, Tensor]


class Weighted(nn.Module):
    """L of a loss; by_batch: of its `of_batch`, which takes the weights; regular: with its regulariser."""

    def __init__(self, loss: nn.Module, by_batch: bool = False, regular: bool = False):
        super().__init__()
        self.loss, self.by_batch, self.regular = loss, by_batch, regular

    def forward(
        self, z: Float[Tensor, "B m"], labels: Int[Tensor, " B"], weights: Float[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """L, nats."""
        if self.by_batch:
            value = self.loss.of_batch(z, labels, weights)
        else:
            value = (weights * self.loss(z, labels)).sum() / len(weights)
        return value + self.loss.regulariser() if self.regular else value


@dataclass(frozen=True)
class Slopes:
    """The derivatives of L in z, and in those of the loss's parameters that move, by name."""

    z: Float[Tensor, "*h B m"]
    moving: Parameters


def _slopes(
    weighted: Weighted, labels: Int[Tensor, " B"], z: Tensor, moving: Parameters, w: Tensor
) -> tuple[Tensor, Parameters]:
    def value(z: Tensor, moving: Parameters) -> Tensor:
        return torch.func.functional_call(weighted, moving, (z, labels, w))

    return torch.func.grad(value, argnums=(0, 1))(z, moving)


def slopes(
    weighted: Weighted,
    labels: Int[Tensor, " B"],
    z: Float[Tensor, "h B m"],
    moving: Parameters,
    weights: Float[Tensor, "h B"],
) -> Slopes:
    """The derivatives of h losses at once, each with parameters (h, ...) and weights of its own."""

    def one(z: Tensor, moving: Parameters, w: Tensor) -> tuple[Tensor, Parameters]:
        return _slopes(weighted, labels, z, moving, w)

    return Slopes(*torch.func.vmap(one)(z, moving, weights))


@dataclass(frozen=True)
class Products:
    """K directions times the second derivative of L: the rows of z, of the parameters and of the weights.

    weights (K, B): the derivative in each sample's weight of the first derivative along the direction, which
    is <dl_k, direction> / B for a mean of losses.
    """

    z: Float[Tensor, "K B m"]
    moving: Parameters
    weights: Float[Tensor, "K B"]


def linearised(
    weighted: Weighted, labels: Int[Tensor, " B"], z: Float[Tensor, "B m"], moving: Parameters
) -> tuple[Slopes, Callable[[Float[Tensor, "K B m"], Parameters], Products]]:
    """(the slopes of L with all weights 1; directions -> the second derivative times each of them).

    The matrix of second derivatives is symmetric, so that one backward pass through the slopes, vectorised
    over the K directions, has all its products.
    """
    ones = torch.ones(len(labels), dtype=z.dtype, device=z.device)

    def slope(z: Tensor, moving: Parameters, w: Tensor) -> tuple[Tensor, Parameters]:
        return _slopes(weighted, labels, z, moving, w)

    found, pull = torch.func.vjp(slope, z, moving, ones)
    return Slopes(*found), lambda s, along: Products(*torch.func.vmap(pull)((s, along)))
