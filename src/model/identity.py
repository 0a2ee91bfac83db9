"""No backbone at all: the data set's rows are the features, and only head and proxies are trained."""

from jaxtyping import Float
from torch import Tensor, nn


class Identity(nn.Module):
    """rows (B, in_features) -> the same (B, D), D = in_features. It has no weights."""

    def __init__(self, in_features: int):
        super().__init__()
        self.num_features = in_features
        self.last_block: list[str] = []

    def forward(self, rows: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Features before the linear head."""
        return rows
