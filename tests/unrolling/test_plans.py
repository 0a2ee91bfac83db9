import dataclasses
from functools import partial
from unittest.mock import patch

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from deconfuse.attribution.attribute import record_of, rehearse
from deconfuse.attribution.head import Targets
from deconfuse.attribution.look import Subject, freeze
from deconfuse.data.images import FeatureRows
from deconfuse.data.sampler import BalancedBatches
from deconfuse.data.split import Part, RowSpec, Split
from deconfuse.frozen import start_derivative
from deconfuse.frozen.whitening import scatter, whitening
from deconfuse.influence.unrolled import scores
from deconfuse.loss.proxyanchor import ProxyAnchor
from deconfuse.loss.softtriple import SoftTriple
from deconfuse.model.identity import Identity
from deconfuse.system.errors import UserError
from deconfuse.training.datamodule import DataModule
from deconfuse.training.embedder import Embedder
from deconfuse.training.train import START, find_or_train
from deconfuse.unrolling.descent import train
from deconfuse.unrolling.full_batch import rate_of, retrain
from deconfuse.unrolling.plans import Epochs, FullBatch, again, as_trained, check_end, full_batch, repeatable
from deconfuse.unrolling.subsets import SubsetRetraining, distances, measure_changes
from tests.made import recipe

TRAINER = partial(pl.Trainer, accelerator="cpu", devices=1)
SMOOTH = partial(torch.optim.AdamW, weight_decay=0.01, eps=1e-3)
FROZEN = {"frozen": True, "whiten": 0.3, "hold": 2.0, "warmup_epochs": 0.5, "optimizer": SMOOTH}
PAIRS = torch.tensor([[0, 7], [3, 11], [14, 5]])


def rows(n, classes, first, seed):
    random = np.random.default_rng(seed)
    labels = np.arange(n) % classes + first
    values = random.normal(size=(30, 9))[labels] + random.normal(size=(n, 9))
    return Part(
        FeatureRows(values.astype(np.float32)), np.arange(n), labels, tuple(f"{first} {i}" for i in range(n))
    )


@pytest.fixture(scope="module", params=["softtriple3", "proxyanchor"])
def trained(request, tmp_path_factory):
    """(subject, frozen, record) of a head that Lightning has trained on 46 rows of features."""
    query = rows(20, 4, 5, 1)
    split = Split(rows(46, 5, 0, 0), query, query, tuple("abcdefghi"), 5, RowSpec(9))
    torch.manual_seed(3)
    loss = {"softtriple3": lambda: SoftTriple(5, 6, centres=3), "proxyanchor": lambda: ProxyAnchor(5, 6)}
    numbers = recipe(**FROZEN, embedding_size=6)
    model = Embedder(Identity(9), loss[request.param](), numbers)
    left_out = np.zeros(46, dtype=bool)
    left_out[8] = True
    data = DataModule(split, split.train.labels, model.backbone, numbers, 0, 5, left_out)
    folder = tmp_path_factory.mktemp("trained")
    checkpoint, _ = find_or_train(model, data, folder, TRAINER, None)
    subject = Subject(model, data, "head", torch.device("cpu"))
    frozen = freeze(subject, checkpoint)
    return subject, frozen, record_of(subject, folder)


def test_the_training_is_repeated_to_where_it_ended(trained):
    """W, b and all proxies as Lightning left them, from the start that was kept."""
    subject, frozen, record = trained
    descent = as_trained(frozen.training, record)
    assert descent.optimizers.keys() == {"weight", "bias", "loss.proxies"}
    assert len(descent) == 3 * len(BalancedBatches(record.drawn, 4, 2, 5))
    after = train(descent, descent.ones())
    model = subject.model
    ends = {"weight": model.head.weight, "bias": model.head.bias, "loss.proxies": model.loss.proxies}
    for name, value in ends.items():
        way = (value - record.start[name]).norm()
        assert way > 1e-3
        assert (after[name][0] - value).norm() < 1e-4 * way
    assert check_end(record, descent.start, after) < 1e-4


def test_a_training_side_without_what_was_left_out_is_trained_by_the_same_batches(trained):
    _, frozen, record = trained
    used = torch.from_numpy(record.drawn >= 0).nonzero()[:, 0]
    assert len(used) == 45
    whole, some = (as_trained(each.training, record) for each in (frozen, frozen.only(used)))
    for mine, theirs in zip(some.batches, whole.batches, strict=True):
        assert torch.equal(used[mine], theirs)
    ends = [train(each, each.ones()) for each in (whole, some)]
    for name, value in ends[0].items():
        # The class means at the start are summed in float32 in another grouping of the rows.
        torch.testing.assert_close(ends[1][name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("through", ["training", "steps"])
def test_the_influence_is_the_change_of_d_by_whole_trainings(trained, through):
    """In float64, on 20 weights of samples, one of which is in no batch; training: their start as well."""
    _, frozen, record = trained
    from deconfuse.attribution.rows import in_float64

    training = in_float64(frozen.training)
    query = frozen.query.double()
    targets, step = Targets.pairs(query, query, PAIRS), 1e-6
    found = scores(training, targets, through=through, record=record)
    descent = as_trained(training, record, through=through)
    assert (descent.begun is None) == (through == "steps")
    few = torch.arange(20)
    shift = step * torch.nn.functional.one_hot(few, 46).double()
    d = []
    for sign in (1, -1):
        after = train(descent, 1 + sign * shift)
        sides = [
            dataclasses.replace(training, weight=w, bias=b)
            for w, b in zip(after["weight"], after["bias"], strict=True)
        ]
        d.append(torch.stack([distances(side, targets, side.weight) for side in sides], 1))
    want = -46 * (d[0] - d[1]) / (2 * step)
    torch.testing.assert_close(found[:, few], want, rtol=1e-4, atol=1e-6 * found.abs().max().item())
    assert (found[:, 8] == 0).all()
    assert (found[:, :8] != 0).all()


def test_the_counterfactual_check_leaves_samples_out_of_this_training(trained, monkeypatch):
    """counterfactual.through=training, in chunks of heads; sample 8 is in no batch."""
    _, frozen, record = trained
    targets = frozen_targets(frozen)
    left_out = torch.zeros(3, 46, dtype=torch.bool)
    left_out[0, 8] = left_out[1, :5] = left_out[2, ::2] = True
    plan = SubsetRetraining(3, 0.1, 1, 0, "training")
    found = measure_changes(frozen.training, targets, left_out, plan, record)
    monkeypatch.setattr("deconfuse.unrolling.subsets.HEADS_BYTES", 1)
    torch.testing.assert_close(
        measure_changes(frozen.training, targets, left_out, plan, record), found, rtol=1e-3, atol=1e-4
    )
    descent = as_trained(frozen.training, record)
    d = []
    for weights in (torch.ones(46), *(1 - one.float() for one in left_out)):
        after = train(descent, weights[None])
        side = dataclasses.replace(frozen.training, bias=after["bias"][0])
        d.append(distances(side, targets, after["weight"][0]))
    torch.testing.assert_close(found, torch.stack(d[1:]) - d[0], rtol=1e-3, atol=1e-4)
    assert found[0].abs().max() < 1e-5
    assert found[1:].abs().min() > 1e-4


def frozen_targets(frozen):
    return Targets.pairs(frozen.query, frozen.gallery, PAIRS)


def test_another_training_than_the_one_that_was_done_is_refused(trained):
    _, frozen, record = trained
    other = dataclasses.replace(record, seed=6)
    with pytest.raises(UserError, match=r"the repeated training ends [\d.]+ of its way from the"):
        scores(frozen.training, frozen_targets(frozen), through="training", record=other)
    assert check_end(dataclasses.replace(record, end=None), record.start, {}) is None


def test_a_start_that_was_not_kept_is_missed_in_one_line(trained):
    subject, frozen, record = trained
    (frozen.folder / START).rename(frozen.folder / "gone")
    try:
        assert record_of(subject, frozen.folder).start == {}
        with pytest.raises(UserError, match=r"influence.through=training needs where the training"):
            as_trained(frozen.training, dataclasses.replace(record, start={}))
    finally:
        (frozen.folder / "gone").rename(frozen.folder / START)
    assert record_of(dataclasses.replace(subject, data=None), frozen.folder) is None


def test_the_start_is_much_of_what_a_sample_does(trained):
    _, frozen, record = trained
    targets = frozen_targets(frozen)
    whole, steps = (
        scores(frozen.training, targets, through=through, record=record) for through in ("training", "steps")
    )
    assert (whole - steps).norm() > 0.3 * steps.norm()


def test_a_start_that_is_not_that_of_the_samples_is_refused(trained):
    _, frozen, record = trained
    training = frozen.training
    other = dataclasses.replace(training, features=training.features.roll(1, 0))
    with pytest.raises(UserError, match=r"start, computed again from the samples, is [\d.]+ of its length"):
        as_trained(other, record)
    assert as_trained(other, record, through="steps").begun is None
    with pytest.raises(UserError, match="needs where the training of the head started"):
        as_trained(training, dataclasses.replace(record, random=None))
    less = {name: value for name, value in record.start.items() if name != "loss.proxies"}
    with pytest.raises(UserError, match="a loss whose proxies are a parameter"):
        as_trained(training, dataclasses.replace(record, start=less))


def test_a_start_that_is_cut_between_equals_is_said(trained, capsys):
    """Without shrinkage all directions beyond the classes' four vary alike, and the head has six of nine."""
    _, frozen, record = trained
    training = frozen.training
    numbers = dataclasses.replace(record.recipe, whiten=0.0)
    used = torch.from_numpy(record.drawn >= 0)
    weight, bias = whitening(scatter(training.features, training.labels, used), 6, 0.0)
    start = {**record.start, "weight": weight.float(), "bias": bias.float()}
    with patch.object(start_derivative, "TIED", 1e-4):
        as_trained(training, dataclasses.replace(record, recipe=numbers, start=start))
    said = " ".join(capsys.readouterr().err.split())
    assert "direction 6 of the whitened start varies as much as one that is cut off" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frozen": False, "whiten": None, "hold": 0.0}, "k=training goes through the training of a head"),
        ({"dropout": 0.5}, "k=training does not go through recipe.dropout=0.5"),
        ({"clip_norm": 1.0}, "k=training does not go through recipe.clip_norm=1.0"),
        ({"clip_value": 1.0}, "k=training does not go through recipe.clip_value=1.0"),
    ],
)
def test_trainings_that_cannot_be_repeated_are_refused_before_training(changes, message):
    numbers = recipe(**{**FROZEN, **changes})
    with pytest.raises(UserError, match=message):
        repeatable(numbers, "k")
    model = Embedder(Identity(9), SoftTriple(5, 8), numbers)
    with pytest.raises(UserError, match=message.removeprefix("k")):
        rehearse(partial(scores, through="training"), model, "head", (9,))


def test_a_training_that_can_be_repeated_is_rehearsed():
    model = Embedder(Identity(9), SoftTriple(5, 8), recipe(**FROZEN))
    rehearse(partial(scores, through="training"), model, "head", (9,))


def test_eq_7s_epochs_have_its_batches_and_move_the_weight_alone(toy):
    training, _ = toy
    plan = Epochs(2, 3, 2, 4, partial(torch.optim.Adam, lr=0.01))
    descent, sampler = again(training, plan), BalancedBatches(training.labels.numpy(), 3, 2, 4)
    want = [[row for row, _ in batch] for epoch in (0, 1) for batch in (sampler.set_epoch(epoch) or sampler)]
    assert [rows.tolist() for rows in descent.batches] == want
    assert descent.optimizers.keys() == {"weight"}
    assert again(training, plan, order=1).batches[0].tolist() != want[0]
    with pytest.raises(UserError, match=r"influence.retraining.epochs=0 is too small"):
        Epochs(0)


def test_the_descent_is_that_of_the_counterfactual_check(toy):
    training, _ = toy
    descent = full_batch(training, FullBatch(7))
    even = torch.full((23,), 1 / 23, dtype=torch.float64)
    want = retrain(training, even, 7, rate_of(training, 7, 0))
    torch.testing.assert_close(train(descent, descent.ones())["weight"][0], want, rtol=1e-9, atol=1e-11)
