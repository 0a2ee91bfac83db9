"""Compute the neighbours' votes on each training label, and the detector's suspicion of it."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.attribute import takes_earlier
from deconfuse.attribution.head import Training
from deconfuse.attribution.look import Frozen
from deconfuse.attribution.rows import embeddings
from deconfuse.attribution.scores import acting
from deconfuse.labels.relabel import Judgement, Votes, candidates, vote, vote_on


def votes(training: Training, influence: Float[Tensor, "g n"], k: int | None, most: int | None) -> Votes:
    """Algorithm 1's votes on the samples, or on the `most` candidates that score most harmful."""
    if most is None:
        return vote(embeddings(training), training.labels, k, unit=True)
    asked = candidates(acting(influence).mean, most)
    return vote_on(asked, embeddings(training), training.labels, k, unit=True)


def judge(
    detector: Callable,
    frozen: Frozen,
    influence: Float[Tensor, "g n"],
    votes: Votes,
    earlier: Iterator[Frozen],
) -> Judgement:
    """The detector's suspicion and the labels that it recommends, or else those that Algorithm 1's votes do.

    earlier: the checkpoints kept, frozen, for a detector whose signature has that word. Where embeddings have
    nearly one direction, the detector is given them in float64.
    """
    dtype = frozen.training.weight.dtype
    more = {"earlier": (past.precise for past in earlier)} if takes_earlier(detector) else {}
    found = detector(frozen.precise, influence, votes, **more)
    if not isinstance(found, Judgement):
        return Judgement(found.to(dtype), votes)
    own = replace(found.votes, share=found.votes.share.to(dtype), own=found.votes.own.to(dtype))
    return Judgement(found.suspicion.to(dtype), own)
