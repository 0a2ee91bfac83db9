"""The network that is trained: backbone + linear head + loss, as a LightningModule."""

from collections.abc import Sequence
from contextlib import nullcontext

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from deconfuse.system import distributed
from deconfuse.system.errors import UserError
from deconfuse.training import shared_batch
from deconfuse.training.recipe import Recipe


class Embedder(pl.LightningModule):
    """z = W phi(x) + b, with phi the backbone, W (m, D) and b (m,) the head.

    recipe: optimizer, learning rates, schedule and whether BatchNorm is frozen. For a backbone that `embeds`,
    m = D, and W = 1 and b = 0 are not trained: z = phi(x). precision: trainer.precision, in which the frozen
    backbone's features are made.
    """

    precision: str | int | None = None

    def __init__(self, backbone: nn.Module, loss: nn.Module, recipe: Recipe):
        super().__init__()
        self.backbone, self.loss, self.recipe = backbone, loss, recipe
        self.head = nn.Linear(backbone.num_features, recipe.embedding_size)
        self.held: Tensor | None = None  # W0, which recipe.hold draws W to
        self.embeds = getattr(backbone, "embeds", False)
        if self.embeds:
            nn.init.eye_(self.head.weight)
            nn.init.zeros_(self.head.bias)
            self.head.requires_grad_(False)

    def forward(self, inputs: Float[Tensor, "B *input"]) -> Float[Tensor, "B m"]:
        """The embeddings z, not normalised. On a CPU images lie in memory pixel by pixel, as kernels do in
        training: convolutions are then up to twice as fast."""
        if inputs.ndim == 4 and inputs.device.type == "cpu":
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return self.head(self.backbone(inputs))

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch (inputs, labels, sample numbers); UserError if it is not finite.

        It is the mean over samples, or the `of_batch` of a loss that is no such mean. Each of several
        processes has a part of the batch and computes the loss of the whole batch.
        """
        inputs, labels, _ = batch
        # Frozen BatchNorm does not look at the batch.
        with nullcontext() if self.recipe.freeze_batchnorm else shared_batch.whole_batch():
            z = self.head(F.dropout(self.backbone(inputs), self.recipe.dropout))
        z, labels = shared_batch.joined(z), distributed.joined(labels)
        of_batch = getattr(self.loss, "of_batch", None)
        loss = of_batch(z, labels) if of_batch else self.loss(z, labels).mean()
        loss = loss + self.loss.regulariser() + self.pull()
        if not torch.isfinite(loss):
            # The two ways to clip exclude each other.
            clip = ", or set recipe.clip_norm=1" if self.recipe.clip_value is None else ""
            raise UserError(
                f"the training loss became {loss.item()} in epoch {self.current_epoch + 1}, batch "
                f"{batch_idx + 1}; lower recipe.lr_backbone (now {self.recipe.lr_backbone:g}) and "
                f"recipe.lr_head (now {self.recipe.lr_head:g}){clip}"
            )
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def pull(self) -> Tensor | float:
        """recipe.hold ||W - W0||^2 / ||W0||^2, nats; 0 where W is not held."""
        if self.held is None or not self.recipe.hold:
            return 0.0
        start = self.held.to(self.head.weight)
        return self.recipe.hold * (self.head.weight - start).square().sum() / start.square().sum()

    def on_train_start(self) -> None:
        """Give each process its own seed, as dropout must not be the same in all of them."""
        if distributed.rank():
            torch.manual_seed(torch.initial_seed() + distributed.rank())

    def validation_step(
        self, batch: Sequence[Tensor], batch_idx: int, dataloader_idx: int = 0
    ) -> Float[Tensor, "B m"]:
        """The embeddings, for the callback that measures retrieval."""
        return self(batch[0])

    def train(self, mode: bool = True) -> "Embedder":
        """Set training mode, except that frozen BatchNorm stays in evaluation mode."""
        super().train(mode)
        if mode and self.recipe.freeze_batchnorm:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def configure_optimizers(self) -> dict:
        """One parameter group each for backbone, head and proxies; proxies have no weight decay."""
        groups = [
            {"params": list(module.parameters()), "lr": rate, "name": name, **extra}
            for name, module, rate, extra in (
                ("backbone", self.backbone, self.recipe.lr_backbone, {}),
                ("head", self.head, self.recipe.lr_head, {}),
                ("proxies", self.loss, self.recipe.lr_proxies, {"weight_decay": 0.0}),
            )
        ]
        optimizer = self.recipe.optimizer([group for group in groups if group["params"]])
        total = max(int(self.trainer.estimated_stepping_batches), 1)
        epochs = self.trainer.max_epochs
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.recipe.rate(step, total, epochs)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
