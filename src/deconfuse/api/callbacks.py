"""Lightning callbacks for a caller's own Trainer: confusions, scores and a report while a model trains."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pytorch_lightning as pl
from torch import nn

from deconfuse.adapt.losses import fitted, is_cross_entropy
from deconfuse.adapt.prepare import Head, Loss
from deconfuse.adapt.questions import Asked, Questions
from deconfuse.adapt.samples import read
from deconfuse.api.explain import explain
from deconfuse.api.found import Found
from deconfuse.system import distributed
from deconfuse.system.errors import UserError, count, did_you_mean
from deconfuse.system.progress import console
from deconfuse.tracking import dashboard

LOSSES = ("loss", "loss_fn", "loss_func", "criterion", "objective")  # where a module keeps its loss


class Watched(Asked, total=False):
    """The further keyword arguments of the callback: those of `explain`, and where and what it watches."""

    model: str | None
    folder: str | Path | None


class Explain(pl.Callback):
    """Explain the model after every n-th epoch and after the last one; see `deconfuse.explain`.

    train, test: data sets without random augmentation; None: those of the Trainer's loaders. model: the name
    of the part of the module that embeds; None: the module itself. loss: None: the module's own, where it has
    one that gives a value per sample, or else proxies that are fitted. folder: for reports, in epoch_0001 and
    so on; None: none. asked: as of `explain`.

    Logs deconfuse/R@1, deconfuse/MAP@R, deconfuse/confusions and deconfuse/relabels, by which ModelCheckpoint
    can choose; with a WandbLogger also the tables. `found` is the latest result, `history` the numbers of
    all. The model in training, its random numbers and its gradients are not changed. Of several processes the
    first explains, on all data, while the others wait.
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        *,
        train: Any = None,
        test: Any = None,
        head: Head = None,
        loss: Loss = None,
        **asked: Unpack[Watched],
    ):
        self.every = count("every_n_epochs", every_n_epochs, 1)
        self.train, self.test, self.head, self.loss = train, test, head, loss
        self.model, folder = asked.pop("model", None), asked.pop("folder", None)
        self.folder = None if folder is None else Path(folder)
        Questions.of(asked)
        self.asked: dict[str, Any] = {"progress": False, **asked}
        self.found: Found | None = None
        self.history: list[dict[str, float]] = []

    def on_train_start(self, trainer, pl_module) -> None:
        """Look at the data and the module now, as an error after an epoch would cost its time."""
        part = self._part(pl_module)
        for name, side in self._sides(trainer).items():
            read(side, name, part is not None)

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        """Explain the model if this epoch is due."""
        epoch = trainer.current_epoch + 1
        if epoch % self.every and epoch != trainer.max_epochs:
            return
        values: dict[str, float] = {}
        if trainer.is_global_zero:
            with distributed.alone():
                values = self._explain(trainer, pl_module, epoch)
        trainer.strategy.barrier("deconfuse")
        if trainer.world_size > 1:
            values = trainer.strategy.broadcast(values)
        pl_module.log_dict(values, sync_dist=trainer.world_size > 1)  # all have the same

    def _explain(self, trainer, pl_module, epoch: int) -> dict[str, float]:
        sides = self._sides(trainer)
        loss = self.loss if self.loss is not None else own_loss(pl_module)
        self.found = explain(self._part(pl_module), **sides, head=self.head, loss=loss, **self.asked)
        values = {f"deconfuse/{name}": float(value) for name, value in self.found.retrieval.items()}
        values["deconfuse/confusions"] = float(len(self.found.confusions))
        values["deconfuse/relabels"] = float(len(self.found.relabels))
        self.history.append({"epoch": epoch, **values})
        if self.folder is not None:
            self.found.report(self.folder / f"epoch_{epoch:04d}")
        for logger in trainer.loggers:
            if type(logger).__name__ == "WandbLogger":
                _send(logger.experiment, self.found, trainer.global_step)
        return values

    def _part(self, pl_module) -> nn.Module:
        """The part of the module that embeds; UserError where there is none of that name."""
        if self.model is None:
            return pl_module
        parts = dict(pl_module.named_modules())
        if self.model not in parts:
            names = [name for name, _ in pl_module.named_children()]
            raise UserError(f"model={self.model} is no part of the module; {did_you_mean(self.model, names)}")
        return parts[self.model]

    def _sides(self, trainer) -> dict[str, Any]:
        """The data sets given, or else those of the Trainer's loaders."""
        train = self.train if self.train is not None else _dataset(trainer.train_dataloader)
        test = self.test if self.test is not None else _dataset(_validation(trainer))
        for name, side in (("train", train), ("test", test)):
            if side is None:
                raise UserError(
                    f"callbacks.Explain: the Trainer has no data for {name}=; hand over a data set"
                )
        return {"train": train, "test": test}


def own_loss(module: nn.Module) -> nn.Module | Callable | None:
    """The loss that a module keeps in an attribute, where its value of a sample is the sample's own."""
    for name in LOSSES:
        found = getattr(module, name, None)
        if is_cross_entropy(found):
            return found
        if isinstance(found, nn.Module) and not isinstance(found, pl.LightningModule):
            size = _size(found)
            if size is None:
                continue
            try:
                fitted(found, size)
            except UserError as error:
                console.print(f"callbacks.Explain: {error}")
                continue
            return found
    return None


def _size(loss: nn.Module) -> int | None:
    """The embedding size of a loss with proxies."""
    shapes = {"W": 0, "fc": 0, "proxies": 1}
    for name, axis in shapes.items():
        weight = getattr(loss, name, None)
        if isinstance(weight, nn.Parameter) and weight.ndim == 2:
            return weight.shape[axis]
    return None


def _validation(trainer) -> Any:
    """The validation loader, also before it was used for the first time."""
    found = trainer.val_dataloaders
    if found is None and trainer.datamodule is not None:
        found = trainer.datamodule.val_dataloader()
    return found


def _dataset(loaders: Any) -> Any:
    """The data set of a loader, or of the first of several."""
    if isinstance(loaders, (list, tuple)) and loaders:
        loaders = loaders[0]
    if isinstance(loaders, Mapping) and loaders:
        loaders = next(iter(loaders.values()))
    return getattr(loaders, "dataset", None)


def _send(run, found: Found, step: int) -> None:
    """Log the tables of what was found to a W&B run."""
    with dashboard.data_beside(run):
        tables = dashboard.tables(found.tables, found.findings, np.asarray(found.influence))
        run.log(
            {f"deconfuse/{name}": table for name, table in tables.items()} | {"trainer/global_step": step}
        )
