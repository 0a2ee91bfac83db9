"""Attribute what is explained to training samples: the frozen model at its checkpoints, as a method wants it.

A method's signature says what it takes: Training (features and the head) for params=head, Network too if it
can do more than the head, and `earlier` if it sums over the checkpoints kept; so does a detector's.
"""

import copy
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import default_collate

from deconfuse.attribution.features import find_or_extract
from deconfuse.attribution.head import Targets, Training, in_float64, is_narrow
from deconfuse.attribution.network import Network, parameter_names
from deconfuse.attribution.scores import blocks, room, unsound
from deconfuse.data.split import Split
from deconfuse.retrieval.confusion import Explained, Queries
from deconfuse.system import distributed
from deconfuse.system.errors import UserError, one_of, shorten
from deconfuse.system.progress import console
from deconfuse.training.checkpoint import load
from deconfuse.training.datamodule import DataModule
from deconfuse.training.embedder import Embedder

PARAMS = ("head", "last_block", "all")
CHECKED_ROWS = 2**14  # of features looked at at once


@dataclass(frozen=True)
class Frozen:
    """A checkpoint seen from its head: the training side, and the features of the test side.

    folder: where scores go that are too many for memory.
    """

    training: Training
    query: Float[Tensor, "q D"]
    gallery: Float[Tensor, "g D"]
    folder: Path

    def test_side(self, split: Split) -> Queries:
        """The test side's embeddings at the head, as long as they are, with its labels.

        Raises UserError where one is zero: it has no direction.
        """
        head, parts = self.training, {"query": (self.query, split.query)}
        parts |= {} if split.shared_gallery else {"gallery": (self.gallery, split.gallery)}
        z = {name: F.linear(side, head.weight, head.bias) for name, (side, _) in parts.items()}
        for name, (_, samples) in parts.items():
            _check_directions(_zero_rows(z[name]), name, samples.names)
        labels = (torch.from_numpy(part.labels) for part in (split.query, split.gallery))
        twins = None if split.twins is None else torch.from_numpy(split.twins)
        return Queries(z["query"], z.get("gallery", z["query"]), *labels, split.shared_gallery, twins)

    def targets(self, explained: Explained) -> Targets:
        """What is explained, with the features of its sides."""
        return Targets(self.query, self.gallery, explained.groups, explained.sign, self.folder)


def freeze(model: Embedder, data: DataModule, checkpoint: Path, device: torch.device) -> Frozen:
    """One pass of the backbone, or the features that lie beside the checkpoint; model has its weights."""
    split = data.split
    parts = {"train": split.train, "query": split.query}
    parts |= {} if split.shared_gallery else {"gallery": split.gallery}
    loaders = {part: data.in_order(samples, data.own(samples)) for part, samples in parts.items()}
    features = find_or_extract(model.float().to(device), loaders, checkpoint, split.fingerprints[1])
    model.cpu().requires_grad_(False)
    labels, head = torch.from_numpy(data.labels), model.head
    training = Training(features["train"], labels, head.weight, head.bias, model.loss)
    zero = [rows.start + i for rows, part in training.parts() for i in _zero_rows(part.z)]
    _check_directions(zero, "training", split.train.names)
    for name, samples in parts.items():
        _say_dead(_zero_rows(features[name]), "training" if name == "train" else name, samples.names)
    gallery = features.get("gallery", features["query"])
    return Frozen(training, features["query"], gallery, checkpoint.parent)


def _zero_rows(rows: Float[Tensor, "n m"]) -> list[int]:
    """Which rows are all zeros; some are looked at at a time, as they may be mapped from a file."""
    return [
        start + i
        for start in range(0, len(rows), CHECKED_ROWS)
        for i in (~rows[start : start + CHECKED_ROWS].any(1)).nonzero()[:, 0].tolist()
    ]


def _check_directions(zero: list[int], side: str, names: Sequence[str]) -> None:
    """Raise UserError, naming the images, where an embedding is zero: it has no direction."""
    if zero:
        raise UserError(
            f"the embeddings of {_images(zero, side, names)} are all zeros, so that they have no direction; "
            "mend these images or leave them out, or train with a lower recipe.lr_backbone"
        )


def _say_dead(zero: list[int], side: str, names: Sequence[str]) -> None:
    """Name the images whose features are all zeros: their embeddings are all the head's bias."""
    if zero and distributed.first():
        console.print(
            f"warning: the backbone's features of {_images(zero, side, names)} are all zeros, so that their "
            "embeddings are the head's bias, one and the same; look whether these images are blank"
        )


def _images(rows: list[int], side: str, names: Sequence[str]) -> str:
    """How many they are, and the names of some."""
    count = f"{len(rows)} {side} image{'' if len(rows) == 1 else 's'}"
    return f"{count} ({shorten(names[i] for i in rows)})"


def attribute(
    explainer: Callable,
    explained: Explained,
    frozen: Frozen,
    model: Embedder,
    data: DataModule,
    params: str,
    device: torch.device,
    kept: list[Path],
) -> Float[Tensor, "g n"]:
    """The method's scores; kept: the checkpoints before the last one, for a method that sums over them.

    Of several processes each scores its own training samples, and gets the scores of all.
    Raises UserError where a score is not finite.
    """

    def seen(model: Embedder, frozen: Frozen) -> tuple[Training | Network, Targets]:
        targets = frozen.targets(explained)
        if params != "head":
            return whole(model, data, params, device), targets
        if not is_narrow(frozen.training):
            return frozen.training.own(), targets
        targets = replace(targets, query=targets.query.double(), gallery=targets.gallery.double())
        return in_float64(frozen.training).own(), targets

    def earlier() -> Iterator[tuple[Training | Network, Targets]]:
        for past, path in before(model, kept):
            yield seen(past, freeze(past, data, path, device) if params == "head" else frozen)

    more = {"earlier": earlier()} if takes_earlier(explainer) else {}
    scores = explainer(*seen(model, frozen), **more).cpu()
    if params == "head":
        scores = of_all(scores, len(frozen.training), frozen.folder, frozen.training.weight.dtype)
    bad = unsound(scores)
    if bad:
        raise UserError(
            f"influence: {bad} of {len(scores)} explanations have scores that are not finite; raise "
            "influence.damping or lower influence.radius, whichever the method has, or take another method"
        )
    return scores


def of_all(own: Float[Tensor, "g k"], n: int, folder: Path, dtype: torch.dtype) -> Float[Tensor, "g n"]:
    """The scores of the samples of all processes, a block of explanations at a time, rounded to dtype; beyond
    memory in the folder, in each process."""
    if distributed.world() == 1 and own.dtype == dtype:
        return own
    result, start = room(len(own), n, dtype, own.device, folder), 0
    for block in blocks(result):
        block.copy_(distributed.joined(own[start : start + len(block)].T.contiguous()).T)
        start += len(block)
    return result


def before(model: Embedder, kept: list[Path]) -> Iterator[tuple[Embedder, Path]]:
    """The model as it was at each checkpoint kept; one at a time, as each has features of its own."""
    for path in kept:
        past = copy.deepcopy(model)
        load(past, path)
        yield past, path


def sides(model: Embedder, data: DataModule, kept: list[Path], device: torch.device) -> Iterator[Training]:
    """The training side at each checkpoint kept."""
    for past, path in before(model, kept):
        yield freeze(past, data, path, device).training


def takes_earlier(method: Callable) -> bool:
    """True where a method or detector sums over checkpoints: its signature has the word `earlier`."""
    return "earlier" in inspect.signature(method.func).parameters


def whole(model: Embedder, data: DataModule, params: str, device: torch.device) -> Network:
    """The model as a function of its last block's, or of all its parameters."""
    query, gallery = (
        lambda rows, part=part: default_collate([data.item(part, i) for i in rows.tolist()])
        for part in (data.split.query, data.split.gallery)
    )
    model = copy.deepcopy(model).to(device).eval().requires_grad_(False)
    labels = torch.from_numpy(data.labels)
    train = data.split.train
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
    try:
        scores = explainer(side, pair)
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
