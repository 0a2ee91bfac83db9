"""Project embeddings to the plane, for the report's maps."""

import importlib.util

import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.system.linear_algebra import factorise


def pca(e: Float[Tensor, "n m"]) -> tuple[Float[Tensor, "n 2"], tuple[float, float]]:
    """The two principal components of e, and the share of the variance that each holds, in [0, 1].

    x = (e - mean) V, with V the leading eigenvectors of the covariance (Jolliffe 2002, section 1.1); of each
    the largest entry is positive. Components that do not exist are 0.
    """
    centred = e.double()
    centred = centred - centred.mean(0)
    fix = "look for embeddings that are not finite, or set report=false"
    values, vectors = factorise(torch.linalg.eigh, centred.T @ centred, "the map of the embeddings", fix)
    # ascending
    values, vectors = values.flip(0).clamp_min(0)[:2], vectors.flip(1)[:, :2]
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
    x, share = centred.new_zeros(len(e), 2), values / centred.square().sum().clamp_min(1e-30)
    x[:, : vectors.shape[1]] = centred @ vectors
    return x.to(e.dtype), (float(share[0]), float(share[1]) if len(share) > 1 else 0.0)


def has_umap() -> bool:
    """Whether umap-learn is installed."""
    return importlib.util.find_spec("umap") is not None


def umap(e: Float[Tensor, "n m"], seed: int) -> Float[Tensor, "n 2"]:
    """UMAP by the cosine of the embeddings (McInnes et al. 2018); equal seeds give equal results.

    For fewer than five samples it returns the PCA, because UMAP finds no neighbourhoods there.
    """
    if len(e) < 5:
        return pca(e)[0]
    from umap import UMAP  # seconds to import, and an extra

    near = min(15, len(e) - 1)
    return torch.from_numpy(
        UMAP(n_neighbors=near, metric="cosine", random_state=seed).fit_transform(e.numpy())
    )
