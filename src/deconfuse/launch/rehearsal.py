"""Checks before training: are the settings complete, do the parts fit each other, and do they run?"""

from collections.abc import Callable, Sequence
from inspect import signature

import numpy as np
import torch

from deconfuse.attribution import attribute
from deconfuse.attribution.head import Training
from deconfuse.data.split import ImageSpec, RowSpec, Split
from deconfuse.labels.judge import votes
from deconfuse.launch.experiments import labels_of
from deconfuse.retrieval.confusion import Queries, find
from deconfuse.runs import takes
from deconfuse.system import distributed
from deconfuse.system.errors import UserError, count
from deconfuse.system.progress import console
from deconfuse.training.embedder import Embedder
from deconfuse.training.recipe import INSTANCE_BALANCED


def of_its_table(experiment: str | None, flipped: bool) -> None:
    """Print a warning where a run's labels keep it out of the table of its experiment.

    flipped: whether labels were flipped. Only the chosen experiment's module is imported.
    """
    wants = labels_of(experiment)
    if wants and wants != (takes.FLIPPED if flipped else takes.GIVEN):
        what = "flipped labels" if wants == takes.FLIPPED else "labels as they are"
        console.print(f"warning: experiment={experiment} is of {what}: this run will not be in its table")


def lopsided(labels: np.ndarray, names: Sequence[str], sampling: str) -> None:
    """Print a warning where a class has half of the images or more, and thrice as many as any other."""
    sizes = np.bincount(labels)
    second, first = np.sort(sizes)[-2:] if len(sizes) > 1 else (0, 0)
    if sampling == INSTANCE_BALANCED and second and 2 * first >= len(labels) and first >= 3 * second:
        console.print(
            f"warning: {first / len(labels):.0%} of the training images are of one class, "
            f"{names[sizes.argmax()]}; recipe.sampling=class_balanced draws every class equally often"
        )


def answerable(split: Split) -> None:
    """UserError where no query has an image of its class in the gallery: nothing could be retrieved."""
    if split.lone.all():
        raise UserError(
            f"none of the {len(split.query)} queries has another image of its class in the gallery, so "
            "nothing can be retrieved; add gallery images of the queries' classes"
        )


def input_size(spec: ImageSpec | RowSpec, model: Callable, choices: dict[str, str]) -> dict[str, int]:
    """The model's keyword argument for the input's size; UserError where it takes another kind of input."""
    if not spec.model_size.keys() <= signature(model).parameters.keys():
        data, chosen = f"dataset={choices['dataset']}", f"model={choices['model']}"
        if isinstance(spec, RowSpec):
            raise UserError(f"{data} has no images for {chosen}; add model=identity or model=as_is")
        raise UserError(
            f"{data} has images, which {chosen} does not take; add model=small_cnn or model=resnet50"
        )
    return spec.model_size


def rehearse(model: Embedder, ask, spec: ImageSpec | RowSpec) -> None:
    """Explain a made-up pair by four made-up samples with the untrained model; UserError on failure.

    ask: launch.job.Questions.
    """
    if ask.neighbours is not None:
        count("neighbours", ask.neighbours, 1)
    phi, labels = torch.eye(4, model.head.in_features), torch.zeros(4, dtype=torch.long)
    training = Training(phi, labels, model.head.weight.detach(), model.head.bias.detach(), model.loss)
    console.quiet = True  # messages about made-up samples would mislead
    try:
        ask.target(find(phi, phi, labels, labels, same=True), Queries(phi, phi, labels, labels, True))
        attribute.rehearse(ask.explainer, model, ask.params, spec.shape)
        scores = torch.zeros(1, 4)
        ask.detector(training, scores, votes(training, scores, 1, ask.candidates, ask.weights))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"target, influence or detector: {str(error).splitlines()[0]} (check the keys under them)"
        ) from error
    finally:
        console.quiet = not distributed.first()
