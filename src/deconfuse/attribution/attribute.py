"""Attribute what is explained to training samples: the frozen model at its checkpoints, as a method wants it.

A method's signature says what it takes: Training (features and the head) for params=head, Network too if it
can do more than the head, and `earlier` if it sums over the checkpoints kept; so does a detector's.
"""

import copy
import inspect
import sys
import typing
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import default_collate

from deconfuse.attribution.head import Targets, Training
from deconfuse.attribution.look import Frozen, Subject, before, freeze
from deconfuse.attribution.network import Network, parameter_names
from deconfuse.attribution.rows import of_all, own
from deconfuse.attribution.scores import among_all, unsound
from deconfuse.compute.placement import exact
from deconfuse.retrieval.confusion import Explained
from deconfuse.system import distributed
from deconfuse.system.errors import UserError, one_of
from deconfuse.system.words import agree, many
from deconfuse.training.checkpoint import read
from deconfuse.training.datamodule import DataModule
from deconfuse.training.embedder import Embedder
from deconfuse.training.recipe import Record
from deconfuse.training.train import RANDOM, START, start_of

PARAMS = ("head", "last_block", "all")


@exact()
def attribute(
    explainer: Callable,
    explained: Explained,
    frozen: Frozen,
    subject: Subject,
    earlier: list[Path],
) -> Float[Tensor, "g n"]:
    """The method's scores; earlier: the checkpoints kept before this one, for a method that sums over them.

    Samples that the model was not trained with (subject.used) are in no sum over the training set, and score
    0. Of several processes each scores its own training samples, and gets the scores of all.
    Raises UserError where a score is not finite.
    """

    head = subject.params == "head"

    def sides(subject: Subject, frozen: Frozen) -> tuple[Training | Network, Targets]:
        frozen, targets = frozen.only(subject.used), frozen.targets(explained)
        if not head:
            return whole(subject), targets
        if frozen.narrow:
            targets = replace(targets, query=targets.query.double(), gallery=targets.gallery.double())
        return own(frozen.precise), targets

    def past_sides() -> Iterator[tuple[Training | Network, Targets]]:
        for past, path in before(subject, earlier):
            yield sides(past, freeze(past, path) if head else frozen)

    more = {"earlier": past_sides()} if takes_earlier(explainer) else {}
    if takes_record(explainer):
        more["record"] = record_of(subject, frozen.folder)
    scores = explainer(*sides(subject, frozen), **more).cpu()
    if head:
        n = len(frozen.training) if subject.used is None else len(subject.used)
        scores = of_all(scores, n, frozen.folder, frozen.training.weight.dtype)
    bad = unsound(scores)
    if bad:
        raise UserError(
            f"influence: {bad} of {many(len(scores), 'explanation')} {agree(bad, 'has', 'have')} scores "
            "that are "
            "not finite; raise influence.damping or lower influence.path.radius, whichever the method "
            "has, or take another method"
        )
    return among_all(scores, subject.used, len(frozen.training), frozen.folder)


def takes_earlier(method: Callable) -> bool:
    """True where a method or detector sums over checkpoints: its signature has the word `earlier`."""
    return "earlier" in inspect.signature(method.func).parameters


def takes_record(method: Callable) -> bool:
    """True where a method goes back through the training: its signature has the word `record`."""
    return "record" in inspect.signature(method.func).parameters


def record_of(subject: Subject, folder: Path) -> Record | None:
    """How the subject's head was trained, from its checkpoint's folder; None for a model handed over."""
    data = subject.data
    if not isinstance(data, DataModule):
        return None
    start = read(folder / START) if (folder / START).exists() else {}
    random, end = start.pop(RANDOM, None), subject.model.head.weight.detach()
    return Record(data.recipe, data.seed, data.drawn, start, end, random)


def whole(subject: Subject) -> Network:
    """The model as a function of its last block's, or of all its parameters."""
    data, params = subject.data, subject.params
    query, gallery = (
        lambda rows, part=part: default_collate([data.item(part, i) for i in rows.tolist()])
        for part in (data.split.query, data.split.gallery)
    )
    model = copy.deepcopy(subject.model).to(subject.device).eval().requires_grad_(False)
    labels, train = torch.from_numpy(data.labels), data.split.train
    if subject.used is not None:
        labels, train = labels[subject.used], train.some(subject.used.numpy())
    batches, names = data.in_order(train, data.own(train)), parameter_names(model, params)
    return Network(model, model.loss, names, labels, batches, query, gallery, shared=distributed.world() > 1)


def check(explainer: Callable, method: str, params: str) -> None:
    """Raise UserError where params is no choice, or one that the method does not have."""
    one_of("params", params, PARAMS)
    hint = typing.get_type_hints(explainer.func).get("training")
    if params != "head" and Network not in typing.get_args(hint):
        raise UserError(f"influence={method} works on the head only; take params=head")


def rehearse(explainer: Callable, model: Embedder, params: str, shape: tuple[int, ...]) -> None:
    """Explain one pair by four made-up samples: bad settings and missing derivatives show at once."""
    random = torch.Generator().manual_seed(0)
    phi = torch.randn(4, model.head.in_features, generator=random)
    labels, pair = torch.zeros(4, dtype=torch.long), Targets.pairs(phi, phi, torch.tensor([[0, 1]]))
    if params == "head":
        head = copy.deepcopy(model.head).requires_grad_(False)
        side = Training(phi, labels, head.weight, head.bias, model.loss)
    else:
        images = torch.randn(4, *shape, generator=random)
        still = copy.deepcopy(model).cpu().eval().requires_grad_(False)
        names = parameter_names(model, params)
        batches = [(images, labels, torch.arange(4))]
        side = Network(still, model.loss, names, labels, batches, images.__getitem__, images.__getitem__)
    more = {}
    if takes_record(explainer):
        given = replace(model.recipe, whiten=None, hold=0.0)  # made-up samples have made no start
        more["record"] = Record(given, 0, labels.numpy(), start_of(model), None)
    if explainer.keywords.get("damping") == "auto":
        more["damping"] = 1.0  # made-up samples choose none
    try:
        scores = explainer(side, pair, **more)
    except (RuntimeError, NotImplementedError) as error:
        if params == "head":
            raise
        raise UserError(
            f"params={params}: {type(model.backbone).__name__} lacks a derivative that this method needs "
            f"({str(error).strip().splitlines()[0]}); take params=head, or another method"
        ) from None
    if scores.shape != (1, 4):
        raise UserError(
            f"influence: one explanation of four samples has scores of shape {tuple(scores.shape)}; a method "
            "returns (explanations, n)"
        )


def unit(explainer: Callable) -> str:
    """What an influence method's docstring says of its unit."""
    text = " ".join((sys.modules[explainer.func.__module__].__doc__ or "").split())
    return text.partition("Unit: ")[2].partition(". ")[0].rstrip(".") or "not stated"
