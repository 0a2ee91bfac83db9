"""Fit the proxies of a loss to embeddings that stay as they are, as training does with a frozen network."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from deconfuse.system.errors import UserError
from deconfuse.system.progress import track
from deconfuse.training.recipe import Recipe


def fit(
    z: Float[Tensor, "n m"], labels: Int[Tensor, " n"], loss: nn.Module, recipe: Recipe, seed: int
) -> None:
    """Train a loss's parameters on embeddings z, in place: the batches, optimizer and schedule of a recipe.

    The same steps as `deconfuse run model=as_is recipe=small` takes, so that the same seed gives the same
    proxies. Raises UserError where the loss becomes infinite or NaN.
    """
    batches = recipe.sampler(labels.numpy(), seed)
    group = {"params": list(loss.parameters()), "lr": recipe.lr_proxies, "weight_decay": 0.0}
    optimizer, total = recipe.optimizer([group]), len(batches) * recipe.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: recipe.rate(step, total))
    for epoch in track(range(recipe.epochs), "fitting proxies (epochs)", recipe.epochs):
        batches.set_epoch(epoch)
        for batch in batches:
            rows = torch.tensor([i for i, _ in batch])
            value = _of_batch(loss, z[rows], labels[rows]) + loss.regulariser()
            if not torch.isfinite(value):
                raise UserError(
                    f"the loss of the proxies became {value.item()} in epoch {epoch + 1}; look for "
                    "embeddings that "
                    "are very large, or give your own loss"
                )
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
    loss.requires_grad_(False)


def _of_batch(loss: nn.Module, z: Tensor, labels: Tensor) -> Tensor:
    of_batch = getattr(loss, "of_batch", None)
    return of_batch(z, labels) if of_batch else loss(z, labels).mean()
