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
) -> Votes:
    """Algorithm 1's votes on the samples, or on the `most` candidates that score most harmful.

    weights: fair, a class has the same say whatever its size; paper, as Algorithm 1 has it. They are counted
    on the side's device if its memory holds them, and are returned on the CPU. UserError for another word.
    """
    how = {"unit": True, "fair": one_of("relabel.weights", weights, WEIGHTS) == FAIR}
    z, labels = embeddings(training), training.labels
    if most is not None:
        asked = candidates(acting(influence).mean, most).to(z.device)
        return vote_on(asked, z, labels, k, **how).cpu()
    if not fits(NEIGHBOUR_BYTES * len(z) * min(len(z), k or neighbourhood(labels)), z.device):
        z, labels = z.cpu(), labels.cpu()
    return vote(z, labels, k, **how).cpu()


@exact()
def judge(
    detector: Callable,
    frozen: Frozen,
    influence: Float[Tensor, "g n"],
    votes: Votes,
    earlier: Iterator[Frozen],
    copies: Duplicates | None = None,
) -> Judgement:
    """The detector's suspicion and the labels that it recommends, or else those that Algorithm 1's votes do.

    earlier: the checkpoints kept, frozen, for a detector whose signature has that word. Where embeddings have
    nearly one direction, the detector is given them in float64. copies: near-identical pictures, whose labels
    count as evidence if the detector recommends labels itself. All that is returned is on the CPU.
    """
    dtype = frozen.training.weight.dtype
    more = {"earlier": (past.precise for past in earlier)} if takes_earlier(detector) else {}
    found = detector(frozen.precise, influence, votes, **more)
    if not isinstance(found, Judgement):
        return Judgement(found.to(dtype).cpu(), votes)
    here = Judgement(found.suspicion.cpu(), found.votes.cpu())
    found = with_copies(here, copies, frozen.training.labels.cpu())
    own = replace(found.votes, share=found.votes.share.to(dtype), own=found.votes.own.to(dtype))
    return Judgement(found.suspicion.to(dtype), own)
