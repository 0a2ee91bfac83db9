"""Lightning callbacks that show progress, measure retrieval, and keep and explain checkpoints."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng

from deconfuse.data.split import Split
from deconfuse.retrieval.metrics import metrics
from deconfuse.retrieval.queries import Queries
from deconfuse.system import distributed
from deconfuse.system.csv_files import write_csv
from deconfuse.system.progress import bar


class Keep(pl.Callback):
    """Call save(state, epoch) with the model's state dict after each of `epochs`, which count from 1."""

    def __init__(self, epochs: set[int], save: Callable[[dict, int], None]):
        self.epochs, self.save = epochs, save

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        """Only the first of several processes saves."""
        epoch = trainer.current_epoch + 1
        if epoch in self.epochs and trainer.is_global_zero:
            self.save(pl_module.state_dict(), epoch)


class ExplainEpochs(pl.Callback):
    """Keep and explain the checkpoints of epochs that are due; the last epoch is explained after training.

    due(epoch): the epochs, counted from 1, that are to be explained as far as is known after an epoch.
    keep(state, epoch) writes a checkpoint and returns its path. explain(checkpoint, epoch) reads it into
    another model, so the model in training is not changed. forget(epoch) removes the checkpoint of an epoch
    that is no longer due because a later one is better.
    """

    def __init__(
        self,
        due: Callable[[int], set[int]],
        keep: Callable[[dict, int], Path],
        explain: Callable[[Path, int], None],
        forget: Callable[[int], None],
    ):
        self.due, self.keep, self.explain, self.forget = due, keep, explain, forget

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        """All processes explain. The random state is restored afterwards, as training draws from it."""
        epoch = trainer.current_epoch + 1
        due = self.due(epoch)
        if epoch in due and epoch < trainer.max_epochs:
            checkpoint = self.keep(pl_module.state_dict(), epoch)
            with isolate_rng():
                self.explain(checkpoint, epoch)
        for past in self.due(epoch - 1) - due:
            self.forget(past)


class Progress(pl.Callback):
    """A bar over the batches of all epochs, with the epoch, the loss and the last R@1."""

    def __init__(self, what: str = "training"):
        self.what, self.bar, self.task = what, bar(), None

    def on_train_start(self, trainer, pl_module) -> None:
        """Show the bar; that of a resumed training starts at its first batch."""
        total = int(trainer.estimated_stepping_batches)
        self.bar.start()
        self.task = self.bar.add_task(self.what, total=total, completed=trainer.global_step, note="")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """Advance the bar by one batch."""
        recall = trainer.callback_metrics.get("R@1")
        found = f"  R@1 {recall.item():.3f}" if recall is not None else ""
        note = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  loss {outputs['loss'].item():.3f}"
        self.bar.update(self.task, completed=trainer.global_step, note=note + found)

    def on_train_end(self, trainer, pl_module) -> None:
        """Remove the bar."""
        self.bar.stop()

    def on_exception(self, trainer, pl_module, exception) -> None:
        """Remove the bar before the error is shown."""
        self.bar.stop()


class Retrieval(pl.Callback):
    """Log R@k and MAP@R on the test classes, and write a row of history.csv for each measured epoch.

    The rows are part of the checkpoint, so the history of a resumed training is complete.
    """

    def __init__(self, split: Split, history: Path):
        self.split, self.path = split, history
        self.rows: list[dict[str, float]] = []
        self.found: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        self.latest: dict[str, float] = {}

    def state_dict(self) -> dict:
        """The rows so far, which Lightning stores in the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict) -> None:
        """Take over the rows that a checkpoint stores."""
        self.rows = list(state_dict["rows"])

    def on_validation_epoch_start(self, trainer, pl_module) -> None:
        """Discard the embeddings of the previous epoch."""
        self.found = {}

    def on_validation_batch_end(
        self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0
    ) -> None:
        """Collect the embeddings that validation_step returned, with the rows they belong to."""
        self.found.setdefault(dataloader_idx, []).append((outputs.detach().cpu(), batch[2].cpu()))

    def on_validation_epoch_end(self, trainer, pl_module) -> None:
        """Measure retrieval by the normalised embeddings of all processes."""
        query = self._embeddings(0, len(self.split.query))
        gallery = self._embeddings(1, len(self.split.gallery)) if 1 in self.found else query
        labels = (torch.from_numpy(part.labels) for part in (self.split.query, self.split.gallery))
        twins = None if self.split.twins is None else torch.from_numpy(self.split.twins)
        test = Queries(query, gallery, *labels, self.split.shared_gallery, twins)
        values = metrics(test, ranks=self.split.recall_at, unit=True)
        pl_module.log_dict(values)
        self.latest = values

    def _embeddings(self, loader: int, n: int) -> torch.Tensor:
        z, rows = (torch.cat(parts) for parts in zip(*self.found[loader], strict=True))
        return distributed.by_row(z.float(), rows, n)

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        """Add the epoch's row; its mean loss is known only now, after Lightning's validation."""
        if self.latest:
            loss = trainer.callback_metrics["loss"].item()
            self.rows.append({"epoch": trainer.current_epoch + 1, "loss": loss, **self.latest})
        self.latest = {}

    def on_fit_end(self, trainer, pl_module) -> None:
        """Write history.csv."""
        if trainer.is_global_zero and self.rows:
            write_csv(self.path, pd.DataFrame(self.rows))
