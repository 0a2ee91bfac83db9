"""Compute the neighbours' votes on each training label, and the detector's suspicion of it."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deconfuse.attribution.attribute import takes_earlier
from deconfuse.attribution.head import Training
from deconfuse.attribution.look import Frozen
from deconfuse.attribution.rows import embeddings
from deconfuse.attribution.scores import acting, columns
from deconfuse.compute.placement import exact, fits
from deconfuse.duplicates.search import Duplicates
from deconfuse.labels.copies import with_copies
from deconfuse.labels.relabel import (
    NEIGHBOUR_BYTES,
    Judgement,
    Votes,
    candidates,
    neighbourhood,
    vote,
    vote_on,
)
from deconfuse.system.errors import one_of

FAIR, PAPER = WEIGHTS = "fair", "paper"  # of neighbours: relabel.weights


@exact()
def votes(
    training: Training,
    influence: Float[Tensor, "g n"],
    k: int | None,
    most: int | None,
    weights: str = FAIR,
    used: Int[Tensor, " r"] | None = None,
) -> Votes:
    """Algorithm 1's votes on the samples, or on the `most` candidates that score most harmful.

    weights: fair, a class has the same say whatever its size; paper, as Algorithm 1 has it. used: the samples
    that vote (all); the others are voted on all the same. They are counted
    on the side's device if its memory holds them, and are returned on the CPU. UserError for another word.
    """
    how = {"unit": True, "fair": one_of("relabel.weights", weights, WEIGHTS) == FAIR}
    z, labels = embeddings(training), training.labels
    voters = torch.ones_like(labels, dtype=torch.bool)
    if used is not None:
        voters = torch.zeros_like(voters).index_fill(0, used.to(voters.device), True)
    k = k or neighbourhood(labels[voters])
    if most is not None:  # the others score 0, so they are no candidates
        asked = candidates(acting(influence).mean[voters.cpu()], most).to(z.device)
        found = vote_on(asked, z[voters], labels[voters], k, **how).cpu()
        return found if used is None else found.among_all(used, labels.cpu())
    if not fits(NEIGHBOUR_BYTES * len(z) * min(len(z), k), z.device):
        z, labels, voters = z.cpu(), labels.cpu(), voters.cpu()
    return vote(z, labels, k, voters, **how).cpu()


@exact()
def judge(
    detector: Callable,
    frozen: Frozen,
    influence: Float[Tensor, "g n"],
    votes: Votes,
    earlier: Iterator[Frozen],
    copies: Duplicates | None = None,
    used: Int[Tensor, " r"] | None = None,
) -> Judgement:
    """The detector's suspicion and the labels that it recommends, or else those that Algorithm 1's votes do.

    used: the samples that the model was trained with (all); the detector sees these alone, and the others get
    the least suspicion of all, and of a detector that recommends labels no votes (NaN).
    earlier: the checkpoints kept, frozen, for a detector whose signature has that word. Where embeddings have
    nearly one direction, the detector is given them in float64. copies: near-identical pictures, whose labels
    count as evidence if the detector recommends labels itself. All that is returned is on the CPU.
    """
    dtype = frozen.training.weight.dtype
    more = {"earlier": (past.only(used).precise for past in earlier)} if takes_earlier(detector) else {}
    seen = columns(influence, used, frozen.folder), votes if used is None else votes.of(used)
    found, labels = detector(frozen.only(used).precise, *seen, **more), frozen.training.labels.cpu()
    if not isinstance(found, Judgement):
        return Judgement(_among_all(found.to(dtype).cpu(), used, len(labels)), votes)
    suspicion = _among_all(found.suspicion.cpu(), used, len(labels))
    said = found.votes.cpu() if used is None else found.votes.cpu().among_all(used, labels)
    found = with_copies(Judgement(suspicion, said), copies, labels)
    own = replace(found.votes, share=found.votes.share.to(dtype), own=found.votes.own.to(dtype))
    return Judgement(found.suspicion.to(dtype), own)


def _among_all(suspicion: Float[Tensor, " r"], used: Int[Tensor, " r"] | None, n: int) -> Float[Tensor, " n"]:
    """The suspicion of some samples in their places among n; the others get the least of them."""
    if used is None:
        return suspicion
    return suspicion.min().repeat(n).scatter(0, used, suspicion)
