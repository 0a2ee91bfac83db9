import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from deconfuse.dataset import features
from deconfuse.loss.proxyanchor import ProxyAnchor
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.loss.softtriple import SoftTriple
from deconfuse.model.identity import Identity
from deconfuse.retraining.from_scratch import Rows, batches, begin, check, clipped, fit, redrawn, whitened
from deconfuse.system.errors import UserError
from deconfuse.training.datamodule import DataModule
from deconfuse.training.embedder import Embedder
from deconfuse.training.train import find_or_train
from tests.made import model_and_data, recipe
from tests.samples import reader

N, D, C = 45, 7, 5


def made(tmp_path, loss=ProxyNCA, **changes):
    """(an untrained head on 45 rows of 7 features of 5 classes, its data)."""
    random = np.random.default_rng(3)
    labels = np.concatenate([np.arange(N) % C, 10 + np.arange(12) % 3])
    path = tmp_path / "data.npz"
    split = np.array(["train"] * N + ["test"] * 12)
    np.savez(path, features=random.normal(size=(N + 12, D)) + labels[:, None] % 3, labels=labels, split=split)
    split = reader(features.load)(str(path))
    torch.manual_seed(0)
    numbers = recipe(embedding_size=6, frozen=True, **changes)
    model = Embedder(Identity(D), loss(C, 6), numbers)
    return model, DataModule(split, split.train.labels, model.backbone, numbers, 0, 4)


def rows_of(data, kept):
    phi = torch.stack([torch.as_tensor(data.split.train.image(i)) for i in range(N)]).float()
    return Rows(phi, torch.from_numpy(data.labels).repeat(len(kept), 1), kept)


def trained(model, data, rows):
    heads = begin(redrawn(model, None), rows, whitened(model, rows))
    draw, total = batches(data, data.seed)
    fit(model, heads, rows, draw(), total, 0)
    return heads


def slowly(model, data, kept, start):
    """One head by torch's own parts, whose batches do not have the rows that are left out."""
    head, loss, numbers = copy.deepcopy(model.head), copy.deepcopy(model.loss), model.recipe
    head.weight.data, head.bias.data, loss.proxies.data = (part.clone() for part in start)
    groups = [{"params": [*head.parameters()], "lr": numbers.lr_head}]
    groups.append({"params": [*loss.parameters()], "lr": numbers.lr_proxies, "weight_decay": 0.0})
    optimizer, (draw, total) = numbers.optimizer(groups), batches(data, data.seed)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: numbers.rate(step, total))
    phi, labels, first = rows_of(data, kept[None]).features, torch.from_numpy(data.labels), start[0]
    for batch in draw():
        batch = batch[kept[batch]]
        value = loss(head(phi[batch]), labels[batch]).mean() + loss.regulariser()
        value = value + numbers.hold * (head.weight - first).square().sum() / first.square().sum()
        optimizer.zero_grad()
        value.backward()
        if numbers.clip_norm:
            torch.nn.utils.clip_grad_norm_([*head.parameters(), *loss.parameters()], numbers.clip_norm)
        optimizer.step()
        schedule.step()
    return head.weight, head.bias, loss.proxies


SETTINGS = [{}, {"whiten": 0.3, "hold": 2.0}, {"clip_norm": 0.05}]


@pytest.mark.parametrize("changes", SETTINGS)
@pytest.mark.parametrize("loss", [ProxyNCA, SoftTriple, partial(SoftTriple, centres=3)])
def test_a_head_is_that_of_a_training_on_the_smaller_data_set(tmp_path, loss, changes):
    model, data = made(tmp_path, loss, **changes)
    kept = torch.rand(4, N, generator=torch.Generator().manual_seed(1)) > 0.2
    kept[0], kept[1, data.labels == 2] = True, False  # everything, and a class without any sample
    rows = rows_of(data, kept)
    start = begin(redrawn(model, None), rows, whitened(model, rows))
    found = trained(model, data, rows)
    for h in range(4):
        want = slowly(model, data, kept[h], [part[h] for part in start.tensors])
        for part, each in zip(found.tensors, want, strict=True):
            torch.testing.assert_close(part[h], each.data, rtol=1e-3, atol=2e-4)  # Adam divides small slopes


@pytest.mark.parametrize("changes", [{}, {"whiten": 0.3, "hold": 2.0}])
def test_with_all_samples_it_is_the_runs_own_training(tmp_path, changes):
    model, data = made(tmp_path, **changes)
    rows = rows_of(data, torch.ones(1, N, dtype=torch.bool))
    heads = trained(model, data, rows)
    trainer = partial(pl.Trainer, accelerator="cpu", devices=1)
    (tmp_path / "home").mkdir()
    find_or_train(model, data, tmp_path / "home", trainer, None)
    torch.testing.assert_close(heads.weight[0], model.head.weight.data, rtol=1e-3, atol=2e-4)
    torch.testing.assert_close(heads.proxies[0], model.loss.proxies.data, rtol=1e-3, atol=2e-4)


def test_rows_left_out_do_not_matter_at_all(tmp_path):
    model, data = made(tmp_path, whiten=0.3, hold=1.0)
    kept = torch.ones(1, N, dtype=torch.bool)
    kept[0, 3:9] = False
    rows = rows_of(data, kept)
    other = rows.features.clone()
    other[3:9] = 50.0
    labels = rows.labels.clone()
    labels[0, 3:9] = 0
    one, two = trained(model, data, rows), trained(model, data, replace(rows, features=other, labels=labels))
    for a, b in zip(one.tensors, two.tensors, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_another_seed_is_another_start_and_the_model_stays(tmp_path):
    model, _ = made(tmp_path)
    before = model.head.weight.detach().clone()
    one, same, other = (redrawn(model, seed) for seed in (5, 5, 6))
    assert torch.equal(one.head.weight, same.head.weight)
    assert not torch.equal(one.loss.proxies, other.loss.proxies)
    assert torch.equal(redrawn(model, None).head.weight, before)
    assert torch.equal(model.head.weight, before)


def test_each_head_is_clipped_by_its_own_norm():
    parts = torch.tensor([[[3.0]], [[0.3]]]), torch.tensor([[4.0], [0.4]])
    found = clipped(parts, 1.0, None)
    assert found[0].flatten().tolist() == pytest.approx([0.6, 0.3], rel=1e-5)
    assert found[1].flatten().tolist() == pytest.approx([0.8, 0.4], rel=1e-5)
    assert clipped(parts, None, 0.35)[0].flatten().tolist() == pytest.approx([0.35, 0.3])


def test_what_cannot_be_trained_in_this_way_is_said(tmp_path):
    with pytest.raises(UserError, match="add recipe=frozen"):
        check(model_and_data()[0])
    with pytest.raises(UserError, match="take loss=softtriple"):
        check(made(tmp_path, ProxyAnchor)[0])
    check(made(tmp_path)[0])
