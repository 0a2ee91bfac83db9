"""influence.damping=auto: the damping whose scores predict best what training the head again does.

The head is trained again without random subsets of the training set, as counterfactual= does it, some
explanations are scored with each of DAMPINGS, and the one with the highest linear datamodeling score is taken
(`subsets`; mean over the explanations). The subsets are others than those that counterfactual= draws with the
same seed, so that what it reports is not what the damping was chosen by.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from deconfuse.attribution.head import Targets, Training
from deconfuse.attribution.rows import of_every_process
from deconfuse.retrieval.statistics import evenly
from deconfuse.system.errors import UserError
from deconfuse.system.progress import console, silence
from deconfuse.system.words import many
from deconfuse.training.recipe import Recipe, Record
from deconfuse.unrolling.plans import repeatable
from deconfuse.unrolling.subsets import (
    KEY,
    SubsetRetraining,
    draw,
    linear_datamodeling_scores,
    measure_changes,
)

AUTO = "auto"
# In units of the largest eigenvalue: from nearly the inverse itself to nearly a product of gradients.
DAMPINGS = (1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
EXPLAINED = 32  # explanations that it is chosen by, at most
OTHER = 10**6  # added to the seed of the subsets
PLAN = SubsetRetraining(16, 0.5, 100, 0)


def chosen(
    damping: float | str,
    training: Training,
    targets: Targets,
    plan: SubsetRetraining,
    record: Record | None,
    score: Callable[[Training, Targets, float], Float[Tensor, "g n"]],
) -> float | str:
    """The damping, or for `auto` the one of DAMPINGS that predicts trainings without subsets best.

    score: the method's scores with a damping. record: of the training, for plan.through=training and steps.
    Prints what is done before it is done, and what was chosen. The explanations are spread evenly over all.
    """
    if damping != AUTO or not len(targets):
        return DAMPINGS[0] if damping == AUTO else damping
    whole = of_every_process(training)
    rows = evenly(len(targets) - 1, EXPLAINED)
    some = replace(targets, groups=tuple(targets.groups[i] for i in rows), folder=None)
    console.print(
        f"damping=auto: the head is trained again without {plan.subsets} random subsets of {plan.share:.0%} "
        f"of the training set, and {many(len(rows), 'explanation')} scored with {len(DAMPINGS)} dampings"
    )
    plan = replace(plan, seed=plan.seed + OTHER)
    left_out = draw(plan, len(whole))
    changes = measure_changes(whole, some, left_out, plan, record).cpu()
    with silence():
        found = [_lds(score(whole, some, value).cpu(), left_out, changes) for value in DAMPINGS]
    best = int(np.argmax(found))
    console.print(
        f"damping=auto: {DAMPINGS[best]:g} predicts these trainings best, LDS {found[best]:.2f}; of all, "
        + ", ".join(f"{value:g}: {lds:.2f}" for value, lds in zip(DAMPINGS, found, strict=True))
    )
    return DAMPINGS[best]


def _lds(scores: Float[Tensor, "g n"], left_out: Tensor, changes: Float[Tensor, "s g"]) -> float:
    """The mean over explanations whose d changes at all; 0 where none does."""
    found = linear_datamodeling_scores(scores, left_out, changes)
    known = found[np.isfinite(found)]
    return float(known.mean()) if len(known) else 0.0


def check(explainer: Callable, params: str, recipe: Recipe) -> None:
    """Raise UserError where damping=auto is asked of a method and the head cannot be trained again."""
    given = getattr(explainer, "keywords", {})
    if given.get("damping") != AUTO:
        return
    plan = given.get("auto", PLAN)
    if not isinstance(plan, SubsetRetraining) or not plan.subsets:
        raise UserError(
            "influence.damping=auto trains the head again without random subsets; give "
            "influence.auto.subsets=16"
        )
    if params != "head":
        raise UserError(
            f"influence.damping=auto trains the head again, but params={params} attributes more; give a "
            "number, or take params=head"
        )
    if plan.through != "descent":
        repeatable(recipe, KEY, plan.through)
