"""The trainings of a head that are repeated and reversed."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from deconfuse.attribution.head import Training, classes_of
from deconfuse.data.sampler import BalancedBatches
from deconfuse.frozen.start_derivative import Samples
from deconfuse.frozen.weighted_start import WeightedStart
from deconfuse.system.errors import UserError, at_least, count
from deconfuse.system.progress import console
from deconfuse.training.recipe import Recipe, Record
from deconfuse.unrolling.batch_loss import Parameters, Weighted
from deconfuse.unrolling.descent import Descent
from deconfuse.unrolling.full_batch import MOMENTUM, rate_of
from deconfuse.unrolling.optimizers import LookAhead, optimizer_of

SAME = 0.05  # of the way from its start: how far a repeated training may end from where it ended at first
KEY = "influence.through"
NOT_KEPT = (
    "{key}={through} needs where the training of the head started, which was not kept (or the head was not "
    "trained); delete the checkpoint's folder to train again, or take another {key}"
)


@dataclass(frozen=True)
class Epochs:
    """Eq. 7's retraining without its weights, as retrain= has it: the batches, and how W moves.

    A batch holds at most classes_per_batch x per_class samples; seed: of the batches; optimizer: a partial of
    torch.optim's, None: Adam at 4e-5.
    """

    epochs: int = 1
    classes_per_batch: int = 16
    per_class: int = 4
    seed: int = 0
    optimizer: Callable[..., torch.optim.Optimizer] | None = None

    def __post_init__(self):
        for key in ("epochs", "classes_per_batch", "per_class"):
            count(f"influence.retraining.{key}", getattr(self, key), 1)
        count("influence.retraining.seed", self.seed, 0)


@dataclass(frozen=True)
class FullBatch:
    """The counterfactual check's descent: full-batch steps; seed: of the estimate of its rate."""

    steps: int = 100
    seed: int = 0

    def __post_init__(self):
        count("influence.descent.steps", self.steps, 1)
        count("influence.descent.seed", self.seed, 0)


@dataclass(frozen=True)
class Smooth:
    """What the derivative is averaged over.

    orders: of the batches, the first being the training's own; blur: of the eigenvalues of through=training's
    start, as a share of them (`frozen.start_derivative`).
    """

    orders: int = 1
    blur: float = 0.0

    def __post_init__(self):
        count("influence.smooth.orders", self.orders, 1)
        at_least("influence.smooth.blur", self.blur, 0)


def again(training: Training, plan: Epochs, order: int = 0) -> Descent:
    """The trained head's next epochs, W alone, all weights 1 (Eq. 7); order: another one of the batches."""
    make = plan.optimizer or (lambda groups: torch.optim.Adam(groups, lr=4e-5))
    sizes = plan.classes_per_batch, plan.per_class
    sampler = BalancedBatches(training.labels.cpu().numpy(), *sizes, plan.seed + order)
    batches = tuple(sampler.rows(plan.epochs))
    start = {"weight": training.weight, "bias": training.bias}
    moves = {"weight": optimizer_of(make, "retrain.optimizer")}
    weighted = Weighted(training.loss)
    ones = (1.0,) * len(batches)
    return Descent(training.features, training.labels, weighted, start, moves, batches, ones)


def as_trained(
    training: Training, record: Record | None, key: str = KEY, through: str = "training", blur: float = 0.0
) -> Descent:
    """The training of head and proxies on frozen features.

    training: of all samples, or of those alone that were drawn in training. through: training, with its start
    where recipe.whiten computes it from the samples; steps, from its start as it was. key: the setting that
    asks for it; blur: of the start's derivative. Raises UserError where it cannot be repeated from what was
    kept.
    """
    if record is None:
        raise UserError(f"{key}={through} repeats a training that a run has done, and there is none here")
    recipe = record.recipe
    repeatable(recipe, key, through)
    if "weight" not in record.start:
        raise UserError(NOT_KEPT.format(key=key, through=through))
    batches = drawn(training, record)
    start = {name: value.to(training.weight) for name, value in record.start.items()}
    head = optimizer_of(recipe.optimizer, "recipe.optimizer", lr=recipe.lr_head)
    proxies = optimizer_of(recipe.optimizer, "recipe.optimizer", lr=recipe.lr_proxies, weight_decay=0.0)
    moves = {name: proxies if name.startswith("loss.") else head for name in start}
    weighted = Weighted(training.loss, hasattr(training.loss, "of_batch"), regular=True)
    factors = tuple(recipe.rate(t, len(batches)) for t in range(len(batches)))
    pull = recipe.hold / start["weight"].square().sum().item() if recipe.hold else 0.0
    given = through == "steps" or recipe.whiten is None
    begun = None if given else replace(_whitened(training, record, start, key), blur=blur)
    return Descent(training.features, training.labels, weighted, start, moves, batches, factors, pull, begun)


def drawn(training: Training, record: Record, order: int = 0) -> tuple[Int[Tensor, " _"], ...]:
    """The batches of a training as rows of the training side; order: another one than the training's own."""
    batches = tuple(record.recipe.sampler(record.drawn, record.seed + order).rows(record.recipe.epochs))
    if len(training) < len(record.drawn):  # the samples that were left out have no row
        row_of = torch.from_numpy(record.drawn >= 0).cumsum(0) - 1
        batches = tuple(row_of[rows] for rows in batches)
    return batches


def _whitened(training: Training, record: Record, start: Parameters, key: str) -> WeightedStart:
    """How the start follows from the samples; UserError where it is not that of these samples."""
    if "loss.proxies" not in start:
        raise UserError(
            f"{key}=training goes through the start of a loss whose proxies are a parameter (softtriple, "
            f"proxynca, proxyanchor); take one of them, or {key}=steps, which takes the start as given"
        )
    if record.random is None:
        raise UserError(NOT_KEPT.format(key=key, through="training"))
    used = torch.from_numpy(record.drawn >= 0).double()
    weights = used if len(training) == len(used) else torch.ones(len(training), dtype=torch.float64)
    random = record.random.cpu().to(start["weight"].dtype)
    sides = training.features.cpu(), training.labels.cpu(), weights, random
    begun = WeightedStart(Samples(*sides, classes_of(training)), record.recipe.whiten, start)
    if not begun.gap <= SAME:
        raise UserError(
            f"{key}=training: the head's start, computed again from the samples, is {begun.gap:.2g} of its "
            "length from the one that was kept; delete the checkpoint's folder to train again, or take "
            f"{key}=steps, which takes the start as given"
        )
    if begun.whitened.cut:
        console.print(
            f"warning: {key}=training: direction {begun.whitened.kept} of the whitened start varies as much "
            "as one that is cut off, so that the start has no derivative there, which is left out; take "
            "another recipe.embedding_size"
        )
    return begun


def repeatable(recipe: Recipe, key: str = KEY, through: str = "training") -> None:
    """Raise UserError where a training is not one of a head on features that stay as they are, or draws
    random numbers or clips gradients on the way."""
    if not recipe.frozen:
        raise UserError(
            f"{key}={through} goes through the training of a head on features that stay as they are; add "
            f"recipe=frozen, or take another {key}"
        )
    odd = {"dropout": recipe.dropout, "clip_norm": recipe.clip_norm, "clip_value": recipe.clip_value}
    for name, value in odd.items():
        if value:
            raise UserError(
                f"{key}={through} does not go through recipe.{name}={value}; leave it out, or take another "
                f"{key}"
            )


def check_end(
    record: Record | None, start: Parameters, after: Parameters, through: str = "training"
) -> float | None:
    """How far from the trained head a repeated training ends, as a share of the head's way from its start.

    None where the head's end is not known. Raises UserError beyond SAME.
    """
    if record is None or record.end is None:
        return None
    there = record.end.to(after["weight"])
    way = (there - start["weight"]).norm().item()
    gap = (after["weight"][0] - there).norm().item() / max(way, 1e-30)
    if not gap <= SAME:
        raise UserError(
            f"{KEY}={through}: the repeated training ends {gap:.2g} of its way from the checkpoint's head, "
            "so that it is not the same training (an earlier epoch, another machine or version?); delete the "
            f"checkpoint's folder to train again, or take another {KEY}"
        )
    return gap


def full_batch(training: Training, plan: FullBatch) -> Descent:
    """The counterfactual check's descent from the trained head: full-batch steps of W with momentum."""
    steps, rate = plan.steps, rate_of(training, plan.steps, plan.seed)
    rows = torch.arange(len(training))
    start = {"weight": training.weight, "bias": training.bias}
    moves = {"weight": LookAhead(rate, MOMENTUM)}
    rest = (rows,) * steps, (1.0,) * steps
    return Descent(training.features, training.labels, Weighted(training.loss), start, moves, *rest)
