"""Find the checkpoint that belongs to a configuration, or train it."""

import io
import os
import warnings
from datetime import timedelta
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from src import shards
from src.artifacts import whole_file
from src.callback.keep import Keep
from src.callback.progress import Progress
from src.callback.retrieval import Retrieval
from src.datamodule import DataModule
from src.embedder import Embedder
from src.errors import UserError
from src.lock import found_or_made
from src.progress import console

FINAL, RESUME = "model.ckpt", "last.ckpt"
LEAVES_SOME_UNUSED = "ddp_find_unused_parameters_true"
PATIENCE = timedelta(days=7)  # of processes that wait for one of them: who is lost is found in other ways


def find_or_train(model: Embedder, data: DataModule, folder: Path, trainer, logger) -> tuple[Path, bool]:
    """(checkpoint, whether it was there already); the model then has the checkpoint's weights.

    folder: named after everything the weights depend on. trainer: a partial of Lightning's Trainer.
    Training that was cut short goes on after its last whole epoch. Of several processes one trains, and
    the others wait for it.
    """
    final, unfinished = folder / FINAL, folder / RESUME

    def find() -> tuple[Path, bool] | None:
        if not final.exists():
            return None
        load(model, final)
        return final, True

    def train() -> tuple[Path, bool]:
        resume = unfinished if unfinished.exists() else None
        if resume:
            data.first_epoch = read(resume)["epoch"] + 1
            console.print(f"resuming training from {resume}")
        fit(model, data, folder, trainer, logger, resume)
        if shards.first():
            save(model.state_dict(), final)
            unfinished.unlink(missing_ok=True)
        return final, False

    return found_or_made(final, find, train)


def fit(model: Embedder, data: DataModule, folder: Path, trainer, logger, resume: Path | None) -> None:
    """Train with Lightning; the last whole epoch is always on disk.

    Raises KeyboardInterrupt where Lightning would exit.
    """
    recipe = model.recipe
    # Deterministic mode would also fill every new tensor: a fifth of the time, and nothing here reads one.
    torch.utils.deterministic.fill_uninitialized_memory = False
    keeper = ModelCheckpoint(
        folder, Path(RESUME).stem, save_on_train_epoch_end=True, enable_version_counter=False
    )
    made = trainer_of(
        trainer,
        plugins=[WholeFiles()],
        max_epochs=recipe.epochs,
        gradient_clip_val=recipe.clip_norm if recipe.clip_value is None else recipe.clip_value,
        gradient_clip_algorithm="norm" if recipe.clip_value is None else "value",
        check_val_every_n_epoch=recipe.validate_every,
        callbacks=[
            Retrieval(data.split, folder / "history.csv"),
            Keep(
                recipe.kept_epochs - {recipe.epochs}, lambda state, epoch: save(state, _kept(folder, epoch))
            ),
            Progress(),
            keeper,
        ],
        logger=logger or False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        strategy=joint(trainer),
    )
    carry_out(made, model, data, resume)


def carry_out(made: pl.Trainer, model: pl.LightningModule, data, resume: Path | None = None) -> None:
    """Lightning's fit without what it says of loaders; raises KeyboardInterrupt where it would exit.

    data: a data module, or the loader of training batches.
    """
    with warnings.catch_warnings():
        # What loads fast enough and what is frozen is ours to judge, and a resumed folder is not empty.
        for text in (
            ".*does not have many workers.*",
            ".*in eval mode at the start of training.*",
            ".*exists and is not empty.*",
            ".*log_every_n_steps.*",
            ".*sync_dist=True.*",
        ):
            warnings.filterwarnings("ignore", text)
        try:
            made.fit(model, data, ckpt_path=resume, weights_only=True)
        except SystemExit:
            raise KeyboardInterrupt from None
        except RuntimeError as error:
            if "find_unused_parameters=True" not in str(error):
                raise
            raise UserError(
                "trainer: some of the model's parameters take no part in the loss, which several processes "
                f"have to know; add trainer.strategy={LEAVES_SOME_UNUSED}"
            ) from error
    if made.interrupted:
        raise KeyboardInterrupt


def _kept(folder: Path, epoch: int) -> Path:
    return folder / f"epoch_{epoch:04d}.ckpt"


def kept(checkpoint: Path) -> list[Path]:
    """The checkpoints kept before the last one, in the order they were made."""
    return sorted(checkpoint.parent.glob("epoch_*.ckpt"))


def trainer_of(trainer, **settings) -> pl.Trainer:
    """Lightning's Trainer, or one line about what it can't do here (trainer.accelerator=gpu)."""
    try:
        return trainer(**settings)
    except (MisconfigurationException, ModuleNotFoundError, ValueError) as error:
        raise UserError(f"trainer: {str(error).strip().splitlines()[0]}") from None


def save(content: dict, path: Path) -> None:
    """Write a checkpoint whole or not at all."""
    memory = io.BytesIO()  # torch's own writer turns a full disk into an assertion
    torch.save(content, memory)
    with whole_file(path) as partial:
        partial.write_bytes(memory.getbuffer())


class WholeFiles(TorchCheckpointIO):
    """Lightning writes elsewhere and moves, which between file systems is a copy that can be cut short."""

    def save_checkpoint(self, checkpoint: dict, path: str, storage_options=None) -> None:
        """Write beside the target, then rename."""
        save(checkpoint, Path(path))


def device(trainer) -> torch.device:
    """The device that a partial of Lightning's Trainer works on."""
    return strategy(trainer).root_device


def strategy(trainer) -> Strategy:
    """What Lightning makes of a partial of its Trainer: one process, or several with a device each."""
    found = trainer_of(trainer, logger=False, enable_checkpointing=False).strategy
    if not isinstance(found, (SingleDeviceStrategy, DDPStrategy)):
        raise UserError(
            f"trainer: {type(found).__name__} shares a model out in a way that is not known here; take "
            "trainer=auto for one process or trainer=ddp for several"
        )
    return found


def joint(trainer) -> Strategy | str:
    """Lightning's strategy for this process, alone or among others.

    Buffers are not sent around: they are equal, as BatchNorm sees the whole batch, and validation passes
    as many batches as a process has.
    """
    if shards.world() == 1:
        return "auto"
    unused = trainer.keywords.get("strategy") == LEAVES_SOME_UNUSED
    return DDPStrategy(forward_sync_buffers=False, find_unused_parameters=unused, timeout=PATIENCE)


def join(trainer) -> None:
    """Make this process one of several; Lightning knows how they were started and who is which.

    Raises UserError where more or fewer were started than the trainer's settings say.
    """
    several = DDPStrategy(timeout=PATIENCE)
    trainer_of(trainer, logger=False, enable_checkpointing=False, strategy=several)
    try:
        several.cluster_environment.validate_settings(several.num_processes, several.num_nodes)
    except ValueError:
        started = several.cluster_environment.world_size()
        raise UserError(
            f"trainer: {started} processes were started, but trainer.devices={several.num_processes} x "
            f"trainer.num_nodes={several.num_nodes}; give the numbers of those"
        ) from None
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // several.num_processes))
    several.setup_environment()


def read(path: Path) -> dict:
    """A checkpoint file's content, nothing but tensors and plain values; UserError where it is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zip and pickle each have their own for a damaged file
        raise _damaged(path, error) from None


def load(model: Embedder, path: Path) -> None:
    """Put a checkpoint's weights into the model; raises UserError where it is damaged or another's."""
    try:
        model.load_state_dict(read(path))
    except (RuntimeError, TypeError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> UserError:
    reason = str(error).strip().splitlines()[0].split(". ")[0]
    return UserError(f"{path}: not a whole checkpoint of this model ({reason}); delete it and run again")
