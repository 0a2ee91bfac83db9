"""Proxy-Anchor (Kim et al., CVPR 2020, eq. 4): its batch loss for training, a loss per sample to explain."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from deconfuse.system.errors import at_least, number


class ProxyAnchor(nn.Module):
    """One learnt proxy per class. Eq. 4 is a sum over proxies p, not over samples x; s = cos(x, p):

        L(X) = 1/|P+| sum_{p in P+} log(1 + sum_{x of p} exp(-alpha (s - margin)))
             + 1/c    sum_p         log(1 + sum_{x not of p} exp(alpha (s + margin)))

    with P+ the proxies that have a sample in the batch X. Training minimises it (`of_batch`). The loss of a
    sample must not depend on the other samples of a batch, so `forward` returns L of each sample as a batch
    of its own:

        l(z, y) = softplus(-alpha (s_y - margin)) + 1/c sum_{j != y} softplus(alpha (s_j + margin))

    The two are equal on a batch of one sample. On larger batches the derivatives of a proxy's term of L in
    the exponents of its samples sum to at most 1, and are larger for harder samples, while in l each of them
    may be up to 1; and L <= n mean(l), as log(1 + sum_i a_i) <= sum_i log(1 + a_i).
    """

    def __init__(self, num_classes: int, embedding_size: int, alpha: float = 32.0, margin: float = 0.1):
        super().__init__()
        self.alpha, self.margin = at_least("loss.alpha", alpha, 0), number("loss.margin", margin)
        self.proxies = nn.Parameter(torch.empty(num_classes, embedding_size))
        nn.init.kaiming_normal_(self.proxies, mode="fan_out")

    def from_cosine(self, cosine: Float[Tensor, "n c"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The loss per sample (nats, >= 0) from cosines to the proxies."""
        own = F.one_hot(y, cosine.shape[1]).bool()
        pull, push = self._exponents(cosine)
        # -logsigmoid(-a) is log(1 + exp(a)) to the last digit; softplus is linear beyond a = 20.
        each = -torch.where(own, cosine.shape[1] * F.logsigmoid(-pull), F.logsigmoid(-push))
        return each.mean(1)

    def forward(self, z: Float[Tensor, "n m"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The loss per sample (nats, >= 0) of embeddings z, normalised here."""
        return self.from_cosine(self._cosine(z), y)

    def of_batch(
        self, z: Float[Tensor, "n m"], y: Int[Tensor, " n"], weights: Float[Tensor, " n"] | None = None
    ) -> Float[Tensor, ""]:
        """Eq. 4 of a batch (nats, >= 0), which training minimises instead of the mean of `forward`.

        weights: the factor >= 0 of each sample's exponentials, so that a sample with 0 pulls and pushes no
        proxy; None: 1. P+ is that of all samples.
        """
        cosine = self._cosine(z)
        own = F.one_hot(y, cosine.shape[1]).bool()
        shift = 0.0 if weights is None else weights.log()[:, None]
        pull, push = (
            F.pad(exponent + shift, (0, 0, 1, 0)) for exponent in self._exponents(cosine)
        )  # exp(0) = 1
        outside = F.pad(~own, (0, 0, 1, 0)), F.pad(own, (0, 0, 1, 0))
        positive, negative = (
            exponent.masked_fill(hidden, -torch.inf).logsumexp(0)
            for exponent, hidden in zip((pull, push), outside, strict=True)
        )
        return positive.sum() / own.any(0).sum() + negative.mean()

    def regulariser(self) -> Tensor:
        """What is added to the loss in training: 0."""
        return self.proxies.new_zeros(())

    def _cosine(self, z: Float[Tensor, "n m"]) -> Float[Tensor, "n c"]:
        return F.normalize(z, dim=-1) @ F.normalize(self.proxies, dim=-1).T

    def _exponents(self, cosine: Tensor) -> tuple[Tensor, Tensor]:
        """The exponents of the terms of the own proxy and of the other proxies."""
        return -self.alpha * (cosine - self.margin), self.alpha * (cosine + self.margin)
