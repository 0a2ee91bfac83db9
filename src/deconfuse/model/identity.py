"""No backbone at all: the data set's rows are the features, or the embeddings of a finished model."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

USUAL = 16  # rows whose largest number is between 2^-USUAL and 2^USUAL stay as they are


class Identity(nn.Module):
    """rows (B, in_features) -> the same (B, D), D = in_features. It has no weights.

    embeds: the rows are the embeddings too, so the head is W = 1, b = 0 and stays; only proxies are trained.
    Only their directions count then, so a row of very small or very large numbers is scaled by a power of
    two, after which its squares are numbers of its type; that changes no direction and rounds nothing.
    """

    def __init__(self, in_features: int, embeds: bool = False):
        super().__init__()
        self.num_features, self.embeds = in_features, embeds
        self.last_block: list[str] = []

    def forward(self, rows: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Features before the linear head."""
        return _usual(rows) if self.embeds else rows


def _usual(rows: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    """Each row with its largest number in [1/2, 1), where that was not between 2^-USUAL and 2^USUAL."""
    largest = rows.abs().amax(1, keepdim=True)
    _, exponent = torch.frexp(largest)
    exponent = torch.where(exponent.abs() > USUAL, exponent, 0)
    half = exponent // 2  # in two steps: 2^-exponent may be beyond the type's largest number
    return torch.ldexp(torch.ldexp(rows, -half), half - exponent)
