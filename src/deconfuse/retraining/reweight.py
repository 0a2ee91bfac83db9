"""Does an explanation help? Train the head again with its helpful samples up and its harmful ones down.

For every explained pair or group P (Eq. 7 and 8), the head is trained for one more epoch from where it
stands, with a weight of 2 on the samples that score helpful (< 0), 0 on those that score harmful (> 0) and 1
on the rest; what is measured is d(P; theta') - d(P; theta_0), which is > 0 where the confusion is further
apart. All explanations see the same batches, so their changes can be compared pair by pair.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from deconfuse.attribution.head import Targets, Training, chunks
from deconfuse.data.sampler import BalancedBatches
from deconfuse.retraining.parallel_heads import CHUNK_BYTES, Heads, chunk_size
from deconfuse.retrieval.statistics import mean_interval
from deconfuse.system.errors import UserError, count, one_of, within
from deconfuse.system.progress import track
from deconfuse.training.callbacks import Progress
from deconfuse.training.datamodule import DataModule
from deconfuse.training.devices import device, trainer_of
from deconfuse.training.embedder import Embedder
from deconfuse.training.train import carry_out

MODES = ("none", "cached", "images")
IMAGES_BYTES = 4 * CHUNK_BYTES  # more heads at once: every chunk is another pass of the backbone


@dataclass(frozen=True)
class Changes:
    """d of every explained group before and after its own retraining, times the targets' sign; on a CPU.

    before and after in [-4, 4]; where it is -d that is explained (mis-similar pairs), they are -d.
    """

    before: Float[Tensor, " g"]
    after: Float[Tensor, " g"]

    @property
    def change(self) -> Float[Tensor, " g"]:
        """after - before (Eq. 7); > 0: the explanation helped, what was confused is further apart."""
        return self.after - self.before


@dataclass(frozen=True)
class Plan:
    """How the head is trained again; mode: none, cached (on features) or images (through the backbone).

    helpful, harmful: weights of the samples that score < 0 and > 0. optimizer: parameters -> torch's own.
    """

    mode: str
    epochs: int
    helpful: float
    harmful: float
    optimizer: Callable[..., torch.optim.Optimizer]
    seed: int

    def __post_init__(self):
        one_of("retrain.mode", self.mode, MODES)
        count("retrain.epochs", self.epochs, 1)
        for key in ("helpful", "harmful"):
            within(f"retrain.{key}", getattr(self, key), 0, float("inf"), open_end=True)
        count("retrain.seed", self.seed, 0)


def check(settings: object, params: str) -> None:
    """Raise UserError where settings is no group of keys, or where more than the head is attributed."""
    if not isinstance(settings, Mapping):
        raise UserError(f"retrain={settings} is not a group of keys; give retrain.mode=cached, or images")
    if settings["mode"] != "none" and params != "head":
        raise UserError(
            f"retrain.mode={settings['mode']} trains the head again, but params={params} attributes more; "
            "take params=head"
        )


def rehearse(plan: Plan, model: Embedder) -> None:
    """Take a step with two heads on made-up samples: an optimizer that can't move them shows at once."""
    if plan.mode == "none":
        return
    phi, labels = torch.eye(4, model.head.in_features), torch.zeros(4, dtype=torch.long)
    head = copy.deepcopy(model.head).requires_grad_(False)
    training = Training(phi, labels, head.weight, head.bias, model.loss)
    heads = Heads.start(training, torch.ones(2, 4))
    try:
        heads.learn(heads.optimizer(plan.optimizer), phi, labels, torch.arange(4))
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"retrain.optimizer: {str(error).splitlines()[0]} (check the keys under retrain.optimizer)"
        ) from error
    _finite(heads, 0)


def sample_weights(influence: Float[Tensor, "g n"], plan: Plan) -> Float[Tensor, "g n"]:
    """`helpful` where a sample scores < 0, `harmful` where it scores > 0, 1 where it scores 0."""
    weights = torch.ones_like(influence)
    return weights.masked_fill(influence < 0, plan.helpful).masked_fill(influence > 0, plan.harmful)


def reweight(
    plan: Plan,
    training: Training,
    targets: Targets,
    influence: Float[Tensor, "g n"],
    model: Embedder,
    data: DataModule,
    trainer: Callable[..., pl.Trainer],
    size: int | None = None,
) -> Changes | None:
    """Each group's d before and after its own retraining.

    None where the plan says none, or nothing was explained. trainer: a partial of Lightning's Trainer, for
    mode=images. size: heads trained at once (by memory); it changes no result beyond rounding. Raises
    UserError where a head is not finite afterwards.
    """
    if plan.mode == "none" or not len(targets):
        return None
    batch, images = data.recipe.classes_per_batch * data.recipe.per_class, plan.mode == "images"
    size = size or chunk_size(training, batch, IMAGES_BYTES if images else CHUNK_BYTES)
    where = device(trainer) if images else training.weight.device
    before, after = [], []
    for sides in chunks(targets, 1, 1 if _moves_together(plan) else size):
        rows = slice(sides.rows.start, sides.rows.stop)
        heads = Heads.start(training, sample_weights(influence[rows], plan), where)
        before.append(heads.distances(sides))
        what = f"retraining {rows.stop} of {len(targets)}"
        if images:
            through_backbone(heads, plan, model, data, trainer, what)
        else:
            on_features(heads, plan, training, data, what)
        _finite(heads, rows.start)
        after.append(heads.distances(sides))
    return Changes(torch.cat(before), torch.cat(after))


def on_features(heads: Heads, plan: Plan, training: Training, data: DataModule, what: str) -> None:
    """Train the heads on the cached features, which know no augmentation."""
    optimizer = heads.optimizer(plan.optimizer)
    sampler = _sampler(plan, data)
    for rows in track(_rows(sampler, plan.epochs), what, plan.epochs * len(sampler)):
        heads.learn(optimizer, training.features[rows], training.labels[rows], rows)


def _sampler(plan: Plan, data: DataModule) -> BalancedBatches:
    return BalancedBatches(data.labels, data.recipe.classes_per_batch, data.recipe.per_class, plan.seed)


def _rows(sampler: BalancedBatches, epochs: int) -> Iterator[Int[Tensor, " B"]]:
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        yield from (torch.tensor([row for row, _ in batch]) for batch in sampler)


class Reweighting(pl.LightningModule):
    """Heads behind a frozen backbone in eval mode; one forward pass of a batch serves them all."""

    def __init__(self, backbone: nn.Module, heads: Heads, plan: Plan):
        super().__init__()
        self.automatic_optimization = False  # the heads know their gradients, and are no modules
        self.backbone, self.loss, self.heads, self.plan = backbone, heads.loss, heads, plan
        self.train()

    def train(self, mode: bool = True) -> "Reweighting":
        """As usual, but the backbone stays in eval mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def training_step(self, batch: list[Tensor], batch_idx: int) -> dict[str, Tensor]:
        """One step of every head on a batch (images, labels, rows)."""
        images, labels, rows = batch
        with torch.no_grad():
            phi = self.backbone(images)
        return {"loss": torch.tensor(self.heads.learn(self.optimizers(), phi, labels, rows))}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The plan's, over the heads."""
        return self.heads.optimizer(self.plan.optimizer)


def through_backbone(
    heads: Heads, plan: Plan, model: Embedder, data: DataModule, trainer: Callable[..., pl.Trainer], what: str
) -> None:
    """Train the heads on augmented images, with Lightning, on the trainer's device, in float32."""
    again = copy.copy(data)
    again.seed, again.first_epoch, again.process = plan.seed, 0, (0, 1)
    made = trainer_of(
        trainer,
        devices=1,
        num_nodes=1,
        strategy="auto",
        precision="32-true",
        max_epochs=plan.epochs,
        callbacks=[Progress(what)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    carry_out(made, Reweighting(model.backbone, heads, plan), again.train_dataloader())


def _moves_together(plan: Plan) -> bool:
    """L-BFGS takes one step length for all it is given, so each head has to be given on its own."""
    return getattr(plan.optimizer, "func", plan.optimizer) is torch.optim.LBFGS


def _finite(heads: Heads, first: int) -> None:
    bad = torch.nonzero(~torch.isfinite(heads.weight).flatten(1).all(1))[:, 0]
    if len(bad):
        raise UserError(
            f"retrain: the head of explanation {first + int(bad[0])} is not finite after retraining; lower "
            "retrain.optimizer.lr"
        )


def report(changes: Changes | None, plan: Plan) -> dict | None:
    """Mean change and its 95 % interval over what was explained, and how it was measured."""
    found = None if changes is None else mean_interval(changes.change.double().numpy())
    if found is None:
        return None
    made = plan.optimizer([nn.Parameter(torch.zeros(1, 1))])
    return {
        "mode": plan.mode,
        "epochs": plan.epochs,
        "helpful": plan.helpful,
        "harmful": plan.harmful,
        "optimizer": type(made).__name__,
        "lr": made.defaults.get("lr"),
        **found,
    }
