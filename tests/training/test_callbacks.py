import random
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from deconfuse.attribution.trajectory import When
from deconfuse.influence import tracin
from deconfuse.retrieval.confusion import retrieve
from deconfuse.retrieval.queries import Queries
from deconfuse.system.errors import UserError
from deconfuse.training.callbacks import ExplainEpochs, Retrieval
from deconfuse.training.train import find_or_train
from tests.attribution.test_epochs import TRAINER, made
from tests.made import model_and_data
from tests.training.test_train import StopAfter


class Dropping(nn.Module):
    """A backbone that draws from torch's random state while it is trained."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.num_features = backbone, backbone.num_features

    def forward(self, images):
        return nn.functional.dropout(self.backbone(images), 0.2, self.training)


class After(pl.Callback):
    """Remembers what could tell that something happened between two epochs."""

    def __init__(self):
        self.seen = []

    def on_train_epoch_start(self, trainer, module):
        modes = [part.training for part in module.modules()]
        wanted = [parameter.requires_grad for parameter in module.parameters()]
        states = torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
        layout = [parameter.stride() for parameter in module.parameters()]
        batches = trainer.train_dataloader.batch_sampler.epoch
        self.seen.append((modes, wanted, states, layout, batches, torch.is_grad_enabled()))

    def on_train_end(self, trainer, module):
        self.seen.append(trainer.optimizers[0].state_dict()["state"])


def trained(folder, when, explain=True, **changes):
    """(weights, what was seen on the way) of a training with or without the callback."""
    model, data = model_and_data(epochs=4, **changes)
    model.backbone = Dropping(model.backbone)
    after, moments = After(), made(model, data, when)
    torch.manual_seed(1)
    random.seed(2)
    np.random.seed(3)  # noqa: NPY002 - the state that must stay as it is

    def trainer(**settings):
        return TRAINER(**{**settings, "callbacks": [*settings["callbacks"], after]})

    find_or_train(model, data, folder, trainer, None, moments=moments if explain else None)
    return model.state_dict(), after.seen


def test_the_fit_goes_on_as_if_nothing_had_happened(tmp_path):
    """Same weights, bit for bit; same moments of the optimizer; same random states, modes and batches."""
    plain, want = trained(tmp_path / "plain", {}, explain=False, checkpoints=2)
    watched, seen = trained(tmp_path / "watched", {"when": "every_n_epochs", "every": 1})
    assert sorted(path.name for path in (tmp_path / "watched").glob("*.ckpt")) == [
        *("explained_0001.ckpt", "explained_0002.ckpt", "explained_0003.ckpt", "model.ckpt")
    ]
    for name, tensor in plain.items():
        assert torch.equal(tensor, watched[name]), name
    assert seen[:-1] == want[:-1]
    for one, other in zip(seen[-1].values(), want[-1].values(), strict=True):
        assert all(torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key])) for key in one)
    one, other = ((tmp_path / name / "history.csv").read_bytes() for name in ("plain", "watched"))
    assert one == other


def ended(callback, epoch, last=9):
    """The callback at the end of an epoch, without a training around it."""
    trainer = SimpleNamespace(current_epoch=epoch - 1, max_epochs=last)
    callback.on_train_epoch_end(trainer, nn.Linear(2, 1))


@pytest.mark.parametrize(
    ("recalls", "calls", "left"),
    [
        ([0.3, 0.6, 0.5, 0.6, 0.2], ["keep 1", "explain 1", "keep 2", "explain 2", "forget 1"], {2}),
        ([0.3, 0.2, 0.2, 0.2, 0.5], ["keep 1", "explain 1", "forget 1"], set()),  # the last is best
    ],
)
def test_the_best_so_far_takes_the_place_of_the_one_before(recalls, calls, left):
    rows, found, there = [], [], set()

    def keep(state, epoch):
        found.append(f"keep {epoch}")
        there.add(epoch)
        return f"{epoch}.ckpt"

    def forget(epoch):
        found.append(f"forget {epoch}")
        there.discard(epoch)

    callback = ExplainEpochs(
        lambda epoch: When("best").due(epoch, set(), rows),
        keep,
        lambda path, epoch: found.append(f"explain {path.split('.')[0]}"),
        forget,
    )
    for epoch, recall in enumerate(recalls, 1):
        rows.append({"epoch": epoch, "R@1": recall})
        ended(callback, epoch, last=5)
    assert (found, there) == (calls, left)


def test_resumed_training_neither_loses_nor_repeats_an_explanation(tmp_path):
    """Cut in the explanation of epoch 2, then in epoch 3, then whole."""
    words, calls = {"when": "every_n_epochs", "every": 1}, []

    def explainer(training, targets):
        calls.append(len(list(tmp_path.glob("*.eif.npz"))))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return tracin.scores(training, targets)

    def stopping(**settings):
        return TRAINER(**{**settings, "callbacks": [*settings["callbacks"], StopAfter(2)]})

    for trainer, done in ((TRAINER, 1), (stopping, 2), (TRAINER, 3)):
        model, data = model_and_data(epochs=4)
        moments = made(model, data, words, explainer=partial(explainer))
        with pytest.raises(KeyboardInterrupt) if done < 3 else nullcontext():
            find_or_train(model, data, tmp_path, trainer, None, moments=moments)
        assert len(list(tmp_path.glob("*.eif.npz"))) == done
    assert calls == [0, 1, 1, 2]
    for epoch in (1, 2, 3):  # each belongs to its checkpoint: found, not made
        moments.explain(tmp_path / f"explained_{epoch:04d}.ckpt", epoch)
    assert len(calls) == 4


def test_an_epoch_that_can_not_be_explained_is_said_and_training_goes_on(tmp_path, capsys):
    model, data = model_and_data(epochs=2)

    def explainer(training, targets):
        raise UserError("influence: no")

    moments = made(model, data, {"when": "every_n_epochs", "every": 1}, explainer=partial(explainer))
    checkpoint, _ = find_or_train(model, data, tmp_path, TRAINER, None, moments=moments)
    assert checkpoint.exists()
    assert (tmp_path / "explained_0001.ckpt").exists()
    assert "epoch 1 could not be explained, training goes on: influence: no" in capsys.readouterr().err


@pytest.mark.parametrize("offset", [0.0, 300.0])
@pytest.mark.parametrize("case", ["same", "other", "twins"])
def test_a_measured_epoch_has_the_recall_of_the_finished_run(tmp_path, case, offset):
    """The embeddings in batches and out of order give what `retrieve` gives of all."""
    random = torch.Generator().manual_seed(0)
    z, other = (torch.randn(61, 4, generator=random) + offset for _ in range(2))
    labels, theirs = torch.arange(61) % 9, torch.arange(61) % 7
    same, twins = case == "same", None
    if case == "twins":
        other, theirs, twins = z.flip(0), labels.flip(0), torch.arange(60, -1, -1)
    gallery, theirs = (z, labels) if same else (other, theirs)
    split = SimpleNamespace(
        query=Rows(labels.numpy()), gallery=Rows(theirs.numpy()), shared_gallery=same, recall_at=(1, 2, 8)
    )
    split.twins = None if twins is None else twins.numpy()
    logged, callback = {}, Retrieval(split, tmp_path / "history.csv")
    callback.on_validation_epoch_start(None, None)
    for loader, side in enumerate((z,) if same else (z, gallery)):
        for rows in torch.randperm(61, generator=random).split(13):
            callback.on_validation_batch_end(None, None, side[rows], (None, None, rows), 0, loader)
    callback.on_validation_epoch_end(None, SimpleNamespace(log_dict=logged.update))
    test = Queries(z, gallery, labels, theirs, same, twins)
    confusions, found = retrieve(test, (1, 2, 8))
    assert logged == found
    counted = sum(int(y in theirs) for y in labels) if case == "other" else 61
    assert round(found["R@1"] * counted) == counted - len(confusions)


class Rows:
    """The labels of one side of a split."""

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)
