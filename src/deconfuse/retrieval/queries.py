"""The test side that is searched: queries and gallery, with their labels."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Queries:
    """The test side: embeddings as they are, labels, and whether query and gallery are the same rows.

    twins (q,): the gallery row that is the same sample as each query, -1 where none; None: nobody has one.
    """

    query: Float[Tensor, "q m"]
    gallery: Float[Tensor, "g m"]
    query_labels: Int[Tensor, " q"]
    gallery_labels: Int[Tensor, " g"]
    same: bool
    twins: Int[Tensor, " q"] | None = None
