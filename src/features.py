"""One deterministic pass of the frozen backbone: features (n, D), kept on disk."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader

from src.artifacts import file_hash, read_arrays, write_arrays
from src.embedder import Embedder
from src.errors import UserError
from src.progress import console, track


def extract(model: Embedder, loader: DataLoader, what: str) -> Float[Tensor, "n D"]:
    """phi of every sample of a loader, in its order, in eval mode, on the model's device; a CPU tensor."""
    model.eval()
    with torch.no_grad():
        batches = track(loader, f"features ({what})", len(loader))
        return torch.cat([model.backbone(images.to(model.device)).cpu() for images, _, _ in batches])


def find_or_extract(
    model: Embedder, loaders: dict[str, DataLoader], checkpoint: Path
) -> dict[str, Float[Tensor, "n D"]]:
    """Features by loader name, from the file beside the checkpoint if it was made with this one."""
    path = checkpoint.with_suffix(".features.npz")
    made_with = file_hash(checkpoint)
    if path.exists():
        try:
            found = read_arrays(path)
            if str(found.pop("checkpoint")) == made_with and found.keys() == loaders.keys():
                return {name: torch.from_numpy(array) for name, array in found.items()}
        except UserError as error:
            console.print(f"extracting features again: {error}")
    features = {name: extract(model, loader, name) for name, loader in loaders.items()}
    write_arrays(path, checkpoint=made_with, **{name: array.numpy() for name, array in features.items()})
    return features
