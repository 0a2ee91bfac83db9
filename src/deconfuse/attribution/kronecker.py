"""Eigenvalue-corrected Kronecker factors of the head's curvature (George et al., NeurIPS 2018).

The Fisher matrix of W (m, D) is the mean of g g^T, g = r phi^T, over labels drawn from the model. With
Q_A the eigenvectors of phi^T phi / n and Q_B those of r^T r / n, it is nearly diagonal in the basis
Q_B x Q_A, with Lambda_ab = mean_i (Q_B^T r_i)_a^2 (Q_A^T phi_i)_b^2 on the diagonal.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from deconfuse.attribution.curvature import WIDE_BYTES, sample_gradients
from deconfuse.attribution.head import Training
from deconfuse.attribution.rows import embeddings, of_every_process, parts, place, total
from deconfuse.retrieval.directions import unit
from deconfuse.system.linear_algebra import factorise

FIX = "look for features that are very large, or take influence=eif or tracin, which need no factors"


@dataclass(frozen=True)
class Factors:
    """Q_A (D, D), Q_B (m, m) and Lambda (m, D) >= 0."""

    inputs: Float[Tensor, "D D"]
    outputs: Float[Tensor, "m m"]
    values: Float[Tensor, "m D"]

    def damping(self, share: float) -> float:
        """lambda as a share of F's largest eigenvalue; at least 1e-30, so that F = 0 can be inverted too."""
        return max(share * self.values.max().item(), 1e-30)

    def solve(self, v: Float[Tensor, "b m D"], damping: float) -> Float[Tensor, "b m D"]:
        """(F + damping I)^-1 v in the factors' basis; 4 D + 4 m operations per entry of v."""
        turned = self.outputs.T @ v @ self.inputs
        return self.outputs @ (turned / (self.values + damping)) @ self.inputs.T

    def squared_norms(
        self, gradients: Float[Tensor, "n m"], features: Float[Tensor, "n D"], damping: float
    ) -> Float[Tensor, " n"]:
        """||(F + damping I)^-1 g_k||^2 of every rank-one g_k = r_k phi_k^T."""
        return self.quadratic_form(gradients, features, damping, power=2)

    def quadratic_form(
        self, gradients: Float[Tensor, "n m"], features: Float[Tensor, "n D"], damping: float, power: int
    ) -> Float[Tensor, " n"]:
        """g_k^T (F + damping I)^-power g_k of every rank-one g_k = r_k phi_k^T, without forming one."""
        r, phi = (gradients @ self.outputs).square(), (features @ self.inputs).square()
        return ((r @ (self.values + damping).pow(-power)) * phi).sum(1)


def fit(training: Training, seed: int = 0) -> Factors:
    """Factors of the Fisher matrix; O(n (D + m)^2) operations and two eigendecompositions.

    Labels are drawn from the loss's softmax if it has one (`softmax`); otherwise the training labels are
    taken, which makes it the empirical Fisher matrix.
    """
    everything = of_every_process(training)
    r = sample_gradients(training, _labels(everything, seed)[place(training)])
    n, seen = len(everything), sum(part.features.T @ part.features for _, part in parts(training))
    moments = {
        "features": total(training, seen) / n,
        "slopes of the loss": total(training, r.T @ r) / n,
    }
    inputs, outputs = (
        factorise(torch.linalg.eigh, matrix, f"EKFAC, second moments of the {what}", FIX).eigenvectors
        for what, matrix in moments.items()
    )
    values = sum(
        (r[rows] @ outputs).square().T @ (part.features @ inputs).square() for rows, part in parts(training)
    )
    return Factors(inputs, outputs, total(training, values) / n)


def _labels(training: Training, seed: int) -> Int[Tensor, " n"]:
    if training.softmax is None:
        return training.labels
    a, random = training.softmax[0], torch.Generator().manual_seed(seed)
    drawn = []
    for z in unit(embeddings(training)).split(max(1, WIDE_BYTES // (4 * len(training.proxies)))):
        # On the CPU, so that every device draws the same.
        share = F.softmax(a * z @ training.proxies.T, dim=1).cpu()
        drawn.append(torch.multinomial(share, 1, generator=random)[:, 0])
    return torch.cat(drawn).to(training.labels.device)
