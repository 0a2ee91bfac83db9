"""Write checkpoints atomically, read them, and name those that are kept by their epochs."""

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
    """Write a checkpoint completely or not at all."""
    memory = io.BytesIO()  # on a full disk, torch's own writer fails with an assertion
    torch.save(content, memory)
    with whole_file(path) as partial:
        partial.write_bytes(memory.getbuffer())


class WholeFiles(TorchCheckpointIO):
    """Lightning's checkpoint writer that writes atomically; a move between file systems is not atomic."""

    def __init__(self, settings: dict | None = None):
        self.settings = settings

    def save_checkpoint(self, checkpoint: dict, path: str, storage_options=None) -> None:
        """Write a temporary file beside the target, then rename it."""
        save(provenance.stamped(checkpoint, self.settings), Path(path))

    def load_checkpoint(self, path: str, map_location=None, weights_only: bool | None = None) -> dict:
        """Read only tensors and plain values, whatever Lightning's version would do."""
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)


def read(path: Path) -> dict:
    """The content of a checkpoint, only tensors and plain values; UserError if the file is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zip and pickle each have their own for a damaged file
        raise _damaged(path, error) from None


def load(model: Embedder, path: Path, settings: dict | None = None) -> None:
    """Load the weights of a checkpoint into the model.

    Raises UserError if the file is damaged, of another model, or made with other settings (None: any).
    """
    state = read(path)
    provenance.check(path, state, settings)
    _fill(model, state, path)


def resumable(model: Embedder, path: Path, settings: dict | None) -> int:
    """Load an unfinished training, and return its next epoch, counted from 0; errors as those of `load`."""
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
    """The path of the checkpoint that recipe.checkpoints keeps after an epoch."""
    return folder / f"epoch_{epoch:04d}.ckpt"


def kept_at(folder: Path, epoch: int) -> Path:
    """The path of an epoch's checkpoint: the one that recipe.checkpoints keeps, or else influence.when's."""
    path = path_at(folder, epoch)
    return path if path.exists() else folder / f"explained_{epoch:04d}.ckpt"


def kept(checkpoint: Path) -> list[Path]:
    """The checkpoints that recipe.checkpoints kept before the last one, by epoch."""
    return sorted(checkpoint.parent.glob("epoch_*.ckpt"))


def epoch_of(path: Path) -> int:
    """The epoch, counted from 1, in the name of a checkpoint."""
    return int(path.stem.rpartition("_")[2])


def keep(folder: Path, state: dict, epoch: int) -> Path:
    """The checkpoint of an epoch that is to be explained; written if recipe.checkpoints keeps none."""
    if distributed.first() and not path_at(folder, epoch).exists():
        save(state, kept_at(folder, epoch))
    distributed.wait()  # the other processes read what the first one has written
    return kept_at(folder, epoch)


def forget(folder: Path, epoch: int) -> None:
    """Remove the checkpoint that was kept for an explanation, and all files made from it."""
    for path in folder.glob(f"explained_{epoch:04d}.*") if distributed.first() else []:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def history(checkpoint: Path) -> list[dict]:
    """The rows of history.csv beside a checkpoint, one for each epoch measured during training.

    Raises UserError if the file is damaged or missing.
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
