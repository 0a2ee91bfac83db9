"""Measure whether scores predict real changes: train the head again without random subsets.

What is measured lies beside the checkpoint, so that the methods of a sweep share it (`unrolling.subsets`).
"""

import hashlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deconfuse.attribution.head import Targets, Training
from deconfuse.compute.placement import exact
from deconfuse.retrieval.statistics import mean_interval
from deconfuse.system import distributed
from deconfuse.system.arrays import read_arrays, write_arrays
from deconfuse.system.errors import UserError
from deconfuse.system.files import file_hash, short_hash
from deconfuse.system.lock import found_or_made, whole_at
from deconfuse.training.recipe import Recipe, Record
from deconfuse.unrolling.plans import repeatable
from deconfuse.unrolling.subsets import (
    KEY,
    SubsetRetraining,
    draw,
    linear_datamodeling_scores,
    measure_changes,
)

FORMAT = 2  # raised when the code measures something else with the same settings


def find_or_measure_changes(
    training: Training,
    targets: Targets,
    left_out: Bool[Tensor, "s n"],
    plan: SubsetRetraining,
    checkpoint: Path,
    record: Record | None = None,
) -> Float[Tensor, "s g"]:
    """What `measure_changes` returns, read from beside the checkpoint if an earlier run measured the same."""
    groups = [group.tolist() for group in targets.groups]
    key = short_hash([FORMAT, file_hash(checkpoint), asdict(plan), targets.sign, groups, _seen(targets)])
    path = checkpoint.with_suffix(f".counterfactual-{key}.npz")

    def find() -> Tensor | None:
        return whole_at(path, lambda path: torch.from_numpy(read_arrays(path)["changes"]), "measuring")

    def make() -> Tensor:
        changes = measure_changes(training, targets, left_out, plan, record).cpu()
        if distributed.first():
            write_arrays(path, changes=changes.numpy(), left_out=left_out.numpy())
        return changes

    return found_or_made(path, find, make)


def _seen(targets: Targets) -> str:
    """A hash of the test samples' features, so that other images in the same rows are other targets."""
    rows = torch.cat(
        [
            torch.cat([_at(targets.query, q), _at(targets.gallery, g)])
            for q, g in (x.T for x in targets.groups)
        ]
    )
    return hashlib.sha256(rows.numpy().tobytes()).hexdigest()


def _at(side: Float[Tensor, "n D"], rows: Int[Tensor, " q"]) -> Float[Tensor, "q D"]:
    return side[rows.to(side.device)].cpu()


def check(plan: SubsetRetraining, params: str, recipe: Recipe) -> None:
    """Raise UserError if more than the head is attributed, as only the head is trained again, or if the
    training cannot be repeated."""
    if plan.subsets and params != "head":
        raise UserError(
            f"counterfactual.subsets={plan.subsets} trains the head again, but params={params} attributes "
            "more; take params=head"
        )
    if plan.subsets and plan.through != "descent":
        repeatable(recipe, KEY, plan.through)


@exact()
def measure(
    training: Training,
    targets: Targets,
    influence: Float[Tensor, "g n"],
    plan: SubsetRetraining,
    checkpoint: Path,
    record: Record | None = None,
) -> Float[np.ndarray, " g"] | None:
    """The linear datamodeling score of each group; None without subsets, or if nothing was explained.

    record: of the training that through=training and steps repeat.
    """
    if not plan.subsets or not len(targets):
        return None
    left_out = draw(plan, len(training))
    changes = find_or_measure_changes(training, targets, left_out, plan, checkpoint, record)
    return linear_datamodeling_scores(influence, left_out, changes)


def report(scores: Float[np.ndarray, " g"] | None, plan: SubsetRetraining) -> dict | None:
    """Mean and 95 % interval over the groups, and the settings of the measurement."""
    found = None if scores is None else mean_interval(scores)
    return found and {**found, **asdict(plan)}
