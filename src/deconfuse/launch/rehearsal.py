"""Checks before training: whether the chosen parts fit the data and each other, and whether they run."""

from collections.abc import Callable, Sequence
from inspect import signature

import numpy as np
import torch

from deconfuse.attribution import attribute
from deconfuse.attribution.head import Training
from deconfuse.data.split import ImageSpec, RowSpec, Split
from deconfuse.labels.judge import votes
from deconfuse.launch.experiments import labels_of
from deconfuse.retrieval.confusion import find
from deconfuse.retrieval.queries import Queries
from deconfuse.runs import takes
from deconfuse.system import distributed
from deconfuse.system.errors import UserError, count
from deconfuse.system.progress import console
from deconfuse.system.words import many
from deconfuse.training.embedder import Embedder
from deconfuse.training.recipe import INSTANCE_BALANCED


def of_its_table(experiment: str | None, flipped: bool) -> None:
    """Print a warning if the experiment's table does not take runs with such labels.

    flipped: whether labels were flipped. Only the chosen experiment's module is imported.
    """
    wants = labels_of(experiment)
    if wants and wants != (takes.FLIPPED if flipped else takes.GIVEN):
        what = "flipped labels" if wants == takes.FLIPPED else "labels as they are"
        console.print(
            f"warning: experiment={experiment} takes runs with {what}: this run will not be in its table"
        )


def lopsided(labels: np.ndarray, names: Sequence[str], sampling: str) -> None:
    """Print a warning if a class has at least half of the images, and three times as many as any other."""
    sizes = np.bincount(labels)
    second, first = np.sort(sizes)[-2:] if len(sizes) > 1 else (0, 0)
    if sampling == INSTANCE_BALANCED and second and 2 * first >= len(labels) and first >= 3 * second:
        console.print(
            f"warning: {first / len(labels):.0%} of the training images are of one class, "
            f"{names[sizes.argmax()]}; recipe.sampling=class_balanced draws every class equally often"
        )


def answerable(split: Split) -> None:
    """Raise UserError if no query has another image of its class in the gallery."""
    if split.lone.all():
        raise UserError(
            f"none of {many(len(split.query), 'query')} has another image of its class in the gallery, so "
            "nothing can be retrieved; add gallery images of the queries' classes"
        )


def input_size(spec: ImageSpec | RowSpec, model: Callable, choices: dict[str, str]) -> dict[str, int]:
    """The model's keyword argument for the size of the input; UserError if it takes another kind of input."""
    if not spec.model_size.keys() <= signature(model).parameters.keys():
        data, chosen = f"dataset={choices['dataset']}", f"model={choices['model']}"
        if isinstance(spec, RowSpec):
            raise UserError(f"{data} has no images for {chosen}; add model=identity or model=as_is")
        raise UserError(
            f"{data} has images, which {chosen} does not take; add model=small_cnn or model=resnet50"
        )
    return spec.model_size


def rehearse(model: Embedder, ask, spec: ImageSpec | RowSpec) -> None:
    """Choose, explain and judge made-up samples with the untrained model, so that wrong settings fail now.

    ask: launch.job.Analyses. Raises UserError if a part does not run.
    """
    if ask.neighbours is not None:
        count("neighbours", ask.neighbours, 1)
    phi, labels = torch.eye(4, model.head.in_features), torch.zeros(4, dtype=torch.long)
    training = Training(phi, labels, model.head.weight.detach(), model.head.bias.detach(), model.loss)
    console.quiet = True  # a message about made-up samples is of no use
    try:
        test = Queries(phi, phi, labels, labels, same=True)
        ask.target(find(test), test)
        attribute.rehearse(ask.explainer, model, ask.params, spec.shape)
        scores = torch.zeros(1, 4)
        ask.detector(training, scores, votes(training, scores, 1, ask.candidates, ask.weights))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"target, influence or detector: {str(error).splitlines()[0]} (check the keys under them)"
        ) from error
    finally:
        console.quiet = not distributed.first()
