"""The steps of an explanation, each alone, on arrays: `deconfuse.influence.eif(...)`,
`deconfuse.relabel(...)`.

`influence` and `retrieval` are packages of the project, whose modules are the methods. Here these modules are
made callable, so that the name of a method is also the step that it does.
"""

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from deconfuse.adapt import arrays, losses
from deconfuse.adapt.freezing import SCRATCH, training_side
from deconfuse.adapt.options import option
from deconfuse.adapt.prepare import FITTED, Head, Linear, Loss, given_head
from deconfuse.adapt.vocabulary import RANKS, training_classes
from deconfuse.api.explain import left_as_it_was
from deconfuse.attribution import attribute
from deconfuse.attribution.head import Training
from deconfuse.attribution.look import Frozen, Subject
from deconfuse.labels.judge import FAIR, WEIGHTS
from deconfuse.labels.relabel import check, vote
from deconfuse.model.identity import Identity
from deconfuse.retrieval import confusion, metrics
from deconfuse.retrieval.confusion import Explained, Pairs
from deconfuse.retrieval.queries import Queries
from deconfuse.system.errors import UserError, count, one_of
from deconfuse.system.progress import silence

Side = tuple[Any, Any]  # (embeddings (n, D), labels (n,))


def scores(
    method: str,
    train: Side,
    pairs: tuple[Any, Any],
    *,
    head: Head = None,
    loss: Loss = None,
    progress: bool = True,
    **options: Any,
) -> Float[np.ndarray, "p n"]:
    """The score of every training sample on each confusion pair, > 0 harmful, by an influence method.

    train: embeddings (n, D), or the features that `head` reads, and labels (n,). pairs: the embeddings or
    features of p queries (p, D) and of the p samples they are taken for. head, loss: as of `explain`.
    options: `seed`, and keys of conf/influence. Raises UserError for what cannot be meant.
    """
    phi, labels = _taken(train, "train")
    left, right = (_rows(side, f"pairs[{i}]") for i, side in enumerate(pairs))
    if left.shape != right.shape or left.shape[1] != phi.shape[1]:
        shapes = f"{tuple(left.shape)} and {tuple(right.shape)}"
        raise UserError(
            f"pairs: shapes {shapes} for training rows of {phi.shape[1]} numbers; give a row for each "
            "query and "
            "for each neighbour"
        )
    linear, seed = given_head(head, phi.shape[1]), options.pop("seed", 0)
    own = losses.fitted(loss, len(linear.weight)) if isinstance(loss, torch.nn.Module) else loss or FITTED
    explainer = option("influence", {"name": method, **options}, seed)
    scale = Identity(phi.shape[1], embeds=linear.scaled)
    with silence(not progress), left_as_it_was(seed):
        training = _training(scale(phi), labels, linear, own, seed)
        frozen = Frozen(training, scale(left), scale(right), SCRATCH)
        subject = Subject(None, None, "head", torch.device("cpu"))
        return attribute.attribute(explainer, _each(len(left)), frozen, subject, []).numpy()


def _training(phi: torch.Tensor, labels: np.ndarray, linear: Linear, loss, seed: int) -> Training:
    fixed = losses.classes_of(loss) if isinstance(loss, torch.nn.Module) else None
    known = training_classes(labels, fixed)
    ids = {label: i for i, label in enumerate(known)}
    numbers = torch.tensor([ids[label] for label in labels.tolist()])
    return training_side(phi, numbers, len(known), linear, loss, seed)


def _each(n: int) -> Explained:
    """n pairs, the i-th query with the i-th neighbour, each explained on its own."""
    both = torch.arange(n)
    pairs = Pairs(both, both, torch.zeros(n))
    return Explained(tuple(pairs.pairs[:, None].unbind(0)), 1.0, "confusions.csv", pairs)


def relabel(
    embeddings: Any,
    labels: Any,
    neighbours: int | None = None,
    weights: str = FAIR,
    progress: bool = True,
) -> pd.DataFrame:
    """The labels that the nearest other samples vote for (Algorithm 1), one row per sample in its order.

    P(l) = sum exp(-d_i) [y_i = l] / sum exp(-d_i) over the K nearest others, d the distance of the normalised
    embeddings. neighbours: K; None: the median class size. weights: fair, a class has the same say whatever
    its size; paper, as the formula has it. Columns: label, recommended, vote_current and vote_recommended,
    both in [0, 1]; a label is suspicious where recommended is another one.
    """
    z, ids, known = _side((embeddings, labels), "embeddings")
    if neighbours is not None:
        count("neighbours", neighbours, 1)
    check(ids, neighbours, None)
    with silence(not progress):
        votes = vote(z, ids, neighbours, unit=True, fair=one_of("weights", weights, WEIGHTS) == FAIR)
    best, share = votes.best
    return pd.DataFrame(
        {
            "label": [known[i] for i in ids.tolist()],
            "recommended": [known[i] for i in best.tolist()],
            "vote_current": votes.own.numpy(),
            "vote_recommended": share.numpy(),
        }
    )


def measured(test: Side, gallery: Side | None = None, ranks: Sequence[int] = RANKS) -> dict[str, float]:
    """R@k and MAP@R, in [0, 1], of embeddings with labels; gallery: what is searched, None: test itself."""
    for k in ranks:
        count("ranks", k, 1)
    return metrics.metrics(_queries(test, gallery), ranks=tuple(ranks), unit=True)


def confused(test: Side, gallery: Side | None = None) -> pd.DataFrame:
    """The queries whose nearest sample has another label, closest first: query, neighbour (rows), distance d
    of the normalised embeddings, in [0, 4]."""
    pairs = confusion.find(_queries(test, gallery))
    columns = {"query": pairs.query, "neighbour": pairs.neighbour, "distance": pairs.distance}
    return pd.DataFrame({name: values.numpy() for name, values in columns.items()})


def _queries(test: Side, gallery: Side | None) -> Queries:
    """The embeddings with the ids of their labels; equal labels of both sides have one id."""
    sides = [_taken(test, "test")] + ([] if gallery is None else [_taken(gallery, "gallery")])
    known = sorted({label for _, labels in sides for label in labels.tolist()})
    ids = {label: i for i, label in enumerate(known)}
    rows = [z for z, _ in sides]
    numbers = [torch.tensor([ids[label] for label in labels.tolist()]) for _, labels in sides]
    return Queries(rows[0], rows[-1], numbers[0], numbers[-1], gallery is None)


def _side(side: Side, where: str) -> tuple[torch.Tensor, torch.Tensor, list]:
    """(rows, ids of the labels, the labels by id)."""
    z, labels = _taken(side, where)
    known, ids = np.unique(labels, return_inverse=True)
    return z, torch.from_numpy(ids.astype(np.int64)), known.tolist()


def _taken(side: Side, where: str) -> tuple[torch.Tensor, np.ndarray]:
    if not isinstance(side, tuple) or len(side) != 2:
        raise UserError(f"{where}: give (embeddings, labels)")
    z = _rows(side[0], where)
    return z, arrays.labels(side[1], len(z), f"{where} labels")


def _rows(values: Any, where: str) -> torch.Tensor:
    return torch.from_numpy(np.array(arrays.rows(values, where), dtype=np.float32))


class Step(ModuleType):
    """A module that can be called."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do the step; see `deconfuse.api.steps`."""
        return STEPS[self.__name__](*args, **kwargs)


STEPS: dict[str, Callable[..., Any]] = {
    "deconfuse.retrieval.metrics": measured,
    "deconfuse.retrieval.confusion": confused,
    "deconfuse.influence.eif": partial(scores, "eif"),
    "deconfuse.influence.ekfac": partial(scores, "ekfac"),
    "deconfuse.influence.influence_function": partial(scores, "if"),
    "deconfuse.influence.tracin": partial(scores, "tracin"),
    "deconfuse.influence.unrolled": partial(scores, "unrolled"),
    "deconfuse.influence.random": partial(scores, "random"),
}
for _module in STEPS:  # the documented way to change what a module does: its class
    importlib.import_module(_module).__class__ = Step
