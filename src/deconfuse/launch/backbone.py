"""The features of a backbone that is not trained, once for every loss, noise and seed."""

import hashlib
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from deconfuse.attribution.features import find_or_extract_at
from deconfuse.compute.placement import MIXED
from deconfuse.data.images import FeatureRows
from deconfuse.data.split import Part, RowSpec, Split
from deconfuse.model.identity import Identity
from deconfuse.system.files import short_hash
from deconfuse.training.datamodule import DataModule
from deconfuse.training.embedder import Embedder


def in_features(
    split: Split, model: Embedder, output_dir: Path, num_workers: int, device: torch.device
) -> Split:
    """The split with each image replaced by its features; the split itself if it has features already.

    They are found in, or written to, OUTPUT_DIR/features, in a file whose name ends in a hash of the images,
    of how they are fed, of mixed precision, and of the backbone's weights.
    """
    if isinstance(split.image, RowSpec):
        return split
    backbone, parts = model.backbone, split.parts
    data = DataModule(split, split.train.labels, backbone, model.recipe, num_workers, 0)
    fed = [asdict(split.image), list(backbone.mean), list(backbone.std)]
    fed += [model.precision] if str(model.precision) in MIXED else []
    key = short_hash([split.fingerprints[1], fed, repr(backbone), fingerprint(backbone)])
    loaders = {name: data.in_order(part, data.own(part)) for name, part in parts.items()}
    path = output_dir / "features" / f"{key}.npz"
    found = find_or_extract_at(path, key, model.float().to(device), loaders)
    model.cpu()
    rows = {name: _rows(part, found[name].numpy()) for name, part in parts.items()}
    return replace(
        split,
        train=rows["train"],
        query=rows["query"],
        gallery=rows.get("gallery", rows["query"]),
        image=RowSpec(backbone.num_features),
    )


def alone(model: Embedder) -> Embedder:
    """A model whose inputs are the features of the model's backbone: its loss, and a head of its own."""
    if isinstance(model.backbone, Identity):
        return model
    return Embedder(Identity(model.backbone.num_features), model.loss, model.recipe)


def _rows(part: Part, features: np.ndarray) -> Part:
    return replace(part, images=FeatureRows(features), rows=np.arange(len(part)))


def fingerprint(backbone: nn.Module) -> str:
    """SHA-256 of the names and values of all weights and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
