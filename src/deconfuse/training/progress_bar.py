"""One line of progress for the whole training run."""

import pytorch_lightning as pl

from deconfuse.system.progress import bar


class Progress(pl.Callback):
    """A bar over batches of all epochs, with the epoch, the loss and the last R@1 beside it."""

    def __init__(self, what: str = "training"):
        self.what, self.bar, self.task = what, bar(), None

    def on_train_start(self, trainer, pl_module) -> None:
        """Draw the bar; a resumed run starts where it stands."""
        total = int(trainer.estimated_stepping_batches)
        self.bar.start()
        self.task = self.bar.add_task(self.what, total=total, completed=trainer.global_step, note="")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """One batch further."""
        recall = trainer.callback_metrics.get("R@1")
        found = f"  R@1 {recall.item():.3f}" if recall is not None else ""
        note = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  loss {outputs['loss'].item():.3f}"
        self.bar.update(self.task, completed=trainer.global_step, note=note + found)

    def on_train_end(self, trainer, pl_module) -> None:
        """Take the bar away."""
        self.bar.stop()

    def on_exception(self, trainer, pl_module, exception) -> None:
        """Take the bar away before the error is shown."""
        self.bar.stop()
