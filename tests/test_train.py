from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch

from src.errors import UserError
from src.train import find_or_train, kept, load
from tests.made import model_and_data

TRAINER = partial(pl.Trainer, accelerator="cpu", devices=1)


class StopAfter(pl.Callback):
    """Ends the process's training as Ctrl-C would, in the middle of an epoch."""

    def __init__(self, epoch: int):
        self.epoch = epoch

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.current_epoch == self.epoch and batch_idx == 1:
            raise KeyboardInterrupt


def trainer_that_stops(epoch, **settings):
    settings["callbacks"] = [*settings["callbacks"], StopAfter(epoch)]
    return TRAINER(**settings)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_that_was_interrupted_ends_with_the_same_bits(tmp_path, workers):
    whole, data = model_and_data(workers)
    find_or_train(whole, data, tmp_path / "whole", TRAINER, None)

    cut, data = model_and_data(workers)
    with pytest.raises(KeyboardInterrupt):
        find_or_train(cut, data, tmp_path / "cut", partial(trainer_that_stops, 1), None)
    assert not (tmp_path / "cut" / "model.ckpt").exists()
    assert (tmp_path / "cut" / "last.ckpt").exists()

    again, data = model_and_data(workers, seed=5)  # other weights: they must come from the file
    data.seed = 0
    checkpoint, reused = find_or_train(again, data, tmp_path / "cut", TRAINER, None)
    assert not reused
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert (tmp_path / "cut/history.csv").read_bytes() == (tmp_path / "whole/history.csv").read_bytes()
    assert not (tmp_path / "cut" / "last.ckpt").exists()

    third, data = model_and_data()
    assert find_or_train(third, data, tmp_path / "cut", TRAINER, None) == (checkpoint, True)
    assert torch.equal(third.head.weight, whole.head.weight)


def test_checkpoints_kept_are_the_weights_of_their_epochs(tmp_path):
    """Training for fewer epochs at a constant rate passes through the same weights."""
    rates = {"schedule": "constant", "warmup_epochs": 0.0}
    model, data = model_and_data(epochs=4, checkpoints=2, **rates)
    checkpoint, _ = find_or_train(model, data, tmp_path / "four", TRAINER, None)
    assert [path.name for path in kept(checkpoint)] == ["epoch_0002.ckpt"]
    half, data = model_and_data(epochs=2, **rates)
    other, _ = find_or_train(half, data, tmp_path / "two", TRAINER, None)
    assert kept(other) == []
    load(model, kept(checkpoint)[0])
    for name, tensor in half.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_history_has_each_epochs_loss_and_retrieval(tmp_path):
    model, data = model_and_data(epochs=4)
    find_or_train(model, data, tmp_path, TRAINER, None)
    history = pd.read_csv(tmp_path / "history.csv")
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert list(history)[1:] == ["loss", "R@1", "R@2", "R@4", "R@8", "MAP@R"]
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    model.eval()
    from src.retrieval import metrics

    with torch.no_grad():
        z = torch.cat([model(images) for images, _, _ in data.in_order(data.split.query)])
    labels = torch.from_numpy(data.split.query.labels)
    want = metrics(*[torch.nn.functional.normalize(z)] * 2, labels, labels, same=True)
    for name, value in want.items():
        assert history[name].iloc[-1] == pytest.approx(value, abs=1e-6)


def test_history_has_the_recalls_of_the_data_set(tmp_path):
    model, data = model_and_data(epochs=1)
    data.split = replace(data.split, recall_at=(1, 3, 500))
    find_or_train(model, data, tmp_path, TRAINER, None)
    history = pd.read_csv(tmp_path / "history.csv")
    assert list(history)[2:] == ["R@1", "R@3", "R@500", "MAP@R"]
    assert history["R@500"].tolist() == [1.0]


def test_a_damaged_or_foreign_checkpoint_is_named(tmp_path):
    model, _ = model_and_data()
    path = tmp_path / "model.ckpt"
    torch.save(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"model.ckpt: not a whole checkpoint of this model"):
        load(model, path)
    torch.save({"other": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"model.ckpt: not a whole checkpoint of this model"):
        load(model, path)


class Largest(pl.Callback):
    """Remembers the largest entry of the gradient, and its norm, that each step took."""

    def __init__(self):
        self.entries, self.norms = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        gradient = torch.cat([p.grad.flatten() for p in module.parameters()])
        self.entries.append(gradient.abs().max().item())
        self.norms.append(gradient.norm().item())


@pytest.mark.parametrize("key", ["clip_value", "clip_norm"])
def test_gradients_are_clipped_by_entry_or_by_norm(tmp_path, key):
    seen = Largest()

    def trainer(**settings):
        return TRAINER(**{**settings, "callbacks": [*settings["callbacks"], seen]})

    model, data = model_and_data(epochs=1, **{key: 1e-4})
    find_or_train(model, data, tmp_path, trainer, None)
    clipped, other = (seen.entries, seen.norms) if key == "clip_value" else (seen.norms, seen.entries)
    assert clipped == pytest.approx([1e-4] * len(clipped), rel=1e-2)
    assert other != pytest.approx([1e-4] * len(clipped), rel=1e-2)


@pytest.mark.parametrize(
    ("changes", "value", "algorithm"),
    [({"clip_value": 0.3}, 0.3, "value"), ({"clip_norm": 0.7}, 0.7, "norm"), ({}, None, "norm")],
)
def test_how_gradients_are_clipped_reaches_lightning(tmp_path, changes, value, algorithm):
    class Called(Exception):
        pass

    def trainer(**settings):
        raise Called(settings["gradient_clip_val"], settings["gradient_clip_algorithm"])

    model, data = model_and_data(**changes)
    with pytest.raises(Called) as caught:
        find_or_train(model, data, tmp_path, trainer, None)
    assert caught.value.args == (value, algorithm)


def test_a_damaged_resume_file_is_named(tmp_path):
    model, data = model_and_data()
    (tmp_path / "last.ckpt").write_bytes(b"PK not a checkpoint")
    with pytest.raises(UserError, match=r"last.ckpt: not a whole checkpoint"):
        find_or_train(model, data, tmp_path, TRAINER, None)


def test_an_accelerator_that_is_not_there_is_one_line(tmp_path):
    model, data = model_and_data()
    with pytest.raises(UserError, match="trainer: "):
        find_or_train(model, data, tmp_path, partial(pl.Trainer, accelerator="tpu"), None)


def test_a_loss_that_is_no_number_ends_training(tmp_path):
    model, data = model_and_data(lr_backbone=1e30, lr_head=1e30, warmup_epochs=0.0)
    with pytest.raises(UserError, match=r"training loss became nan in epoch"):
        find_or_train(model, data, tmp_path, TRAINER, None)
    assert not (tmp_path / "model.ckpt").exists()
