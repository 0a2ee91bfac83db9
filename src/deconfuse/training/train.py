"""Find the checkpoint that belongs to a configuration, or train the model."""

import copy
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException

from deconfuse.compute import memory
from deconfuse.frozen.start import FILE, begin, proxies_at_means
from deconfuse.system import distributed
from deconfuse.system.errors import UserError
from deconfuse.system.files import disk, write_json
from deconfuse.system.lock import found_or_made
from deconfuse.system.progress import console
from deconfuse.system.signals import Stopped
from deconfuse.system.words import agree, many
from deconfuse.training import loader_workers, provenance
from deconfuse.training.callbacks import ExplainEpochs, Keep, Progress, Retrieval
from deconfuse.training.checkpoint import WholeFiles, forget, keep, load, path_at, read, resumable, save
from deconfuse.training.datamodule import DataModule
from deconfuse.training.devices import LEAVES_SOME_UNUSED, joint, trainer_of
from deconfuse.training.embedder import Embedder

FINAL, RESUME = "model.ckpt", "last.ckpt"
START = "start.ckpt"  # head and loss before the first step, of a training on frozen features
RANDOM = "proxies as drawn"  # in START: the loss's proxies before recipe.whiten placed them


def find_or_train(
    model: Embedder,
    data: DataModule,
    folder: Path,
    trainer,
    logger,
    settings: dict | None = None,
    moments=None,
) -> tuple[Path, bool]:
    """(the checkpoint, whether it existed already); afterwards the model has the checkpoint's weights.

    folder: its name depends on all that the weights depend on. trainer: a partial of Lightning's Trainer.
    settings: everything that the weights depend on. They are stored in the checkpoint, and a checkpoint of
    other settings is refused; None: neither.
    moments: which epochs are explained during training, and how (attribution/epochs.py); None: no epoch.
    A training that was interrupted continues after its last complete epoch. Only one of several jobs that
    need the checkpoint trains it, and the others wait.
    """
    final, unfinished = folder / FINAL, folder / RESUME

    def find() -> tuple[Path, bool] | None:
        if not final.exists():
            return None
        load(model, final, settings)
        with suppress(OSError):  # left by a killed job, perhaps in a read-only folder
            unfinished.unlink(missing_ok=True)
        return final, True

    def train() -> tuple[Path, bool]:
        drawn = start_of(model)
        start(model, data, folder)
        if model.recipe.frozen and distributed.first():
            random = {RANDOM: drawn["loss.proxies"]} if "loss.proxies" in drawn else {}
            save(start_of(model) | random, folder / START)
        try:
            fit(model, data, folder, trainer, logger, settings, moments)
        except (KeyboardInterrupt, Stopped):
            said(unfinished, model.recipe.epochs)
            raise
        if distributed.first():
            save(provenance.stamped(model.state_dict(), settings), final)
            unfinished.unlink(missing_ok=True)
        return final, False

    return found_or_made(final, find, train)


def start(model: Embedder, data: DataModule, folder: Path) -> None:
    """Put the head and the proxies where recipe.whiten starts them, and write start.json.

    Nothing without recipe.whiten; of a head that is not trained only the proxies are placed. It is repeated
    where a training is resumed, as recipe.hold draws W to its start.
    """
    if model.recipe.whiten is None:
        return
    left_out = data.drawn < 0 if (data.drawn < 0).any() else None
    if model.embeds:
        proxies_at_means(model.head, model.loss, data.split, data.labels, left_out, folder)
        return
    found = begin(model.head, model.loss, data.split, data.labels, left_out, model.recipe.whiten, folder)
    model.held = found.weight
    if distributed.first():
        write_json(folder / FILE, {"backbone": found.backbone, "whitened": found.whitened})


def start_of(model: Embedder) -> dict[str, torch.Tensor]:
    """Copies of the parameters of head and loss that are trained: `weight`, `bias` and `loss.NAME`."""
    named = {**dict(model.head.named_parameters()), **dict(model.loss.named_parameters(prefix="loss"))}
    return {name: value.detach().clone() for name, value in named.items() if value.requires_grad}


@dataclass(frozen=True)
class Start:
    """Where the trainings of one job begin: the untrained model, its data, and a partial of Lightning's
    Trainer."""

    untrained: Embedder
    data: DataModule
    trainer: Callable[..., pl.Trainer]


def another(
    start: Start,
    folder: Path,
    labels: np.ndarray,
    left_out: np.ndarray | None = None,
    settings: dict | None = None,
) -> tuple[Embedder, DataModule, Path, bool]:
    """(model, data, checkpoint, whether it existed already) for other labels, from the same initial weights.

    The other arguments are those of find_or_train. Random numbers drawn afterwards do not depend on whether
    the checkpoint was found; `start` is not changed.
    """
    model, data = copy.deepcopy(start.untrained), start.data
    own = DataModule(data.split, labels, model.backbone, data.recipe, data.num_workers, data.seed, left_out)
    own.pinned = data.pinned
    with torch.random.fork_rng(range(torch.cuda.device_count())), disk(folder):
        checkpoint, reused = find_or_train(model, own, folder, start.trainer, None, settings)
    return model, own, checkpoint, reused


def said(unfinished: Path, epochs: int) -> None:
    """Print how many epochs of a training that was stopped are on disk."""
    whole = read(unfinished)["epoch"] + 1 if unfinished.exists() else 0
    console.print(
        f"training stopped; {whole} of {many(epochs, 'epoch')} {agree(whole)} kept in {unfinished.parent}"
    )


def fit(
    model: Embedder,
    data: DataModule,
    folder: Path,
    trainer,
    logger,
    settings: dict | None = None,
    moments=None,
) -> None:
    """Train with Lightning; the last complete epoch is always on disk, and training goes on after it.

    Raises KeyboardInterrupt where Lightning would exit.
    """
    recipe, unfinished = model.recipe, folder / RESUME
    resume = unfinished if unfinished.exists() else None
    if resume:
        data.first_epoch = resumable(model, resume, settings)
        console.print(f"resuming training from {resume}")
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
                recipe.kept_epochs - {recipe.epochs}, lambda state, epoch: save(state, path_at(folder, epoch))
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
    with quick(model, made.strategy.root_device):
        carry_out(made, model, data, resume)


@contextmanager
def quick(model: Embedder, device: torch.device) -> Iterator[None]:
    """Inside, the model trains as fast as it can on the device; the results are the same but for rounding.

    On a CPU the kernels and the images of convolutions lie in memory pixel by pixel (channels_last), and the
    C library keeps what arrays give back. With recipe.compile the backbone is what torch.compile makes of it;
    its parameters are the same tensors under the same names, and afterwards it is itself again.
    """
    # Deterministic mode would also fill every new tensor: a fifth of the time, and nothing here reads one.
    torch.utils.deterministic.fill_uninitialized_memory = False
    if device.type == "cpu":
        memory.keep_freed()
        model.backbone.to(memory_format=torch.channels_last)
    if model.recipe.compile:
        _check_compile(model)
        model.backbone.compile()
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = str(error).strip().splitlines()[0][:120]
        raise UserError(f"recipe.compile=true: torch.compile fails here ({reason}); leave it out") from error
    finally:
        model.backbone._compiled_call_impl = None  # so that features do not depend on who trained
        if device.type == "cpu":
            memory.give_back()


def _check_compile(model: Embedder) -> None:
    if distributed.world() > 1 and not model.recipe.freeze_batchnorm:
        raise UserError(
            "recipe.compile=true in several processes needs recipe.freeze_batchnorm=true, as a "
            "BatchNorm over all processes is not compiled; set both, or train in one process"
        )


def _explaining(moments, folder: Path, retrieval: Retrieval) -> list[ExplainEpochs]:
    """The callback that explains checkpoints; what is due follows from what was measured so far."""
    if moments is None:
        return []

    def due(epoch: int) -> set[int]:
        return moments.due(epoch, retrieval.rows)  # looked up late: a resumed run's rows are other ones

    return [ExplainEpochs(due, partial(keep, folder), moments.while_training, partial(forget, folder))]


def carry_out(made: pl.Trainer, model: pl.LightningModule, data, resume: Path | None = None) -> None:
    """Lightning's fit without its warnings about loaders; raises KeyboardInterrupt where it would exit.

    data: a data module, or a loader of training batches.
    """
    with warnings.catch_warnings():
        # Loading is fast enough, modules are frozen on purpose, and a resumed training has files already.
        for text in (
            ".*does not have many workers.*",
            ".*in eval mode at the start of training.*",
            ".*exists and is not empty.*",
            ".*log_every_n_steps.*",
            ".*sync_dist=True.*",
        ):
            warnings.filterwarnings("ignore", text)
        try:
            with loader_workers.looked_after():
                made.fit(model, data, ckpt_path=resume)
        except SIGTERMException:  # our exception was raised in a place that lets none out
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
