"""Checkpoints: written whole, read by the model they are of alone, kept under their epochs' names."""

import io
import shutil
from pathlib import Path

import pandas as pd
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from deconfuse.system import distributed
from deconfuse.system.errors import UserError
from deconfuse.system.files import whole_file
from deconfuse.training import provenance
from deconfuse.training.embedder import Embedder


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


def path_at(folder: Path, epoch: int) -> Path:
    """Where recipe.checkpoints keeps the checkpoint after an epoch."""
    return folder / f"epoch_{epoch:04d}.ckpt"


def kept_at(folder: Path, epoch: int) -> Path:
    """The checkpoint after an epoch: recipe.checkpoints' where there is one, else influence.when's."""
    path = path_at(folder, epoch)
    return path if path.exists() else folder / f"explained_{epoch:04d}.ckpt"


def kept(checkpoint: Path) -> list[Path]:
    """The checkpoints kept before the last one, in the order they were made."""
    return sorted(checkpoint.parent.glob("epoch_*.ckpt"))


def epoch_of(path: Path) -> int:
    """The epoch, counted from 1, that a checkpoint's name says."""
    return int(path.stem.rpartition("_")[2])


def keep(folder: Path, state: dict, epoch: int) -> Path:
    """The checkpoint of an epoch for its explanation, written where recipe.checkpoints keeps none."""
    if distributed.first() and not path_at(folder, epoch).exists():
        save(state, kept_at(folder, epoch))
    distributed.wait()  # the others look for what the first has written, here or as recipe.checkpoints'
    return kept_at(folder, epoch)


def forget(folder: Path, epoch: int) -> None:
    """Remove an epoch's checkpoint and all made from it, unless recipe.checkpoints keeps it."""
    for path in folder.glob(f"explained_{epoch:04d}.*") if distributed.first() else []:
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
