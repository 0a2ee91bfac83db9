"""From what a caller hands over to a frozen model: the features of all samples, the proxies of its loss."""

import copy
import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, default_collate

from deconfuse.adapt import arrays, losses, network, proxies
from deconfuse.adapt.options import option
from deconfuse.adapt.prepare import Linear, SampleSets
from deconfuse.adapt.questions import Questions
from deconfuse.adapt.samples import Inputs, Samples
from deconfuse.adapt.vocabulary import split_of
from deconfuse.attribution.features import extract
from deconfuse.attribution.head import Training
from deconfuse.attribution.look import Frozen, Subject
from deconfuse.attribution.rows import embeddings, parts
from deconfuse.attribution.scores import room
from deconfuse.compute.placement import exact, placed
from deconfuse.data.split import Split
from deconfuse.model.identity import Identity
from deconfuse.system.errors import UserError, shorten
from deconfuse.training import loader_workers
from deconfuse.training.embedder import Embedder

SCRATCH = Path(tempfile.gettempdir())  # of what does not fit into memory, in files without names


def frozen_model(
    opened: network.Opened | None,
    head: Linear,
    loss: nn.Module | str | Mapping,
    sides: SampleSets,
    ask: Questions,
) -> tuple[Frozen, Split, Subject]:
    """(the frozen model, the samples with class ids, what `attribute` needs of the model)."""
    fixed = losses.classes_of(loss) if isinstance(loss, nn.Module) else None
    split = split_of(sides.train, sides.test, sides.gallery, ask.classes, fixed)
    labels = torch.from_numpy(split.train.labels)
    features = _features(opened, head, sides, ask)
    training = training_side(features["train"], labels, split.num_classes, head, loss, ask.seed)
    _check_directions(training, split.train.names)
    device = _device(opened, ask)
    frozen = _on_device(training, features, device)
    recipe = dataclasses.replace(
        option("recipe", "small", ask.seed), embedding_size=len(head.weight), eval_batch_size=ask.batch_size
    )
    backbone = Identity(head.weight.shape[1], embeds=head.scaled) if opened is None else opened.backbone
    embedder = _embedder(backbone, head, training.loss, recipe)
    return frozen, split, Subject(embedder, Data(sides, split, ask), ask.params, device)


@exact()
def _on_device(training: Training, features: dict[str, Tensor], device: torch.device) -> Frozen:
    """The frozen model on a device: what follows is computed there; features lie there if they fit."""
    loss = training.loss if device.type == "cpu" else copy.deepcopy(training.loss).to(device)
    head = training.weight.to(device), training.bias.to(device)
    side = Training(placed(training.features, device), training.labels.to(device), *head, loss)
    query = placed(features["query"], device)
    gallery = placed(features["gallery"], device) if "gallery" in features else query
    return Frozen(side, query, gallery, SCRATCH)


def training_side(
    phi: Float[Tensor, "n D"],
    labels: Int[Tensor, " n"],
    classes: int,
    head: Linear,
    loss: nn.Module | str | Mapping,
    seed: int,
) -> Training:
    """The frozen training side; a loss that is named is made, and its proxies are fitted to the embeddings.

    The seed is set first, so that the proxies start where those of the command line do.
    """
    if isinstance(loss, nn.Module):
        return Training(phi, labels, head.weight, head.bias, loss)
    torch.manual_seed(seed)
    made = option("loss", loss, seed, num_classes=classes, embedding_size=len(head.weight))
    training = Training(phi, labels, head.weight, head.bias, made)
    recipe = dataclasses.replace(option("recipe", "small", seed), embedding_size=len(head.weight))
    proxies.fit(embeddings(training), labels, made, recipe, seed)
    return Training(phi, labels, head.weight, head.bias, made)


def _features(
    opened: network.Opened | None, head: Linear, sides: SampleSets, ask: Questions
) -> dict[str, Float[Tensor, "n D"]]:
    """phi of every side, in memory or, beyond `scores.HELD_BYTES`, in a file without a name."""
    found: dict[str, Tensor] = {}
    done = 0
    for name, side in sides.named.items():
        if opened is None:
            phi = room(len(side), side.rows.shape[1], torch.float32, torch.device("cpu"), SCRATCH)
            scale = Identity(side.rows.shape[1], embeds=head.scaled)
            for start, block in arrays.blocks(side.rows, f"reading {name}"):
                phi[start : start + len(block)] = scale(torch.from_numpy(block.copy()))
        else:
            phi = _passed(opened, side, name, done, ask)
        found[name] = phi
        done += len(side)
    return found


def _passed(opened: network.Opened, side: Samples, name: str, done: int, ask: Questions) -> Tensor:
    """One pass of the backbone; done: how many samples come before this side's, which numbers its texts."""
    backbone = opened.backbone
    items = range(done, done + len(side)) if backbone.texts is not None else None
    inputs = Inputs(side) if items is None else [(torch.tensor(i), 0, i) for i in items]
    loader = DataLoader(
        inputs, batch_size=ask.batch_size, collate_fn=_collated, **loader_workers.settings(ask.num_workers)
    )
    phi = room(len(side), backbone.num_features, torch.float32, torch.device("cpu"), SCRATCH)
    recipe = dataclasses.replace(option("recipe", "small"), embedding_size=1)
    whole = Embedder(backbone, nn.Identity(), recipe).to(_device(opened, ask))
    start = 0
    for block in extract(whole, loader, name):
        phi[start : start + len(block)] = block
        start += len(block)
    backbone.cpu()
    return phi


def _collated(items: list) -> list[Tensor]:
    """default_collate, with one line for inputs that cannot be put together."""
    try:
        return default_collate(items)
    except RuntimeError as error:
        shapes = sorted({tuple(item[0].shape) for item in items})
        if len(shapes) > 1:
            raise UserError(
                f"inputs have different shapes, {shorten(shapes, 2)}; resize them to one"
            ) from None
        raise UserError(f"inputs cannot be put into one batch: {str(error).splitlines()[0]}") from error


def _device(opened: network.Opened | None, ask: Questions) -> torch.device:
    """The device asked for, or else the one that the caller's model is on; of arrays the processor."""
    if ask.device is None:
        return torch.device("cpu") if opened is None else opened.device
    try:
        return torch.empty(0, device=ask.device).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={ask.device}: {str(error).splitlines()[0]}") from None


def _check_directions(training: Training, names: Sequence[str]) -> None:
    """Raise UserError, naming the samples, if a training embedding is zero; `Frozen.test_side` checks the
    others."""
    zero = [
        rows.start + i for rows, part in parts(training) for i in (~part.z.any(1)).nonzero()[:, 0].tolist()
    ]
    if zero:
        named = shorten(names[i] for i in zero)
        raise UserError(
            f"train: {len(zero)} embedding(s) are all zeros ({named}), so that they have no direction; "
            "leave them out"
        )


def _embedder(backbone: nn.Module, head: Linear, loss: nn.Module, recipe) -> Embedder:
    """The model in the form that the other rooms know."""
    made = Embedder(backbone, loss, recipe)
    made.head = nn.Linear(*reversed(head.weight.shape))
    made.head.load_state_dict({"weight": head.weight, "bias": head.bias})
    return made.eval().requires_grad_(False)


class Data:
    """The samples by number, as `attribute.whole` reads them for params=last_block and params=all."""

    def __init__(self, sides: SampleSets, split: Split, ask: Questions):
        self.sides, self.split, self.ask, self.labels = sides, split, ask, split.train.labels

    def _side(self, part) -> Samples:
        if part is self.split.train:
            return self.sides.train
        return (
            self.sides.test if part is self.split.query or self.sides.gallery is None else self.sides.gallery
        )

    def item(self, part, i: int) -> Any:
        """Input i of a part."""
        side = self._side(part)
        return side.item(i) if side.rows is None else torch.from_numpy(np.array(side.rows[i], np.float32))

    def own(self, part) -> range:
        """All rows: there is one process."""
        return range(len(part))

    def in_order(self, part, rows: Sequence[int]) -> DataLoader:
        """A loader of some rows of a part."""
        return DataLoader(
            Subset(_Items(self, part), rows), batch_size=self.ask.batch_size, collate_fn=_collated
        )


class _Items(Sequence):
    def __init__(self, data: Data, part):
        self.data, self.part = data, part

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, i: int) -> tuple[Any, int, int]:
        return self.data.item(self.part, int(i)), 0, int(i)
