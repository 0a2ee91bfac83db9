"""SoftTriple (Qian et al., ICCV 2019, eq. 6-8 and 11)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from deconfuse.system.errors import at_least, count


class SoftTriple(nn.Module):
    """`centres` learnt proxies per class, softly assigned.

        S_c(z)  = sum_k softmax_k(cos(e, w_ck) / gamma) cos(e, w_ck)
        l(z, y) = -log softmax_c( la (S_c - margin [c = y]) )_y

    With one centre per class S_c is the cosine. Proxy row c * centres + k is centre k of class c.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        centres: int = 1,
        la: float = 20.0,
        gamma: float = 0.1,
        tau: float = 0.2,
        margin: float = 0.01,
    ):
        super().__init__()
        count("loss.centres", centres, 1)
        at_least("loss.gamma", gamma, 1e-6)
        for key, value in (("la", la), ("tau", tau), ("margin", margin)):
            at_least(f"loss.{key}", value, 0)
        self.num_classes, self.centres = num_classes, centres
        self.la, self.gamma, self.tau, self.margin = la, gamma, tau, margin
        self.proxies = nn.Parameter(torch.empty(num_classes * centres, embedding_size))
        nn.init.kaiming_uniform_(self.proxies, a=5**0.5)

    def from_cosine(self, cosine: Float[Tensor, "n ck"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The loss per sample (nats, >= 0) from cosines to the proxies."""
        if self.centres > 1:
            each = cosine.unflatten(-1, (self.num_classes, self.centres))  # (n, c, k)
            cosine = (F.softmax(each / self.gamma, dim=-1) * each).sum(-1)  # (n, c)
        shift = self.margin * F.one_hot(y, self.num_classes).to(cosine.dtype)
        return F.cross_entropy(self.la * (cosine - shift), y, reduction="none")

    def softmax(self) -> tuple[float, float] | None:
        """(a, b) of l = -log softmax_j(a (cos_j - b [j = y]))_y; None with several centres per class."""
        return (self.la, self.margin) if self.centres == 1 else None

    def forward(self, z: Float[Tensor, "n m"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The loss per sample (nats, >= 0) of embeddings z, normalised here."""
        cosine = F.normalize(z, dim=-1) @ F.normalize(self.proxies, dim=-1).T
        return self.from_cosine(cosine, y)

    def regulariser(self) -> Tensor:
        """Eq. 11: tau times the mean distance between centres of one class, which merges unused centres.

        The mean of sqrt(2 - 2 w_ck . w_cl) over the c k (k-1)/2 pairs, as the authors scale it,
        divided by two; 1e-5 keeps the derivative of the root finite if two centres coincide.
        """
        if self.centres == 1 or self.tau == 0:
            return self.proxies.new_zeros(())
        w = F.normalize(self.proxies, dim=-1).unflatten(0, (self.num_classes, self.centres))
        cosine = w @ w.transpose(1, 2)  # (c, k, k)
        i, j = torch.triu_indices(self.centres, self.centres, offset=1)
        distances = (2 + 1e-5 - 2 * cosine[:, i, j]).clamp_min(0).sqrt()
        return self.tau * distances.sum() / (self.num_classes * self.centres * (self.centres - 1))
