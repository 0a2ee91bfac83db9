"""Which samples each training batch holds, as a function of the seed and the epoch."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Sampler


def sizes(total: int, classes: int) -> list[int]:
    """The greatest number of shares in each batch of an epoch.

    A share is a group of per_class samples of one class. total: the shares of all classes; classes: the most
    that a batch may have.
    """
    batches = math.ceil(total / classes)
    last = total - (batches - 1) * classes
    if 2 * last >= classes:
        return [classes] * batches
    return [total // batches + (i < total % batches) for i in range(batches)]


class BalancedBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (sample, seed), at most `classes` times `per_class` samples each; every sample occurs.

    The batches of an epoch are a function of (seed, epoch). A class is drawn in shares of per_class samples;
    its last share is filled up with samples that are drawn again. Samples with label -1 are never drawn.
    If full batches would leave fewer than half of `classes` for the last batch, the shares are spread evenly
    over all batches, because a step on a single class undoes what the others have taught (R@1 0.77 instead of
    0.82 on glyphs). A class with more shares than there are batches occurs several times in each batch, as
    evenly as possible; many small batches instead cost as much or more (docs/runs.md).
    class_balanced: an epoch has as many batches and as many shares in all, but every class has the same
    number of shares, or one more; which ones have one more changes with the epoch. Samples of a small class
    then occur several times, and only some samples of a large class occur.
    process (i, w): the i-th of w consecutive parts of each batch, whose sizes differ by at most one.
    """

    def __init__(
        self,
        labels: np.ndarray,
        classes: int,
        per_class: int,
        seed: int,
        epoch: int = 0,
        process: tuple[int, int] = (0, 1),
        class_balanced: bool = False,
    ):
        self.members = [np.flatnonzero(labels == c) for c in np.unique(labels) if c >= 0]
        self.per_class, self.seed, self.epoch, self.process = per_class, seed, epoch, process
        self.class_balanced = class_balanced
        self.shares = np.array([math.ceil(len(rows) / per_class) for rows in self.members])
        self.sizes = sizes(int(self.shares.sum()), min(classes, len(self.members)))

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def sampler(self) -> "BalancedBatches":
        """Itself: Lightning calls set_epoch of the `sampler` of a batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch."""
        self.epoch = epoch

    def rows(self, epochs: int) -> Iterator[Int[Tensor, " B"]]:
        """The samples of each batch of the first epochs, without their seeds."""
        for epoch in range(epochs):
            self.set_epoch(epoch)
            yield from (torch.tensor([row for row, _ in batch]) for batch in self)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        random = np.random.default_rng([self.seed, self.epoch])
        left = self._evened(random) if self.class_balanced else self.shares.copy()
        shares = [self._drawn(*each, random) for each in zip(self.members, left.tolist(), strict=True)]
        for remaining, size in zip(range(len(self), 0, -1), self.sizes, strict=True):
            # Classes with the most shares left go first, so that a batch repeats a class only if it must.
            order = np.lexsort((random.random(len(left)), -left))
            due = -(-left[order] // remaining)  # shares of each class, 0 if none is left
            taken = np.diff(np.minimum(due.cumsum(), size), prepend=0)
            parts = [shares[c][left[c] - k : left[c]] for c, k in zip(order, taken, strict=True)]
            batch = np.concatenate(parts).ravel()
            left[order] -= taken
            drawn = list(zip(batch.tolist(), random.integers(2**62, size=len(batch)).tolist(), strict=True))
            i, w = self.process
            yield drawn[len(drawn) * i // w : len(drawn) * (i + 1) // w]

    def _evened(self, random: np.random.Generator) -> np.ndarray:
        """(c,) shares of each class: the same number, or one more for classes drawn at random."""
        each, rest = divmod(int(self.shares.sum()), len(self.shares))
        return each + (random.permutation(len(self.shares)) < rest)

    def _drawn(self, rows: np.ndarray, shares: int, random: np.random.Generator) -> np.ndarray:
        """(shares, per_class) samples of a class, shuffled anew each time that all of them were drawn."""
        again, rest = divmod(shares * self.per_class, len(rows))
        extra = random.choice(rows, rest, replace=False)
        whole = [random.permutation(rows) for _ in range(again)]
        return np.concatenate([*whole, extra]).reshape(-1, self.per_class)
