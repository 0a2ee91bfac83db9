import errno
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import nn

from deconfuse.data.build import build
from deconfuse.dataset import folder
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.model.small_cnn import SmallCNN
from deconfuse.system.errors import UserError
from deconfuse.system.signals import Stopped, listen
from deconfuse.training.checkpoint import kept, load, read
from deconfuse.training.datamodule import DataModule
from deconfuse.training.embedder import Embedder
from deconfuse.training.train import Start, another, find_or_train, fit, quick
from tests.made import model_and_data, recipe

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
    from deconfuse.retrieval.metrics import metrics
    from deconfuse.retrieval.queries import Queries

    with torch.no_grad():
        z = torch.cat([model(images) for images, _, _ in data.in_order(data.split.query)])
    labels = torch.from_numpy(data.split.query.labels)
    want = metrics(Queries(*[torch.nn.functional.normalize(z)] * 2, labels, labels, same=True))
    for name, value in want.items():
        assert history[name].iloc[-1] == pytest.approx(value, abs=1e-6)


def test_history_has_the_recalls_of_the_data_set(tmp_path):
    model, data = model_and_data(epochs=1)
    data.split = replace(data.split, recall_at=(1, 3, 500))
    find_or_train(model, data, tmp_path, TRAINER, None)
    history = pd.read_csv(tmp_path / "history.csv")
    assert list(history)[2:] == ["R@1", "R@3", "R@500", "MAP@R"]
    assert history["R@500"].tolist() == [1.0]


SETTINGS = {"seed": 0, "recipe": {"epochs": 3, "lr_head": 2e-3}, "data": "a1" * 32, "noise": None}


def test_a_checkpoint_of_another_configuration_is_refused_with_the_keys_that_differ(tmp_path):
    model, data = model_and_data(epochs=1)
    home, other = tmp_path / "home", tmp_path / "other"
    made, _ = find_or_train(model, data, home, TRAINER, None, SETTINGS)
    assert find_or_train(model, data, home, TRAINER, None, dict(SETTINGS)) == (made, True)
    there = {**SETTINGS, "recipe": {"epochs": 3, "lr_head": 0.1, "clip": 2}, "data": "b2" * 32}
    other.mkdir()
    (other / "model.ckpt").write_bytes(made.read_bytes())
    before = torch.get_rng_state()
    with pytest.raises(UserError) as caught:
        find_or_train(model, data, other, TRAINER, None, there)
    assert str(caught.value) == (
        f"{other}/model.ckpt: made with other settings (recipe.lr_head is 0.002 in it, 0.1 here, "
        "recipe.clip is not set in it, 2 here, data is a1a1a1a1... in it, b2b2b2b2... here); put the "
        "folder's own checkpoint back, or delete it and run again"
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert (other / "model.ckpt").read_bytes() == made.read_bytes()


def test_a_training_of_another_configuration_is_not_gone_on_with(tmp_path):
    cut, data = model_and_data(epochs=2)
    with pytest.raises(KeyboardInterrupt):
        find_or_train(cut, data, tmp_path, partial(trainer_that_stops, 1), None, SETTINGS)
    last = (tmp_path / "last.ckpt").read_bytes()
    model, data = model_and_data()
    with pytest.raises(UserError, match=r"last.ckpt: made with other settings \(seed is 0 in it, 1 here\)"):
        find_or_train(model, data, tmp_path, TRAINER, None, {**SETTINGS, "seed": 1})
    # Of another network: one line, where Lightning would end in a traceback.
    model.head = torch.nn.Linear(model.head.in_features, 5)
    with pytest.raises(UserError, match=r"last.ckpt: not a whole checkpoint of this model"):
        find_or_train(model, data, tmp_path, TRAINER, None, SETTINGS)
    torch.save(cut.state_dict(), tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"last.ckpt: not a checkpoint that training goes on from; delete"):
        find_or_train(cut, data, tmp_path, TRAINER, None, SETTINGS)
    assert not (tmp_path / "model.ckpt").exists()
    # The own one is.
    (tmp_path / "last.ckpt").write_bytes(last)
    model, data = model_and_data(epochs=2)
    assert find_or_train(model, data, tmp_path, TRAINER, None, SETTINGS)[1] is False


def test_a_kill_between_the_two_checkpoints_leaves_one_in_the_end(tmp_path):
    model, data = model_and_data(epochs=1)
    made, _ = find_or_train(model, data, tmp_path, TRAINER, None)
    (tmp_path / "last.ckpt").write_bytes(b"of the last epoch")
    assert find_or_train(model, data, tmp_path, TRAINER, None) == (made, True)
    assert not (tmp_path / "last.ckpt").exists()


@pytest.fixture(scope="module")
def of_two_epochs(tmp_path_factory):
    """The head's weights that nobody stopped on their way."""
    model, data = model_and_data(epochs=2)
    find_or_train(model, data, tmp_path_factory.mktemp("whole"), TRAINER, None)
    return model.head.weight.detach().clone()


@pytest.mark.parametrize("swallowed", [False, True])
def test_sigterm_stops_training_and_the_same_bits_come_out(tmp_path, swallowed, capsys, of_two_epochs):
    """Also where the exception is raised where Python lets none out: Lightning's flag is the second way."""

    class Terminate(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if (trainer.current_epoch, batch_idx) == (1, 1):
                try:
                    signal.raise_signal(signal.SIGTERM)
                except Stopped:
                    if not swallowed:
                        raise

    def trainer(**settings):
        return TRAINER(**{**settings, "callbacks": [*settings["callbacks"], Terminate()]})

    cut, data = model_and_data(epochs=2)
    listen()
    with pytest.raises(Stopped, match="SIGTERM"):
        find_or_train(cut, data, tmp_path / "cut", trainer, None)
    assert f"training stopped; 1 of 2 epochs is kept in {tmp_path}/cut\n" in capsys.readouterr().err
    again, data = model_and_data(epochs=2)
    find_or_train(again, data, tmp_path / "cut", TRAINER, None)
    assert torch.equal(again.head.weight, of_two_epochs)


def test_an_image_that_vanishes_while_training_is_named_and_no_epoch_is_lost(tmp_path):
    root = tmp_path / "data"
    for c in "abcd":
        (root / c).mkdir(parents=True)
        for i in range(3):
            pixels = np.random.default_rng(ord(c) + i).integers(0, 255, (9, 9), np.uint8)
            Image.fromarray(pixels).save(root / c / f"{i}.png")

    def started():
        torch.manual_seed(0)
        split = build(folder.load(str(root)), image_size=16, channels=1, augment="none")
        numbers, backbone = recipe(epochs=2), SmallCNN(1, width=4)
        model = Embedder(backbone, ProxyNCA(split.num_classes, numbers.embedding_size), numbers)
        return model, DataModule(split, split.train.labels, backbone, numbers, 0, 0)

    model, data = started()
    lost = data.split.train.images.path(int(data.split.train.rows[0]))
    image = lost.read_bytes()

    class Lose(pl.Callback):
        def on_train_epoch_end(self, trainer, module):
            lost.unlink()

    def trainer(**settings):
        return TRAINER(**{**settings, "callbacks": [*settings["callbacks"], Lose()]})

    with pytest.raises(UserError, match=rf"^{lost}: the image is gone; restore it"):
        find_or_train(model, data, tmp_path / "cut", trainer, None)
    assert read(tmp_path / "cut" / "last.ckpt")["epoch"] == 0
    lost.write_bytes(image)
    again, data = started()
    assert find_or_train(again, data, tmp_path / "cut", TRAINER, None)[1] is False
    assert not (tmp_path / "cut" / "last.ckpt").exists()


def test_a_disk_that_fills_up_while_training_keeps_the_epochs_before(tmp_path, monkeypatch):
    model, data = model_and_data(epochs=2)
    write = Path.write_bytes

    def full(path, content):
        if "last.ckpt" in path.name and list(tmp_path.glob("last.ckpt")):
            write(path, bytes(content)[:1000])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"could not write .*last.ckpt \(No space left on device\); nothing"):
        find_or_train(model, data, tmp_path, TRAINER, None)
    monkeypatch.undo()
    assert read(tmp_path / "last.ckpt")["epoch"] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt"]


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


def test_a_loss_that_is_no_number_ends_training(tmp_path):
    model, data = model_and_data(lr_backbone=1e30, lr_head=1e30, warmup_epochs=0.0)
    with pytest.raises(UserError, match=r"training loss became nan in epoch"):
        find_or_train(model, data, tmp_path, TRAINER, None)
    assert not (tmp_path / "model.ckpt").exists()


def test_another_model_leaves_the_random_numbers_and_the_start_alone_and_says_what_it_was_made_with(tmp_path):
    model, data = model_and_data()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    labels, settings = np.roll(data.labels, 1), {"seed": 3, "labels": "rolled"}
    drawn, begin = [], Start(model, data, TRAINER)
    for _ in range(2):  # trained, then found
        torch.manual_seed(5)
        found, own, checkpoint, reused = another(begin, tmp_path, labels, labels == 1, settings=settings)
        drawn.append((reused, torch.rand(3)))
        assert own.drawn.tolist() == np.where(labels == 1, -1, labels).tolist()
    torch.manual_seed(5)
    expected = torch.rand(3)
    assert [reused for reused, _ in drawn] == [False, True]
    assert all(torch.equal(numbers, expected) for _, numbers in drawn)
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())
    assert any(not torch.equal(value, start[name]) for name, value in found.state_dict().items())
    with pytest.raises(UserError, match="labels is rolled in it, others here"):
        another(begin, tmp_path, labels, labels == 1, settings=settings | {"labels": "others"})
    content = torch.load(checkpoint, weights_only=True)
    del content["made_with"]
    torch.save(content, checkpoint)
    with pytest.raises(UserError, match=r"model\.ckpt: does not say which settings it was made with"):
        another(begin, tmp_path, labels, labels == 1, settings=settings)


class Colours(nn.Module):
    """A convolution of three channels, whose images have two layouts in memory."""

    def __init__(self):
        super().__init__()
        self.convolution, self.num_features = nn.Conv2d(3, 5, 3, stride=2), 5

    def forward(self, images):
        return self.convolution(images).relu().mean((2, 3))


def test_on_a_cpu_training_lies_pixel_by_pixel_in_memory_with_the_same_gradients():
    torch.manual_seed(0)
    model = Embedder(Colours(), ProxyNCA(2, 8), recipe())
    images, labels = torch.randn(4, 3, 9, 9), torch.tensor([0, 0, 1, 1])
    model.loss(model.head(model.backbone(images)), labels).mean().backward()
    want = {name: each.grad for name, each in model.named_parameters()}
    model.zero_grad()
    with quick(model, torch.device("cpu")):
        assert not torch.utils.deterministic.fill_uninitialized_memory
        weight = model.backbone.convolution.weight
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert not weight.is_contiguous()
        model.loss(model(images), labels).mean().backward()
    for name, each in model.named_parameters():
        torch.testing.assert_close(each.grad, want[name], rtol=1e-4, atol=1e-6)  # sums in another order


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo's tracing
def test_a_compiled_backbone_trains_alike_and_leaves_no_trace(tmp_path, monkeypatch):
    compiled, real = [], nn.Module.compile

    def traced(module):  # what Inductor's compiler does takes half a minute
        compiled.append(module)
        real(module, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", traced)
    states = []
    for compile in (False, True):
        model, data = model_and_data(epochs=1, compile=compile)
        fit(model, data, tmp_path / str(compile), TRAINER, None, None)
        assert model.backbone._compiled_call_impl is None
        states.append(model.state_dict())
    assert compiled == [model.backbone]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-3, atol=1e-4)  # rounding, over an epoch


def test_a_compiler_that_fails_is_one_line():
    model, _ = model_and_data(compile=True)
    with (
        pytest.raises(UserError, match=r"^recipe.compile=true: torch.compile fails here \(no compiler\)"),
        quick(model, torch.device("cpu")),
    ):
        raise torch._dynamo.exc.TorchDynamoException("no compiler")
    assert model.backbone._compiled_call_impl is None
