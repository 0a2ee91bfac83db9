"""How a model is trained: the checked settings of conf/recipe/."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from deconfuse.data.sampler import BalancedBatches
from deconfuse.system.errors import UserError, at_least, count, flag, one_of, within

INSTANCE_BALANCED, CLASS_BALANCED = SAMPLINGS = "instance_balanced", "class_balanced"


@dataclass(frozen=True)
class Recipe:
    """Epochs, batches, optimizer and schedule of one training run.

    A batch holds at most classes_per_batch x per_class images. sampling: instance_balanced, every sample once
    an epoch, or class_balanced, every class equally often (Kang et al., ICLR 2020, Decoupling Representation
    and Classifier for Long-Tailed Recognition). lr_*: learning rate of each parameter group.
    schedule: cosine (to 0), constant, or step (times step_factor every step_epochs), after warmup_epochs of
    linear warm-up. clip_norm: largest gradient norm; clip_value: largest entry of the gradient; null for
    none, and at most one of the two. checkpoints: how many are kept, evenly over the epochs, the last one
    included; influence=tracin sums over them. compile: train the backbone as torch.compile makes it, which
    pays after its first minutes; what is computed is the same, rounded in other places.
    frozen: the backbone is not trained; its features are computed once, and head and proxies are trained on
    them. whiten: the head starts from `frozen.whitening` with this shrinkage, and each class's proxies from
    its mean; null: random. hold: the weight of ||W - W0||^2 / ||W0||^2 in the training loss, nats, W0 being
    the head's start. dropout: the share of the features that are set to 0 in training, the others being
    scaled up.
    """

    epochs: int
    classes_per_batch: int
    per_class: int
    embedding_size: int
    optimizer: Callable
    lr_backbone: float
    lr_head: float
    lr_proxies: float
    schedule: str
    warmup_epochs: float
    freeze_batchnorm: bool
    clip_norm: float | None
    validate_every: int
    eval_batch_size: int
    checkpoints: int = 1
    sampling: str = INSTANCE_BALANCED
    clip_value: float | None = None
    step_epochs: int = 20
    step_factor: float = 0.1
    compile: bool = False
    frozen: bool = False
    whiten: float | None = None
    hold: float = 0.0
    dropout: float = 0.0

    def __post_init__(self):
        sizes = ("classes_per_batch", "per_class", "embedding_size", "eval_batch_size")
        for key in ("epochs", "validate_every", "step_epochs", "checkpoints", *sizes):
            count(f"recipe.{key}", getattr(self, key), 1)
        for key in ("lr_backbone", "lr_head", "lr_proxies", "warmup_epochs"):
            at_least(f"recipe.{key}", getattr(self, key), 0)
        one_of("recipe.sampling", self.sampling, SAMPLINGS)
        one_of("recipe.schedule", self.schedule, ("cosine", "constant", "step"))
        within("recipe.step_factor", self.step_factor, 0, 1)
        for key in ("freeze_batchnorm", "frozen", "compile"):
            flag(f"recipe.{key}", getattr(self, key))
        at_least("recipe.hold", self.hold, 0)
        within("recipe.dropout", self.dropout, 0, 1, open_end=True)
        if self.whiten is not None:
            at_least("recipe.whiten", self.whiten, 0)
        if not self.frozen and (self.whiten is not None or self.hold or self.dropout):
            raise UserError(
                "recipe.whiten, recipe.hold and recipe.dropout are for features that stay as they are; add "
                "recipe.frozen=true, or take recipe=frozen"
            )
        if self.hold and self.whiten is None:
            raise UserError(
                "recipe.hold draws W to its whitened start; give recipe.whiten=0.3, or recipe.hold=0"
            )
        try:
            self.optimizer([torch.nn.Parameter(torch.zeros(1))])
        except (TypeError, ValueError) as error:
            raise UserError(f"recipe.optimizer: {error}") from None
        for key in ("clip_norm", "clip_value"):
            if getattr(self, key) is not None:
                at_least(f"recipe.{key}", getattr(self, key), 0)
        if self.clip_norm is not None and self.clip_value is not None:
            raise UserError(
                f"recipe.clip_norm={self.clip_norm} and recipe.clip_value={self.clip_value} are both set; "
                "clip by one of them and set the other to null"
            )

    @property
    def kept_epochs(self) -> set[int]:
        """The epochs, counted from 1, after which a checkpoint is kept; the last epoch is among them."""
        number = min(self.checkpoints, self.epochs)
        return {round(self.epochs * i / number) for i in range(1, number + 1)}

    def sampler(
        self, labels: np.ndarray, seed: int, epoch: int = 0, process: tuple[int, int] = (0, 1)
    ) -> BalancedBatches:
        """The batches of an epoch of samples with these labels; process: see `BalancedBatches`."""
        balanced = self.sampling == CLASS_BALANCED
        return BalancedBatches(labels, self.classes_per_batch, self.per_class, seed, epoch, process, balanced)

    def rate(self, step: int, total: int, epochs: int | None = None) -> float:
        """The factor of the learning rates at a step of `total`, counted from 0; epochs: the recipe's own."""
        epochs = epochs or self.epochs
        warm = self.warmup_epochs * total / max(epochs, 1)
        if step < warm:
            return (step + 1) / (warm + 1)
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "step":
            return self.step_factor ** (step * epochs // total // self.step_epochs)
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1)))


@dataclass(frozen=True)
class Record:
    """How a head on frozen features was trained, for a method that goes back through the training.

    seed: of the batches; drawn: the labels by which samples were drawn, -1 for those that were not; start: W,
    b and the loss's parameters before the first step, as `weight`, `bias` and `loss.NAME`, empty where that
    was not kept; end: W after the training, None where it is not known; random: the loss's proxies before
    recipe.whiten placed them, None where that was not kept.
    """

    recipe: Recipe
    seed: int
    drawn: Int[np.ndarray, " n"]
    start: dict[str, Tensor]
    end: Float[Tensor, "m D"] | None
    random: Float[Tensor, "ck m"] | None = None
