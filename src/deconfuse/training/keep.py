"""Keep the weights of some epochs."""

from collections.abc import Callable

import pytorch_lightning as pl


class Keep(pl.Callback):
    """Hand the model's state to `save(state, epoch)` after each of the epochs named, counted from 1."""

    def __init__(self, epochs: set[int], save: Callable[[dict, int], None]):
        self.epochs, self.save = epochs, save

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        """One process of several writes."""
        epoch = trainer.current_epoch + 1
        if epoch in self.epochs and trainer.is_global_zero:
            self.save(pl_module.state_dict(), epoch)
