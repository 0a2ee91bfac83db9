"""Explain confusion pairs, each on its own: a query and its nearest neighbour of another class."""

from deconfuse.retrieval.confusion import Explained, Pairs
from deconfuse.retrieval.queries import Queries
from deconfuse.system.errors import count


def choose(confusions: Pairs, test: Queries, *, most: int | None = None) -> Explained:
    """The `most` closest confusion pairs, by default all.

    A score > 0: fitting the sample more brings the pair closer.
    """
    if most is not None:
        count("target.most", most, 1)
    chosen = tuple(confusions.pairs[:most, None, :].unbind(0))
    return Explained(chosen, 1.0, "confusions.csv", confusions)
