"""The head trained again without random subsets of the training set, and how well scores predict it.

The linear datamodeling score (Park et al., ICML 2023, section 2) of a confusion P: leave out random subsets
S of the training set, train the head again without each, and take Spearman's rank correlation, over the
subsets, of the real change of d(P) with the sum of the method's scores over S. In [-1, 1]; a harmful sample
(score > 0) should raise d by its absence, so a method that is right has a score near 1.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy.stats import rankdata
from torch import Tensor

from deconfuse.attribution.head import Targets, Training, chunks
from deconfuse.retrieval.confusion import mean_distance
from deconfuse.system.errors import UserError, count, one_of, within
from deconfuse.system.progress import track
from deconfuse.training.recipe import Record
from deconfuse.unrolling.descent import Descent, train
from deconfuse.unrolling.full_batch import rate_of, retrain
from deconfuse.unrolling.plans import as_trained

KEY = "counterfactual.through"
HEADS_BYTES = 512 * 2**20  # of heads that are trained side by side, with their gradients and states


@dataclass(frozen=True)
class SubsetRetraining:
    """How it is measured.

    subsets: how many are left out in turn, 0 for none; share: the share of the training set in each; through:
    descent, `steps` of full-batch gradient descent from the trained head; training, the training of head and
    proxies on frozen features with the same batches, from the start that recipe.whiten computes from what is
    left; or steps, the same from its start as it was; seed: of the subsets.
    """

    subsets: int
    share: float
    steps: int
    seed: int
    through: str = "descent"

    def __post_init__(self):
        one_of(KEY, self.through, ("descent", "training", "steps"))
        if count("counterfactual.subsets", self.subsets, 0) in (1, 2):
            raise UserError(
                f"counterfactual.subsets={self.subsets} ranks nothing; take 0 for none, or 3 and more"
            )
        within("counterfactual.share", self.share, 0, 1)
        count("counterfactual.steps", self.steps, 1)
        count("counterfactual.seed", self.seed, 0)


def draw(plan: SubsetRetraining, n: int) -> Bool[Tensor, "s n"]:
    """The subsets to leave out, as masks; all have the same size, at least 1 and less than n."""
    random, size = np.random.default_rng(plan.seed), min(max(1, round(plan.share * n)), n - 1)
    masks = np.zeros((plan.subsets, n), dtype=bool)
    for mask in masks:
        mask[random.choice(n, size, replace=False)] = True
    return torch.from_numpy(masks)


def measure_changes(
    training: Training,
    targets: Targets,
    left_out: Bool[Tensor, "s n"],
    plan: SubsetRetraining,
    record: Record | None = None,
) -> Float[Tensor, "s g"]:
    """d after training without each subset minus d after training with all samples, of every group.

    Both start at the trained head and take the same number of steps, with a step size at which the loss of
    all samples never rises; with through=training or steps both repeat the training that record describes,
    in which the samples left out have weight 0 in their batches.
    """
    if plan.through != "descent":
        descent = as_trained(training, record, KEY, plan.through)
        return _after_training(training, targets, left_out, descent)
    rate = rate_of(training, plan.steps, plan.seed)

    def after(inside: Tensor) -> Tensor:
        share = inside.to(training.weight) / inside.sum()
        return distances(training, targets, retrain(training, share, plan.steps, rate))

    base = after(torch.ones_like(left_out[0]))
    rows = track(left_out, "training the head without subsets", len(left_out))
    return torch.stack([after(~mask) - base for mask in rows])


def _after_training(
    training: Training, targets: Targets, left_out: Bool[Tensor, "s n"], descent: Descent
) -> Float[Tensor, "s g"]:
    """The changes by whole trainings, as many heads side by side as fit HEADS_BYTES."""
    weights = torch.cat([descent.ones(), (~left_out).to(descent.ones())])
    size = max(1, HEADS_BYTES // (6 * sum(value.nbytes for value in descent.start.values())))
    parts = weights.split(size)
    found = []
    for part in track(parts, "training heads without subsets", len(parts)):
        after = train(descent, part)
        for weight, bias in zip(after["weight"], after["bias"], strict=True):
            found.append(distances(replace(training, bias=bias), targets, weight))
    return torch.stack(found[1:]) - found[0]


def linear_datamodeling_scores(
    influence: Float[Tensor, "g n"], left_out: Bool[Tensor, "s n"], changes: Float[Tensor, "s g"]
) -> Float[np.ndarray, " g"]:
    """Spearman's rank correlation over the subsets, for each group.

    0 if the scores predict the same change for every subset, NaN if every subset has the same change.
    """
    predicted = (left_out.to(influence) @ influence.T).double().numpy()  # (s, g)
    ranks = [rankdata(side, axis=0) for side in (predicted, changes.double().numpy())]
    a, b = (rank - rank.mean(0) for rank in ranks)
    sizes = (a**2).sum(0), (b**2).sum(0)
    found = np.divide(
        (a * b).sum(0), np.sqrt(sizes[0] * sizes[1]), where=sizes[0] * sizes[1] > 0, out=0 * sizes[0]
    )
    return np.where(sizes[1] > 0, found, np.nan)


def distances(training: Training, targets: Targets, weight: Float[Tensor, "m D"]) -> Float[Tensor, " g"]:
    """d of every group at another W, times the targets' sign."""
    found = [
        mean_distance(F.linear(sides.features, weight, training.bias), sides.share)
        for sides in chunks(targets, 1, device=training.weight.device)
    ]
    return torch.cat(found) if found else training.weight.new_empty(0)
