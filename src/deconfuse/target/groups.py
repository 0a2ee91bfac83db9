"""Explain confusion groups: all confusion pairs whose query is of one test class, as one group."""

from deconfuse.retrieval.confusion import Explained, Pairs, groups
from deconfuse.retrieval.queries import Queries
from deconfuse.system.errors import count


def choose(confusions: Pairs, test: Queries, *, most: int | None = None) -> Explained:
    """The `most` largest groups, by default all; a group's d is the mean over its pairs (Eq. 8).

    A score > 0: fitting the sample more brings the class's confused pairs closer.
    """
    if most is not None:
        count("target.most", most, 1)
    chosen = tuple(confusions.pairs[rows] for _, rows in groups(confusions, test.query_labels)[:most])
    return Explained(chosen, 1.0, "groups.csv", confusions)
