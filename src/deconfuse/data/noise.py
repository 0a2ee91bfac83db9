"""Flip training labels on purpose, and keep the true ones."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from deconfuse.system.errors import UserError, one_of, within


@dataclass(frozen=True)
class NoisyLabels:
    """labels (n,): what training sees; clean (n,): the labels before any was flipped."""

    labels: np.ndarray
    clean: np.ndarray

    @property
    def flipped(self) -> np.ndarray:
        """(n,) bool: True where labels and clean labels differ."""
        return self.labels != self.clean


SYMMETRIC, SHIFT, CONFUSED = KINDS = "symmetric", "shift", "confused"


def flip(
    labels: np.ndarray,
    num_classes: int,
    ratio: float,
    kind: str,
    seed: int,
    confusion: Float[np.ndarray, "c c"] | None = None,
) -> NoisyLabels:
    """Give round(ratio * n) samples a wrong class; the seed alone determines the samples and their classes.

    kind=symmetric: uniform over the other classes. kind=shift: the class id plus or minus 5, modulo the
    number of classes, as in the scripts of the EIF paper's authors. kind=confused: class y becomes class j
    with the probability confusion[y, j], whose rows sum to 1, as people mislabel what looks alike. Raises
    UserError if ratio is not in [0, 1) or flips no label, and if there are fewer than 2 classes to flip
    between.
    """
    within("noise.ratio", ratio, 0.0, 1.0, open_end=True)
    one_of("noise.kind", kind, KINDS)
    if ratio > 0 and num_classes < 2:
        raise UserError("noise.ratio: one training class has no other label to flip to; set noise=none")
    if ratio > 0 and not round(ratio * len(labels)):
        raise UserError(
            f"noise.ratio={ratio:g} of {len(labels)} training labels is none; give {1 / len(labels):.2g} or "
            "more, or noise=none"
        )
    random = np.random.default_rng([seed, 0x6E6F])
    chosen = np.sort(random.permutation(len(labels))[: round(ratio * len(labels))])
    if kind == SYMMETRIC:
        step = random.integers(1, max(num_classes, 2), size=len(chosen))
    elif kind == CONFUSED:
        upto = confusion[labels[chosen]].cumsum(1)
        drawn = random.random(len(chosen))[:, None] * upto[:, -1:]  # the last one is not quite 1
        step = (upto[:, :-1] <= drawn).sum(1) - labels[chosen]
    else:
        step = random.choice([-5, 5], size=len(chosen))
        step[step % num_classes == 0] = 1
    noisy = labels.copy()
    noisy[chosen] = (labels[chosen] + step) % num_classes
    return NoisyLabels(noisy, labels.copy())
