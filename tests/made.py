"""Small things that several tests make: a recipe, a split of drawn letters, a model with its data."""

from functools import partial

import torch

from deconfuse.data.build import build
from deconfuse.dataset import glyphs
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.model.small_cnn import SmallCNN
from deconfuse.training.datamodule import DataModule
from deconfuse.training.embedder import Embedder
from deconfuse.training.recipe import Recipe


def recipe(**changes) -> Recipe:
    settings = {
        "epochs": 3,
        "embedding_size": 8,
        "classes_per_batch": 4,
        "per_class": 2,
        "optimizer": partial(torch.optim.AdamW, weight_decay=0.01),
        "lr_backbone": 1e-3,
        "lr_head": 2e-3,
        "lr_proxies": 3e-2,
        "schedule": "cosine",
        "warmup_epochs": 1.0,
        "freeze_batchnorm": False,
        "clip_norm": None,
        "validate_every": 1,
        "eval_batch_size": 50,
        "checkpoints": 1,
    }
    return Recipe(**{**settings, **changes})


def model_and_data(num_workers: int = 0, seed: int = 0, **changes) -> tuple[Embedder, DataModule]:
    """A tiny network on 12 letters, 6 to train and 6 to test, 16 images each."""
    torch.manual_seed(seed)
    split = build(glyphs.load(classes=12, image_size=16))
    numbers = recipe(**changes)
    backbone = SmallCNN(1, width=4)
    model = Embedder(backbone, ProxyNCA(split.num_classes, numbers.embedding_size), numbers)
    return model, DataModule(split, split.train.labels, backbone, numbers, num_workers, seed)
