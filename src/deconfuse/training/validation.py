"""Measure retrieval after each validation epoch, and keep the history."""

from pathlib import Path

import pandas as pd
import pytorch_lightning as pl
import torch

from deconfuse.data.split import Split
from deconfuse.retrieval.metrics import metrics
from deconfuse.system import distributed
from deconfuse.system.files import write_csv


class Retrieval(pl.Callback):
    """Log the split's R@k and MAP@R on the test classes; history.csv has a row per measured epoch.

    The history is part of the checkpoint, so a run that was resumed has all of it.
    """

    def __init__(self, split: Split, history: Path):
        self.split, self.path = split, history
        self.rows: list[dict[str, float]] = []
        self.found: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        self.latest: dict[str, float] = {}

    def state_dict(self) -> dict:
        """What a checkpoint keeps."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict) -> None:
        """The rows up to the checkpoint."""
        self.rows = list(state_dict["rows"])

    def on_validation_epoch_start(self, trainer, pl_module) -> None:
        """Forget the last epoch's embeddings."""
        self.found = {}

    def on_validation_batch_end(
        self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0
    ) -> None:
        """Collect the embeddings that validation_step returned, with their rows."""
        self.found.setdefault(dataloader_idx, []).append((outputs.detach().cpu(), batch[2].cpu()))

    def on_validation_epoch_end(self, trainer, pl_module) -> None:
        """Measure by the directions of the embeddings, those of all processes."""
        query = self._embeddings(0, len(self.split.query))
        gallery = self._embeddings(1, len(self.split.gallery)) if 1 in self.found else query
        values = metrics(
            query,
            gallery,
            torch.from_numpy(self.split.query.labels),
            torch.from_numpy(self.split.gallery.labels),
            same=self.split.shared_gallery,
            ranks=self.split.recall_at,
            unit=True,
            twins=None if self.split.twins is None else torch.from_numpy(self.split.twins),
        )
        pl_module.log_dict(values)
        self.latest = values

    def _embeddings(self, loader: int, n: int) -> torch.Tensor:
        z, rows = (torch.cat(parts) for parts in zip(*self.found[loader], strict=True))
        return distributed.by_row(z.float(), rows, n)

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        """Lightning validates before it ends the epoch; only now is the epoch's mean loss known."""
        if self.latest:
            loss = trainer.callback_metrics["loss"].item()
            self.rows.append({"epoch": trainer.current_epoch + 1, "loss": loss, **self.latest})
        self.latest = {}

    def on_fit_end(self, trainer, pl_module) -> None:
        """Write history.csv."""
        if trainer.is_global_zero and self.rows:
            write_csv(self.path, pd.DataFrame(self.rows))
