"""Explain checkpoints while training goes on, as if nothing had happened."""

from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.utilities.seed import isolate_rng


class Explain(pl.Callback):
    """Keep and explain the epochs that are due, all but the last one, which is explained after training.

    due(epoch): the epochs, counted from 1, to be explained as far as is known after an epoch; keep(state,
    epoch) writes a checkpoint, explain(checkpoint, epoch) reads it into a model of its own, so that nothing
    of the one in training is touched; forget(epoch): it was due once and is no more (a former best).
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
        """Of several processes all explain; random states are put back, as loaders draw from them."""
        epoch = trainer.current_epoch + 1
        due = self.due(epoch)
        if epoch in due and epoch < trainer.max_epochs:
            checkpoint = self.keep(pl_module.state_dict(), epoch)
            with isolate_rng():
                self.explain(checkpoint, epoch)
        for past in self.due(epoch - 1) - due:
            self.forget(past)
