"""Look at a trained model: one pass of its frozen backbone, then who is taken for whom, and how often.

All that follows the pass is computed from its features. One search of nearest neighbours gives both the
retrieval metrics and the confusions, so that they agree on any input.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deconfuse.attribution.features import find_or_extract
from deconfuse.attribution.head import Targets, Training
from deconfuse.attribution.rows import in_float64, is_narrow, projected
from deconfuse.attribution.rows import parts as rows_of
from deconfuse.compute.placement import exact, placed
from deconfuse.data.split import Split
from deconfuse.frozen.start import as_they_lie
from deconfuse.model.identity import Identity
from deconfuse.retrieval.confusion import Explained, Pairs, retrieve
from deconfuse.retrieval.queries import Queries
from deconfuse.system import distributed
from deconfuse.system.errors import UserError, shorten
from deconfuse.system.progress import console
from deconfuse.system.words import many
from deconfuse.training.checkpoint import kept, load
from deconfuse.training.datamodule import DataModule
from deconfuse.training.embedder import Embedder

CHECKED_ROWS = 2**14  # of features that are looked at at once


@dataclass(frozen=True)
class Subject:
    """What is looked at and explained: a model, its data, and on which device that is done.

    params: which parameters are attributed, head, last_block or all. used: the training samples that the
    model was trained with; None: all.
    """

    model: Embedder
    data: DataModule
    params: str
    device: torch.device
    used: Int[Tensor, " k"] | None = None


@dataclass(frozen=True)
class Frozen:
    """A checkpoint seen from its head: the training side, and the features of the test side.

    folder: where scores are kept that do not fit into memory.
    """

    training: Training
    query: Float[Tensor, "q D"]
    gallery: Float[Tensor, "g D"]
    folder: Path

    @cached_property
    def narrow(self) -> bool:
        """True if the training embeddings have nearly one direction: float32 holds few of their digits."""
        return is_narrow(self.training)

    @property
    def precise(self) -> Training:
        """The training side, in float64 if it is narrow."""
        return in_float64(self.training) if self.narrow else self.training

    def only(self, rows: Int[Tensor, " k"] | None) -> "Frozen":
        """The same with these training samples alone, their features copied; itself for None."""
        if rows is None:
            return self
        side = self.training
        features, labels = (each[rows.to(each.device)] for each in (side.features, side.labels))
        return replace(self, training=replace(side, features=features, labels=labels))

    def test_side(self, split: Split) -> Queries:
        """The test side's embeddings z = W phi + b, not normalised, with its labels.

        Raises UserError, naming the images, where an embedding is zero: it has no direction.
        """
        head, parts = self.training, {"query": (self.query, split.query)}
        parts |= {} if split.shared_gallery else {"gallery": (self.gallery, split.gallery)}
        z = {name: projected(head, side) for name, (side, _) in parts.items()}
        for name, (_, samples) in parts.items():
            _check_directions(_zero_rows(z[name]), name, samples.names)
        device = head.weight.device
        labels = (torch.from_numpy(part.labels).to(device) for part in (split.query, split.gallery))
        twins = None if split.twins is None else torch.from_numpy(split.twins).to(device)
        return Queries(z["query"], z.get("gallery", z["query"]), *labels, split.shared_gallery, twins)

    def targets(self, explained: Explained) -> Targets:
        """What is explained, with the features of its sides."""
        return Targets(self.query, self.gallery, explained.groups, explained.sign, self.folder)


@dataclass(frozen=True)
class Seen:
    """A trained model, looked at; retrieval: R@k and MAP@R on the test classes, in [0, 1]."""

    checkpoint: Path
    frozen: Frozen
    test: Queries
    confusions: Pairs
    retrieval: dict[str, float]


@exact()
def freeze(subject: Subject, checkpoint: Path) -> Frozen:
    """The features that lie beside the checkpoint, or one pass of the backbone; the model has its weights.

    Features that fit into the device's memory lie there, the training side's first.
    """
    model, data = subject.model, subject.data
    split = data.split
    parts = split.parts
    loaders = {part: data.in_order(samples, data.own(samples)) for part, samples in parts.items()}
    features = {part: as_they_lie(samples) for part, samples in parts.items()}
    if not isinstance(model.backbone, Identity) or model.embeds or any(f is None for f in features.values()):
        moved, of = model.float().to(subject.device), split.fingerprints[1]
        features = find_or_extract(moved, loaders, checkpoint, of)
    model.cpu().requires_grad_(False)
    training = _training(subject, features["train"])
    zero, dead = [], []
    for rows, part in rows_of(training):  # both in one pass, as the rows may be mapped from a file
        zero += [rows.start + i for i in _zero_rows(part.z)]
        dead += [rows.start + i for i in _zero_rows(part.features)]
    _check_directions(zero, "training", split.train.names)
    _warn_of_dead(dead, "training", split.train.names)
    for name, samples in list(parts.items())[1:]:
        _warn_of_dead(_zero_rows(features[name]), name, samples.names)
    query = placed(features["query"], subject.device)
    gallery = query if split.shared_gallery else placed(features["gallery"], subject.device)
    return Frozen(training, query, gallery, checkpoint.parent)


def _training(subject: Subject, features: Float[Tensor, "n D"]) -> Training:
    """The training side on the subject's device; its features too if they fit there."""
    model, device = subject.model, subject.device
    loss = model.loss if device.type == "cpu" else copy.deepcopy(model.loss).to(device)
    head = model.head.weight.to(device), model.head.bias.to(device)
    labels = torch.from_numpy(subject.data.labels).to(device)
    return Training(placed(features, device), labels, *head, loss)


def _zero_rows(rows: Float[Tensor, "n m"]) -> list[int]:
    """The indices of rows that are all zeros; CHECKED_ROWS at a time, as they may be mapped from a file."""
    return [
        start + i
        for start in range(0, len(rows), CHECKED_ROWS)
        for i in (~rows[start : start + CHECKED_ROWS].any(1)).nonzero()[:, 0].tolist()
    ]


def _check_directions(zero: list[int], side: str, names: Sequence[str]) -> None:
    """Raise UserError, naming the images, if an embedding is zero: it has no direction."""
    if zero:
        raise UserError(
            f"the embeddings of {_images(zero, side, names)} are all zeros, so that they have no direction; "
            "mend these images or leave them out, or train with a lower recipe.lr_backbone"
        )


def _warn_of_dead(zero: list[int], side: str, names: Sequence[str]) -> None:
    """Name the images whose features are all zeros: their embeddings are all the head's bias."""
    if zero and distributed.first():
        console.print(
            f"warning: the backbone's features of {_images(zero, side, names)} are all zeros, so that their "
            "embeddings are the head's bias, one and the same; look whether these images are blank"
        )


def _images(rows: list[int], side: str, names: Sequence[str]) -> str:
    """How many they are, and the names of some."""
    return f"{many(len(rows), f'{side} image')} ({shorten(names[i] for i in rows)})"


@exact()
def measure(frozen: Frozen, split: Split, checkpoint: Path, ranks: tuple[int, ...] = (1,)) -> Seen:
    """The confusions and the retrieval metrics of a frozen model; ranks: the k of R@k."""
    test = frozen.test_side(split)
    return Seen(checkpoint, frozen, test, *retrieve(test, ranks))


def look(subject: Subject, checkpoint: Path) -> Seen:
    """`freeze`, then `measure` R@1 and MAP@R."""
    return measure(freeze(subject, checkpoint), subject.data.split, checkpoint)


def before(subject: Subject, checkpoints: list[Path]) -> Iterator[tuple[Subject, Path]]:
    """The model as it was at each of the checkpoints; one at a time, as each has features of its own."""
    for path in checkpoints:
        past = copy.deepcopy(subject.model)
        load(past, path)
        yield replace(subject, model=past), path


def earlier_sides(subject: Subject, checkpoint: Path) -> Iterator[Frozen]:
    """Each checkpoint that was kept before this one, frozen; one at a time."""
    for past, path in before(subject, kept(checkpoint)):
        yield freeze(past, path)
