"""No backbone: the data set's rows are the features, or the embeddings of a finished model."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Identity(nn.Module):
    """rows (B, in_features) -> the same (B, D), D = in_features. It has no weights.

    embeds: the rows are also the embeddings, so the head is fixed at W = 1, b = 0; only proxies are trained.
    Only their directions count then, so each row is multiplied by the power of two that brings its largest
    number into [1/2, 1): that changes no direction and rounds nothing, and squares neither over- nor
    underflow.
    """

    def __init__(self, in_features: int, embeds: bool = False):
        super().__init__()
        self.num_features, self.embeds = in_features, embeds
        self.last_block: list[str] = []

    def forward(self, rows: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Features before the linear head."""
        return _scaled(rows) if self.embeds else rows


def _scaled(rows: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    _, exponent = torch.frexp(rows.abs().amax(1, keepdim=True))
    half = exponent // 2  # in two steps: 2^-exponent may be beyond the type's largest number
    return torch.ldexp(torch.ldexp(rows, -half), half - exponent)
