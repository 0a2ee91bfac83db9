"""Find the checkpoint that belongs to a configuration, or train it."""

import io
import os
import shutil
import signal
import warnings
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

from src import provenance, shards
from src.artifacts import whole_file
from src.callback.explain import Explain
from src.callback.keep import Keep
from src.callback.progress import Progress
from src.callback.retrieval import Retrieval
from src.datamodule import DataModule
from src.embedder import Embedder
from src.errors import UserError
from src.lock import found_or_made
from src.progress import console
from src.stop import Stopped

FINAL, RESUME = "model.ckpt", "last.ckpt"
LEAVES_SOME_UNUSED = "ddp_find_unused_parameters_true"
PATIENCE = timedelta(days=7)  # of processes that wait for one of them: who is lost is found in other ways


def find_or_train(
    model: Embedder,
    data: DataModule,
    folder: Path,
    trainer,
    logger,
    settings: dict | None = None,
    moments=None,
) -> tuple[Path, bool]:
    """(checkpoint, whether it was there already); the model then has the checkpoint's weights.

    folder: named after everything the weights depend on. trainer: a partial of Lightning's Trainer.
    settings: what the weights depend on; kept in the checkpoint, and one that was made with others is
    refused (None: neither).
    moments: which epochs are explained while training goes on, and how (src.moments); None: none.
    Training that was cut short goes on after its last whole epoch. Of several processes one trains, and
    the others wait for it.
    """
    final, unfinished = folder / FINAL, folder / RESUME

    def find() -> tuple[Path, bool] | None:
        if not final.exists():
            return None
        load(model, final, settings)
        with suppress(
            OSError
        ):  # of a process that was killed between the two, in a folder that may be closed
            unfinished.unlink(missing_ok=True)
        return final, True

    def train() -> tuple[Path, bool]:
        resume = unfinished if unfinished.exists() else None
        if resume:
            data.first_epoch = resumable(model, resume, settings)
            console.print(f"resuming training from {resume}")
        try:
            fit(model, data, folder, trainer, logger, resume, settings, moments)
        except (KeyboardInterrupt, Stopped):
            said(unfinished, model.recipe.epochs)
            raise
        if shards.first():
            save(provenance.stamped(model.state_dict(), settings), final)
            unfinished.unlink(missing_ok=True)
        return final, False

    return found_or_made(final, find, train)


def said(unfinished: Path, epochs: int) -> None:
    """What of a training that was stopped is on disk."""
    whole = read(unfinished)["epoch"] + 1 if unfinished.exists() else 0
    console.print(f"training stopped; {whole} of {epochs} epochs are kept in {unfinished.parent}")


def fit(
    model: Embedder,
    data: DataModule,
    folder: Path,
    trainer,
    logger,
    resume: Path | None,
    settings: dict | None = None,
    moments=None,
) -> None:
    """Train with Lightning; the last whole epoch is always on disk.

    Raises KeyboardInterrupt where Lightning would exit.
    """
    recipe = model.recipe
    # Deterministic mode would also fill every new tensor: a fifth of the time, and nothing here reads one.
    torch.utils.deterministic.fill_uninitialized_memory = False
    keeper = ModelCheckpoint(
        folder, Path(RESUME).stem, save_on_train_epoch_end=True, enable_version_counter=False
    )
    retrieval = Retrieval(data.split, folder / "history.csv")
    made = trainer_of(
        trainer,
        plugins=[WholeFiles(settings)],
        max_epochs=recipe.epochs,
        gradient_clip_val=recipe.clip_norm if recipe.clip_value is None else recipe.clip_value,
        gradient_clip_algorithm="norm" if recipe.clip_value is None else "value",
        check_val_every_n_epoch=recipe.validate_every,
        callbacks=[
            retrieval,
            Keep(
                recipe.kept_epochs - {recipe.epochs}, lambda state, epoch: save(state, _kept(folder, epoch))
            ),
            *_explaining(moments, folder, retrieval),
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


def _explaining(moments, folder: Path, retrieval: Retrieval) -> list[Explain]:
    """The callback that explains checkpoints; what is due follows from what was measured so far."""
    if moments is None:
        return []

    def due(epoch: int) -> set[int]:
        return moments.due(epoch, retrieval.rows)  # looked up late: a resumed run's rows are other ones

    return [Explain(due, partial(_keep, folder), moments.while_training, partial(_forget, folder))]


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
        except SIGTERMException:  # where ours was raised in a place that lets no exception out
            raise Stopped(signal.SIGTERM) from None
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


def kept_at(folder: Path, epoch: int) -> Path:
    """The checkpoint after an epoch: recipe.checkpoints' where there is one, else influence.when's."""
    path = _kept(folder, epoch)
    return path if path.exists() else folder / f"explained_{epoch:04d}.ckpt"


def epoch_of(path: Path) -> int:
    """The epoch, counted from 1, that a checkpoint's name says."""
    return int(path.stem.rpartition("_")[2])


def _keep(folder: Path, state: dict, epoch: int) -> Path:
    """The checkpoint of an epoch for its explanation, written where recipe.checkpoints keeps none."""
    if shards.first() and not _kept(folder, epoch).exists():
        save(state, kept_at(folder, epoch))
    shards.wait()  # the others look for what the first has written, here or as recipe.checkpoints'
    return kept_at(folder, epoch)


def _forget(folder: Path, epoch: int) -> None:
    """Remove an epoch's checkpoint and all made from it, unless recipe.checkpoints keeps it."""
    for path in folder.glob(f"explained_{epoch:04d}.*") if shards.first() else []:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def history(checkpoint: Path) -> list[dict]:
    """The rows of the history.csv beside a checkpoint: what was measured while it was trained.

    Raises UserError where it is damaged or gone.
    """
    path = checkpoint.parent / "history.csv"
    try:
        return pd.read_csv(path, usecols=["epoch", "R@1"]).to_dict("records")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(
            f"{path}: can't be read ({reason}), so nobody knows which epoch was best; take "
            f"influence.when=every_n_epochs, or delete {path.parent} to train again"
        ) from None


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

    def __init__(self, settings: dict | None = None):
        self.settings = settings

    def save_checkpoint(self, checkpoint: dict, path: str, storage_options=None) -> None:
        """Write beside the target, then rename."""
        save(provenance.stamped(checkpoint, self.settings), Path(path))


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


def load(model: Embedder, path: Path, settings: dict | None = None) -> None:
    """Put a checkpoint's weights into the model; UserError where it is damaged, another's, or made with other
    settings (None: any)."""
    state = read(path)
    provenance.check(path, state, settings)
    _fill(model, state, path)


def resumable(model: Embedder, path: Path, settings: dict | None) -> int:
    """The epoch, counted from 0, that training goes on with; UserError where the file is not this model's."""
    content = read(path)
    if not {"epoch", "state_dict", "optimizer_states", "lr_schedulers"} <= content.keys():
        raise UserError(f"{path}: not a checkpoint that training goes on from; delete it and run again")
    provenance.check(path, content, settings)
    _fill(model, content["state_dict"], path)
    return content["epoch"] + 1


def _fill(model: Embedder, state: dict, path: Path) -> None:
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> UserError:
    reason = str(error).strip().splitlines()[0].split(". ")[0]
    return UserError(f"{path}: not a whole checkpoint of this model ({reason}); delete it and run again")
