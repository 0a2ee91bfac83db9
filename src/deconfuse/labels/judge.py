"""Ask a detector how suspicious each training label is, and the neighbours which label they vote for."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.attribute import takes_earlier
from deconfuse.attribution.head import Training
from deconfuse.attribution.rows import embeddings, in_float64, is_narrow
from deconfuse.attribution.scores import acting
from deconfuse.labels.copies import with_copies
from deconfuse.labels.duplicates import Duplicates
from deconfuse.labels.relabel import Judgement, Votes, candidates, vote, vote_on


def votes(training: Training, influence: Float[Tensor, "g n"], k: int | None, most: int | None) -> Votes:
    """Algorithm 1's votes on the samples, or on the `most` candidates that score most harmful."""
    if most is None:
        return vote(embeddings(training), training.labels, k, unit=True)
    asked = candidates(acting(influence).mean, most)
    return vote_on(asked, embeddings(training), training.labels, k, unit=True)


def judge(
    detector: Callable,
    training: Training,
    influence: Float[Tensor, "g n"],
    votes: Votes,
    earlier: Iterator[Training],
    copies: Duplicates | None = None,
) -> Judgement:
    """The detector's suspicion, and the labels it recommends: by default those of votes, Algorithm 1's.

    earlier: the training side at the checkpoints kept, for a detector whose signature has that word. copies:
    near-identical pictures, whose labels count as evidence where the detector recommends by its own.
    """
    dtype = training.weight.dtype
    more = {"earlier": map(_precise, earlier)} if takes_earlier(detector) else {}
    found = detector(_precise(training), influence, votes, **more)
    if not isinstance(found, Judgement):
        return Judgement(found.to(dtype), votes)
    found = with_copies(found, copies, training.labels)
    own = replace(found.votes, share=found.votes.share.to(dtype), own=found.votes.own.to(dtype))
    return Judgement(found.suspicion.to(dtype), own)


def _precise(training: Training) -> Training:
    """The side in float64 if its embeddings have nearly one direction."""
    return in_float64(training) if is_narrow(training) else training
