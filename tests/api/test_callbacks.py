import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

import deconfuse as dc
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.system.errors import UserError
from tests import offline
from tests.api.data import Small, images

TRAIN, TEST = images(40, 4, 0), images(21, 3, 1, first=4)


class Module(pl.LightningModule):
    """A user's module: its own network, loss, and optimizer."""

    def __init__(self):
        super().__init__()
        self.net, self.loss_fn = Small(), ProxyNCA(4, 6)
        self.values = []

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        loss = self.loss_fn(self(batch[0]), batch[1]).mean()
        self.values.append(loss.item())
        return loss

    def validation_step(self, batch, _):
        self.log("norm", self(batch[0]).norm())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


def train(tmp_path, *callbacks, epochs=3, logger=False, module=None):
    torch.manual_seed(0)
    module = module or Module()
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=list(callbacks),
        logger=logger,
        accelerator="cpu",
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(each, pl.callbacks.ModelCheckpoint) for each in callbacks),
    )
    loaders = DataLoader(TRAIN, 8, shuffle=True), DataLoader(TEST, 8)
    trainer.fit(module, *loaders)
    return module, trainer


IGNORED = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*log_every_n_steps")


@IGNORED
def test_epochs_that_are_due_are_explained_and_training_is_not_changed(tmp_path):
    plain, _ = train(tmp_path / "plain")
    explain = dc.callbacks.Explain(every_n_epochs=2, folder=tmp_path / "reports")
    module, trainer = train(tmp_path / "explained", explain)
    assert module.values == plain.values
    for one, other in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)
    assert [row["epoch"] for row in explain.history] == [2, 3]
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == ["epoch_0002", "epoch_0003"]
    assert (tmp_path / "reports/epoch_0003/index.html").is_file()
    direct = dc.explain(module, train=TRAIN, test=TEST, loss=module.loss_fn)
    np.testing.assert_allclose(explain.found.influence, direct.influence, rtol=1e-4, atol=1e-6)
    assert trainer.callback_metrics["deconfuse/R@1"].item() == pytest.approx(direct.retrieval["R@1"])
    assert trainer.callback_metrics["deconfuse/confusions"].item() == len(direct.confusions)


@IGNORED
def test_a_checkpoint_is_chosen_by_what_is_logged(tmp_path):
    keeper = pl.callbacks.ModelCheckpoint(tmp_path / "kept", monitor="deconfuse/R@1", mode="max")
    explain = dc.callbacks.Explain()
    train(tmp_path, keeper, explain)
    best = max(row["deconfuse/R@1"] for row in explain.history)
    assert keeper.best_model_score.item() == pytest.approx(best)


@IGNORED
def test_a_logger_of_weights_and_biases_gets_the_tables(tmp_path):
    logger = pl.loggers.WandbLogger(project="test", save_dir=tmp_path, offline=True)
    explain = dc.callbacks.Explain(every_n_epochs=2)
    try:
        train(tmp_path, explain, logger=logger, epochs=2)
    finally:
        logger.experiment.finish()
    (page,) = offline.pages(tmp_path)
    keys = {key for row in page.history for key in row}
    assert {"deconfuse/R@1", "deconfuse/confusions"} <= keys
    columns, rows = page.table("deconfusetablesconfusions")
    assert len(rows) == len(explain.found.confusions)
    assert {"query_picture", "query", "distance"} <= set(columns)


@IGNORED
def test_a_part_of_the_module_and_its_own_data_are_explained(tmp_path):
    explain = dc.callbacks.Explain(model="net", train=TEST, test=TRAIN, loss="proxynca", influence="tracin")
    train(tmp_path, explain, epochs=1)
    assert explain.found.asked.choices["influence"] == "tracin"
    assert len(explain.found.samples) == 21


@IGNORED
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "nett"}, r"^model=nett is no part of the module; did you mean net"),
        ({"train": (np.zeros((3, 2)), [0, 1])}, r"^train labels: has shape \(2,\) for 3 samples"),
    ],
)
def test_a_mistake_shows_before_the_first_batch(tmp_path, arguments, message):
    module = Module()
    with pytest.raises(UserError, match=message):
        train(tmp_path, dc.callbacks.Explain(**arguments), module=module)
    assert module.values == []


def test_arguments_are_checked_where_they_are_given():
    with pytest.raises(UserError, match="did you mean influence"):
        dc.callbacks.Explain(influnce="eif")
    with pytest.raises(UserError, match="every_n_epochs=0"):
        dc.callbacks.Explain(0)


@IGNORED
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")
def test_a_trainer_of_the_package_lightning_has_the_same_numbers(tmp_path):
    """lightning.pytorch and pytorch_lightning are two packages whose classes do not know each other."""
    lightning = pytest.importorskip("lightning", reason="the package lightning is not installed")

    class Theirs(lightning.LightningModule):
        forward, training_step = Module.forward, Module.training_step
        validation_step, configure_optimizers = Module.validation_step, Module.configure_optimizers

        def __init__(self):
            super().__init__()
            self.net, self.loss_fn, self.values = Small(), ProxyNCA(4, 6), []

    here, there = (dc.callbacks.Explain(2, train=TRAIN, test=TEST) for _ in range(2))
    train(tmp_path, here)
    torch.manual_seed(0)
    module = Theirs()
    trainer = lightning.Trainer(
        max_epochs=3,
        callbacks=[there],
        logger=False,
        accelerator="cpu",
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, DataLoader(TRAIN, 8, shuffle=True), DataLoader(TEST, 8))
    assert there.history == here.history
    assert [each["epoch"] for each in there.history] == [2, 3]
    assert trainer.callback_metrics["deconfuse/R@1"] == pytest.approx(there.history[-1]["deconfuse/R@1"])
