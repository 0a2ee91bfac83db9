"""Many heads with their proxies trained from their start at once, each without some of the training samples.

Head h of g has a set of training samples that it keeps, k_h (n,) in {0, 1}, and labels y_h. On a batch B of
the whole training set, drawn as the run's own training draws it, its loss is that of the samples it keeps:

    L_h = sum_{i in B} k_hi l(W_h phi_i + b_h, y_hi; P_h) / sum_{i in B} k_hi  +  regulariser(P_h) + hold

which is what a training on the smaller data set computes, if each batch is the batch of the whole set with
the left-out rows skipped. The order of the others and the number of steps are those of the whole set, so two
heads of one seed differ only by what was left out. A batch of which nothing is kept has the regulariser and
the hold alone. Optimizer, rates, schedule, clipping and dropout are the recipe's.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap

from deconfuse.frozen.start import class_means, place_proxies
from deconfuse.frozen.whitening import scatter, whitening
from deconfuse.system.errors import UserError
from deconfuse.training.datamodule import DataModule
from deconfuse.training.embedder import Embedder


@dataclass(frozen=True)
class Rows:
    """The training side as heads see it: features (n, D); labels (g, n) and kept (g, n) of each head."""

    features: Float[Tensor, "n D"]
    labels: Int[Tensor, "g n"]
    kept: Bool[Tensor, "g n"]

    def some(self, heads: slice) -> "Rows":
        """The same features with the labels and the kept samples of some heads."""
        return Rows(self.features, self.labels[heads], self.kept[heads])


@dataclass(frozen=True)
class Heads:
    """g heads: weight (g, m, D), bias (g, m), proxies (g, c k, m), and W0, which recipe.hold draws W to."""

    weight: Float[Tensor, "g m D"]
    bias: Float[Tensor, "g m"]
    proxies: Float[Tensor, "g ck m"]
    held: Float[Tensor, "g m D"] | None = None

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """What is trained."""
        return self.weight, self.bias, self.proxies


class Criterion(nn.Module):
    """The loss of one head on a batch, as a function of its proxies: see the module's docstring."""

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss = loss

    def forward(self, z: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
        """The mean over the samples kept, and the regulariser; nats."""
        each = self.loss(z, labels) * kept
        return each.sum() / kept.sum().clamp_min(1) + self.loss.regulariser()


def check(model: Embedder) -> None:
    """UserError where the model is more than a head on fixed features, or its loss is of another kind."""
    if model.embeds:
        raise UserError("leave_out.confusions: the embeddings are the features, so there is no head to train")
    if any(parameter.numel() for parameter in model.backbone.parameters()):
        raise UserError(
            "leave_out.confusions trains a head hundreds of times on features that stay as they are, which "
            "would take days with the backbone; add recipe=frozen"
        )
    trained = {name for name, _ in model.loss.named_parameters()}
    if hasattr(model.loss, "of_batch") or trained != {"proxies"}:
        raise UserError(
            "leave_out.confusions needs a loss of proxies with one value per sample; take loss=softtriple or "
            "loss=proxynca"
        )


def redrawn(model: Embedder, seed: int | None) -> Embedder:
    """A copy of the untrained model; with a seed its head and its proxies are drawn at random again."""
    model = copy.deepcopy(model).requires_grad_(False)
    if seed is not None:
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            model.head.reset_parameters()
            proxies = model.loss.proxies
            proxies.copy_(torch.randn_like(proxies) * proxies.square().mean().sqrt())
    return model


def whitened(model: Embedder, rows: Rows) -> list[tuple[Tensor, Tensor]] | None:
    """(W0, b0) of each head by recipe.whiten, from the samples that it keeps; None without recipe.whiten."""
    shrink, head = model.recipe.whiten, model.head
    if shrink is None:
        return None
    found = []
    for labels, kept in zip(rows.labels, rows.kept, strict=True):
        weight, bias = whitening(scatter(rows.features, labels, kept), head.out_features, shrink)
        found.append((weight.to(head.weight.dtype), bias.to(head.weight.dtype)))
    return found


def begin(model: Embedder, rows: Rows, starts: list[tuple[Tensor, Tensor]] | None) -> Heads:
    """Where each head starts: as `training.train.start` has it, by the samples that the head keeps."""
    g, loss = len(rows.kept), model.loss
    if starts is None:
        each = (model.head.weight, model.head.bias, loss.proxies)
        return Heads(*(part.detach().clone().repeat(g, *[1] * part.ndim) for part in each))
    proxies = []
    for (weight, bias), labels, kept in zip(starts, rows.labels, rows.kept, strict=True):
        own = copy.deepcopy(loss)
        c = own.num_classes if hasattr(own, "num_classes") else len(own.proxies)
        place_proxies(own, class_means(rows.features, labels, weight, bias, c, kept))
        proxies.append(own.proxies.detach())
    weight, bias = (torch.stack(part) for part in zip(*starts, strict=True))
    return Heads(weight, bias, torch.stack(proxies), weight.clone())


def batches(data: DataModule, seed: int) -> tuple[Callable[[], Iterator[Int[Tensor, " B"]]], int]:
    """(a function that yields the rows of each batch of the recipe's epochs, how many batches)."""
    recipe, sampler = data.recipe, data.recipe.sampler(data.drawn, seed)
    return partial(sampler.rows, recipe.epochs), recipe.epochs * len(sampler)


def fit(
    model: Embedder, heads: Heads, rows: Rows, drawn: Iterator[Int[Tensor, " B"]], total: int, seed: int
) -> None:
    """Train the heads in place on `total` batches; seed: of recipe.dropout, the same for all heads."""
    recipe, slopes = model.recipe, [torch.zeros_like(part) for part in heads.tensors]
    own = [[nn.Parameter(view) for view in part] for part in heads.tensors]  # so that each is a parameter
    for parameters, slope in zip(own, slopes, strict=True):
        for parameter, view in zip(parameters, slope, strict=True):
            parameter.grad = view
    optimizer = recipe.optimizer(
        [
            {"params": own[0] + own[1], "lr": recipe.lr_head},
            {"params": own[2], "lr": recipe.lr_proxies, "weight_decay": 0.0},
        ]
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    criterion, random = Criterion(model.loss), torch.Generator().manual_seed(seed)
    for step, batch in enumerate(drawn):
        phi = rows.features[batch]
        if recipe.dropout:
            alive = torch.rand(phi.shape, generator=random) >= recipe.dropout
            phi = phi * alive / (1 - recipe.dropout)
        found = gradients(criterion, heads, phi, rows.labels[:, batch], rows.kept[:, batch], recipe.hold)
        for slope, new in zip(slopes, clipped(found, recipe.clip_norm, recipe.clip_value), strict=True):
            slope.copy_(new)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * recipe.rate(step, total)
        optimizer.step()


def gradients(
    criterion: Criterion,
    heads: Heads,
    phi: Float[Tensor, "B D"],
    labels: Int[Tensor, "g B"],
    kept: Bool[Tensor, "g B"],
    hold: float,
) -> tuple[Tensor, ...]:
    """dL_h / d(W_h, b_h, P_h) of every head: one product of the batch with all heads, and one back."""
    parts = [part.detach().requires_grad_() for part in heads.tensors]
    weight, bias, proxies = parts

    def of_one(z: Tensor, p: Tensor, y: Tensor, k: Tensor) -> Tensor:
        return functional_call(criterion, {"loss.proxies": p}, (z, y, k))

    with torch.enable_grad():
        z = F.linear(phi, weight.flatten(0, 1)).unflatten(1, weight.shape[:2]).transpose(0, 1)
        value = vmap(of_one)(z + bias[:, None], proxies, labels, kept.to(z.dtype)).sum()
        if heads.held is not None and hold:
            apart = (weight - heads.held).square().sum((1, 2)) / heads.held.square().sum((1, 2))
            value = value + hold * apart.sum()
        return torch.autograd.grad(value, parts)


def clipped(found: tuple[Tensor, ...], norm: float | None, value: float | None) -> list[Tensor]:
    """Each head's gradient clipped by its norm over all its parts, or entry by entry."""
    if value is not None:
        return [part.clamp(-value, value) for part in found]
    if norm is None:
        return list(found)
    size = sum(part.flatten(1).square().sum(1) for part in found).sqrt()
    factor = (norm / (size + 1e-6)).clamp_max(1)
    return [part * factor.view(-1, *[1] * (part.ndim - 1)) for part in found]
