"""Measure whether explanations help: train the head again with more weight on helpful samples.

For every explained pair or group P (Eq. 7 and 8), the trained head is trained for one more epoch with a
weight of 2 on samples that score helpful (< 0), 0 on those that score harmful (> 0) and 1 on the others. What
is measured is d(P; theta') - d(P; theta_0), which is > 0 if the confused samples have moved apart. All
explanations are retrained on the same batches, so their changes can be compared pair by pair.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor, nn

from deconfuse.attribution.head import Targets, Training, chunks
from deconfuse.compute.placement import exact
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
IMAGES_BYTES = 4 * CHUNK_BYTES  # larger, as every chunk of heads costs another pass of the backbone


@dataclass(frozen=True)
class Changes:
    """d of every explained group before and after its own retraining, times the targets' sign; on a CPU.

    before and after are in [0, 4]; if -d is explained, as for mis-similar pairs, they are -d, in [-4, 0].
    """

    before: Float[Tensor, " g"]
    after: Float[Tensor, " g"]

    @property
    def change(self) -> Float[Tensor, " g"]:
        """after - before (Eq. 7); > 0: the explanation helped, the confused samples are further apart."""
        return self.after - self.before


@dataclass(frozen=True)
class Retraining:
    """How the head is trained again for each explanation.

    mode: none, cached (on the cached features) or images (through the frozen backbone, with augmentation);
    helpful, harmful: the weights of samples that score < 0 and > 0; optimizer: makes one of torch.optim's
    from a list of parameters; seed: of the batches.
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


@dataclass(frozen=True)
class BatchSource:
    """What the batches of a retraining are made of.

    data: the training set and how it is drawn; model: for mode=images, whose backbone makes the features;
    trainer: for mode=images, a partial of Lightning's Trainer.
    """

    model: Embedder
    data: DataModule
    trainer: Callable[..., pl.Trainer]


def check(settings: object, params: str) -> None:
    """Raise UserError if settings is not a group of keys, or if more than the head is attributed."""
    if not isinstance(settings, Mapping):
        raise UserError(f"retrain={settings} is not a group of keys; give retrain.mode=cached, or images")
    if settings["mode"] != "none" and params != "head":
        raise UserError(
            f"retrain.mode={settings['mode']} trains the head again, but params={params} attributes more; "
            "take params=head"
        )


def rehearse(plan: Retraining, model: Embedder) -> None:
    """Take a step with two heads on made-up samples; raise UserError if the optimizer can't."""
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


def sample_weights(influence: Float[Tensor, "g n"], plan: Retraining) -> Float[Tensor, "g n"]:
    """`helpful` where a sample scores < 0, `harmful` where it scores > 0, 1 where it scores 0."""
    weights = torch.ones_like(influence)
    return weights.masked_fill(influence < 0, plan.helpful).masked_fill(influence > 0, plan.harmful)


@exact()
def reweight(
    plan: Retraining,
    training: Training,
    targets: Targets,
    influence: Float[Tensor, "g n"],
    source: BatchSource,
) -> Changes | None:
    """Each group's d before and after its own retraining.

    None if the plan's mode is none, or nothing was explained. Heads are trained side by side, as many as fit
    into memory; how many does not change a result beyond rounding. Raises UserError if a head is not finite
    after its retraining.
    """
    if plan.mode == "none" or not len(targets):
        return None
    recipe, images = source.data.recipe, plan.mode == "images"
    batch = recipe.classes_per_batch * recipe.per_class
    size = chunk_size(training, batch, IMAGES_BYTES if images else CHUNK_BYTES)
    where = device(source.trainer) if images else training.weight.device
    before, after = [], []
    for sides in chunks(targets, 1, 1 if _moves_together(plan) else size):
        rows = slice(sides.rows.start, sides.rows.stop)
        heads = Heads.start(training, sample_weights(influence[rows], plan), where)
        before.append(heads.distances(sides))
        what = f"retraining {rows.stop} of {len(targets)}"
        if images:
            through_backbone(heads, plan, source, what)
        else:
            on_features(heads, plan, training, source.data, what)
        _finite(heads, rows.start)
        after.append(heads.distances(sides))
    return Changes(torch.cat(before), torch.cat(after))


def on_features(heads: Heads, plan: Retraining, training: Training, data: DataModule, what: str) -> None:
    """Train the heads on the cached features, which are those of images without augmentation."""
    optimizer = heads.optimizer(plan.optimizer)
    sampler = _sampler(plan, data)
    for rows in track(sampler.rows(plan.epochs), what, plan.epochs * len(sampler)):
        phi, where = training.features, heads.weight.device
        heads.learn(optimizer, phi[rows.to(phi.device)].to(where), training.labels[rows.to(where)], rows)


def _sampler(plan: Retraining, data: DataModule) -> BalancedBatches:
    return BalancedBatches(data.drawn, data.recipe.classes_per_batch, data.recipe.per_class, plan.seed)


class Reweighting(pl.LightningModule):
    """Heads behind a frozen backbone in eval mode; one forward pass of a batch serves all heads."""

    def __init__(self, backbone: nn.Module, heads: Heads, plan: Retraining):
        super().__init__()
        self.automatic_optimization = False  # the heads are no modules and compute their gradients
        self.backbone, self.loss, self.heads, self.plan = backbone, heads.loss, heads, plan
        self.train()

    def train(self, mode: bool = True) -> "Reweighting":
        """As every module's, but the backbone stays in eval mode."""
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
        """The plan's optimizer, of all heads."""
        return self.heads.optimizer(self.plan.optimizer)


def through_backbone(heads: Heads, plan: Retraining, source: BatchSource, what: str) -> None:
    """Train the heads on augmented images, with Lightning, on the trainer's device, in float32."""
    again = copy.copy(source.data)
    again.seed, again.first_epoch, again.process = plan.seed, 0, (0, 1)
    made = trainer_of(
        source.trainer,
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
    carry_out(made, Reweighting(source.model.backbone, heads, plan), again.train_dataloader())


def _moves_together(plan: Retraining) -> bool:
    """True for L-BFGS: it has one step length for all its parameters, so each head needs its own."""
    return getattr(plan.optimizer, "func", plan.optimizer) is torch.optim.LBFGS


def _finite(heads: Heads, first: int) -> None:
    bad = torch.nonzero(~torch.isfinite(heads.weight).flatten(1).all(1))[:, 0]
    if len(bad):
        raise UserError(
            f"retrain: the head of explanation {first + int(bad[0])} is not finite after retraining; lower "
            "retrain.optimizer.lr"
        )


def report(changes: Changes | None, plan: Retraining) -> dict | None:
    """Mean change and its 95 % interval over the explanations, and the settings of the retraining."""
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
