"""Explain mis-similar pairs: a query and the farthest sample of its own class (Section 5)."""

from jaxtyping import Float, Int
from torch import Tensor

from src.confusion import Explained, Pairs, mis_similar
from src.errors import count


def choose(
    confusions: Pairs,
    query: Float[Tensor, "q m"],
    gallery: Float[Tensor, "g m"],
    query_labels: Int[Tensor, " q"],
    gallery_labels: Int[Tensor, " g"],
    *,
    same: bool,
    most: int | None = None,
) -> Explained:
    """The `most` farthest pairs (all). A score > 0: fitting the sample more moves the pair further apart."""
    if most is not None:
        count("target.most", most, 1)
    pairs = mis_similar(query, gallery, query_labels, gallery_labels, same=same)
    chosen = Pairs(pairs.query[:most], pairs.neighbour[:most], pairs.distance[:most])
    return Explained(tuple(chosen.pairs[:, None, :].unbind(0)), -1.0, "mis_similar.csv", chosen)
