"""How a model is trained: the checked settings of conf/recipe/."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

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
    included; influence=tracin sums over them.
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

    def __post_init__(self):
        sizes = ("classes_per_batch", "per_class", "embedding_size", "eval_batch_size")
        for key in ("epochs", "validate_every", "step_epochs", "checkpoints", *sizes):
            count(f"recipe.{key}", getattr(self, key), 1)
        for key in ("lr_backbone", "lr_head", "lr_proxies", "warmup_epochs"):
            at_least(f"recipe.{key}", getattr(self, key), 0)
        one_of("recipe.sampling", self.sampling, SAMPLINGS)
        one_of("recipe.schedule", self.schedule, ("cosine", "constant", "step"))
        within("recipe.step_factor", self.step_factor, 0, 1)
        flag("recipe.freeze_batchnorm", self.freeze_batchnorm)
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
