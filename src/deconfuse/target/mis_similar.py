"""Explain mis-similar pairs: a query and the farthest sample of its own class (Section 5)."""

from deconfuse.retrieval.confusion import Explained, Pairs, mis_similar
from deconfuse.retrieval.queries import Queries
from deconfuse.system.errors import count


def choose(confusions: Pairs, test: Queries, *, most: int | None = None) -> Explained:
    """The `most` farthest pairs, by default all.

    A score > 0: fitting the sample more moves the pair further apart.
    """
    if most is not None:
        count("target.most", most, 1)
    pairs = mis_similar(test)
    chosen = Pairs(pairs.query[:most], pairs.neighbour[:most], pairs.distance[:most])
    return Explained(tuple(chosen.pairs[:, None, :].unbind(0)), -1.0, "mis_similar.csv", chosen)
