"""No backbone: the data set's rows are the features, or the embeddings of a finished model."""

from jaxtyping import Float
from torch import Tensor, nn


class Identity(nn.Module):
    """rows (B, in_features) -> the same (B, D), D = in_features. It has no weights.

    embeds: the rows are also the embeddings, so the head is fixed at W = 1, b = 0; only proxies are trained.
    """

    def __init__(self, in_features: int, embeds: bool = False):
        super().__init__()
        self.num_features, self.embeds = in_features, embeds
        self.last_block: list[str] = []

    def forward(self, rows: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Features before the linear head."""
        return rows
