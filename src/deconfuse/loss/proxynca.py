"""Proxy-NCA++ (Teh et al., ECCV 2020, eq. 3 with temperature 1/scale^2)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from deconfuse.system.errors import at_least


class ProxyNCA(nn.Module):
    """One learnt proxy per class; the loss is cross-entropy on negative squared distances.

        l(z, y) = -log softmax_j( -||s e - s p_j||^2 )_y,   e = z/||z||, p_j normalised

    As e and p_j have length 1, ||s e - s p_j||^2 = 2 s^2 - 2 s^2 cos(e, p_j): the logits are 2 s^2 cos plus a
    constant, which does not change the softmax.
    """

    def __init__(self, num_classes: int, embedding_size: int, scale: float = 3.0):
        super().__init__()
        self.scale = at_least("loss.scale", scale, 0)
        self.proxies = nn.Parameter(torch.randn(num_classes, embedding_size) / 8)

    def from_cosine(self, cosine: Float[Tensor, "n c"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The loss per sample (nats, >= 0) from cosines to the proxies."""
        return F.cross_entropy(2 * self.scale**2 * cosine, y, reduction="none")

    def softmax(self) -> tuple[float, float]:
        """(a, b) of l = -log softmax_j(a (cos_j - b [j = y]))_y, which has closed-form derivatives."""
        return 2 * self.scale**2, 0.0

    def forward(self, z: Float[Tensor, "n m"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The loss per sample (nats, >= 0) of embeddings z, normalised here."""
        cosine = F.normalize(z, dim=-1) @ F.normalize(self.proxies, dim=-1).T
        return self.from_cosine(cosine, y)

    def regulariser(self) -> Tensor:
        """What is added to the mean loss in training: 0."""
        return self.proxies.new_zeros(())
