"""How many groups an influence method solves at a time."""

from unittest import mock

import torch

from deconfuse.attribution.head import Targets


def asked(method, toy, groups, budget):
    """The sizes that a method's module hands to score_chunks if its BLOCK_BYTES is the budget."""
    training, test = toy
    seen = []

    def score_chunks(training, targets, what, score, size):
        seen.append(size)
        return torch.zeros(len(targets), len(training), dtype=torch.float64)

    with mock.patch.multiple(method, score_chunks=score_chunks, BLOCK_BYTES=budget):
        method.scores(training, Targets(test, test, groups))
    return seen
