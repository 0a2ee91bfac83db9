from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from deconfuse.attribution.head import Targets
from deconfuse.attribution.look import Subject, freeze
from deconfuse.data.sampler import BalancedBatches
from deconfuse.retraining import reweight as reweighting
from deconfuse.retraining.reweight import (
    MODES,
    BatchSource,
    Changes,
    Retraining,
    check,
    rehearse,
    report,
    reweight,
    sample_weights,
)
from deconfuse.system.errors import UserError
from deconfuse.training.checkpoint import save
from deconfuse.training.datamodule import DataModule
from deconfuse.unrolling.subsets import distances
from tests.made import model_and_data, recipe

TRAINER = partial(pl.Trainer, accelerator="cpu", devices=1)
PLAN = Retraining("cached", 1, 2.0, 0.0, partial(torch.optim.Adam, lr=1e-3), 4)
GROUPS = (
    torch.tensor([[0, 20]]),
    torch.tensor([[3, 40], [5, 50], [90, 1]]),
    torch.tensor([[7, 33], [8, 61]]),
    torch.tensor([[30, 31]]),
    torch.tensor([[44, 2]]),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(model, data, training, targets, scores) of a network as it was born, on letters not augmented."""
    model, data = model_and_data()
    data.training = data.evaluation
    with torch.no_grad():  # in the middle of the embeddings, so that they lie around the origin
        z = torch.cat([model.eval()(images) for images, *_ in data.in_order(data.split.train)])
        model.head.bias -= z.mean(0)
    checkpoint = tmp_path_factory.mktemp("made") / "model.ckpt"
    save(model.state_dict(), checkpoint)
    frozen = freeze(Subject(model, data, "head", torch.device("cpu")), checkpoint)
    scores = torch.randn(5, 96, generator=torch.Generator().manual_seed(2))
    scores[:, ::7] = 0
    return model, data, frozen.training, Targets(frozen.query, frozen.gallery, GROUPS), scores


@pytest.fixture
def small(toy):
    """(training, targets, scores, data) of 23 samples in float64; groups of one to three pairs."""
    training, test = toy
    pairs = ([[0, 1]], [[2, 3], [4, 2], [5, 6]], [[7, 8], [8, 0]], [[3, 4]], [[6, 1]])
    targets = Targets(test, test, tuple(map(torch.tensor, pairs)), sign=-1.0)
    scores = torch.randn(5, 23, generator=torch.Generator().manual_seed(2))
    scores[:, ::7] = 0
    data = object.__new__(DataModule)  # what mode=cached reads of it
    data.labels = data.drawn = training.labels.numpy()
    data.recipe = recipe(classes_per_batch=3, per_class=2)
    return training, targets, scores, data


def without_model(data):
    """A source without a network, as mode=cached needs none; made past the check of types."""
    made = object.__new__(BatchSource)
    for name, value in (("model", None), ("data", data), ("trainer", TRAINER)):
        object.__setattr__(made, name, value)
    return made


def head_bytes(training, batch):
    """What chunk_size counts for a head: W, its gradient, two states, a batch's embeddings and logits."""
    numbers = training.weight.numel() + batch * (len(training.weight) + len(training.loss.proxies))
    return 4 * numbers * training.weight.element_size()


def slowly(training, targets, scores, data, plan):
    """d after retraining, pair by pair, sample by sample."""
    found = []
    for i, group in enumerate(targets.groups):
        head = torch.nn.Linear(*training.weight.T.shape).double()
        head.load_state_dict({"weight": training.weight, "bias": training.bias})
        optimizer = torch.optim.Adam([head.weight], lr=1e-3)
        for epoch in range(plan.epochs):
            for batch in BalancedBatches(data.labels, 3, 2, plan.seed, epoch):
                total = 0
                for k, _ in batch:
                    loss = training.loss(head(training.features[k : k + 1]), training.labels[k : k + 1])[0]
                    score = scores[i, k].item()
                    total = total + (2.0 if score < 0 else 0.0 if score > 0 else 1.0) * loss
                optimizer.zero_grad()
                (total / len(batch)).backward()
                optimizer.step()
        d = [
            (torch.nn.functional.normalize(head(targets.query[a : a + 1]))
             - torch.nn.functional.normalize(head(targets.gallery[b : b + 1]))).square().sum()
            for a, b in group.tolist()
        ]  # fmt: skip
        found.append(targets.sign * sum(d).item() / len(d))
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("epochs", [1, 2])
def test_it_is_the_slow_version(small, epochs, monkeypatch):
    training, targets, scores, data = small
    plan = replace(PLAN, epochs=epochs)
    want = slowly(training, targets, scores, data, plan)
    for size in (1, 2, 5, 1000):  # heads at once
        monkeypatch.setattr(reweighting, "CHUNK_BYTES", size * head_bytes(training, 6))
        found = reweight(plan, training, targets, scores, without_model(data))
        torch.testing.assert_close(found.after, want, rtol=0, atol=1e-10)
        torch.testing.assert_close(found.before, distances(training, targets, training.weight))
    assert (found.after - found.before).abs().min() > 1e-5


def test_images_without_augmentation_are_the_cached_features(made, monkeypatch):
    model, data, training, targets, scores = made
    cached = reweight(PLAN, training, targets, scores, BatchSource(model, data, TRAINER))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for size, workers in ((2, 0), (1000, 0), (1000, 1)):  # heads at once
        monkeypatch.setattr(reweighting, "IMAGES_BYTES", size * head_bytes(training, 8))
        data.num_workers, data.first_epoch = workers, 3  # a model whose training was resumed
        plan, source = replace(PLAN, mode="images"), BatchSource(model, data, TRAINER)
        images = reweight(plan, training, targets, scores, source)
        # Of the same weights, but summed in groups of another size: float32's rounding of a d in [0, 4].
        torch.testing.assert_close(images.before, cached.before, rtol=0, atol=1e-6)
        torch.testing.assert_close(images.after, cached.after, rtol=0, atol=1e-5)
    assert cached.change.abs().min() > 1e-4
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_images_are_augmented_and_their_backbone_is_in_eval_mode(made, monkeypatch):
    model, data, training, targets, scores = made
    _, augmented = model_and_data()
    seen = []
    hook = model.backbone.register_forward_hook(
        lambda module, inputs, output: seen.append((module.training, len(output)))
    )
    plan = replace(PLAN, mode="images", epochs=2)
    found = reweight(plan, training, targets, scores, BatchSource(model, augmented, TRAINER))
    hook.remove()
    # One forward pass of each batch of each epoch serves all five heads.
    batches = [b for epoch in (0, 1) for b in BalancedBatches(data.labels, 4, 2, 4, epoch)]
    assert seen == [(False, len(batch)) for batch in batches]
    plain = reweight(plan, training, targets, scores, BatchSource(model, data, TRAINER))
    assert (found.after - plain.after).abs().max() > 1e-4
    again = reweight(plan, training, targets, scores, BatchSource(model, augmented, TRAINER))
    assert torch.equal(found.after, again.after)


def test_weights_of_one_are_plain_training_whatever_the_scores(small):
    training, targets, scores, data = small
    plain = replace(PLAN, helpful=1.0, harmful=1.0)
    found = [reweight(plan, training, targets, each, without_model(data)).after
             for plan, each in ((plain, scores), (plain, -scores), (PLAN, 0 * scores))]  # fmt: skip
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-14)
    torch.testing.assert_close(found[0], found[2], rtol=0, atol=1e-14)
    assert (found[0] - slowly(training, targets, scores, data, PLAN)).abs().min() > 1e-6


def test_signs_decide_the_weights():
    scores = torch.tensor([[-3.0, 0.0, 1e-20], [0.0, 5.0, -1e-20]])
    assert sample_weights(scores, replace(PLAN, helpful=1.5, harmful=0.25)).tolist() == [
        [1.5, 1.0, 0.25],
        [1.0, 0.25, 1.5],
    ]


def test_lbfgs_moves_each_head_on_its_own(small):
    training, targets, scores, data = small
    plan = replace(PLAN, optimizer=partial(torch.optim.LBFGS, lr=1e-3, max_iter=2))
    some = replace(targets, groups=targets.groups[:2])
    both = reweight(plan, training, some, scores[:2], without_model(data))
    for i in (0, 1):
        alone = replace(targets, groups=targets.groups[i : i + 1])
        one = reweight(plan, training, alone, scores[i : i + 1], without_model(data))
        torch.testing.assert_close(both.after[i : i + 1], one.after, rtol=0, atol=1e-12)
    assert both.change.abs().min() > 1e-6


def test_nothing_asked_or_nothing_explained_is_nothing(made):
    model, data, training, targets, scores = made
    none = replace(targets, groups=())
    assert (
        reweight(replace(PLAN, mode="none"), training, targets, scores, BatchSource(model, data, TRAINER))
        is None
    )
    assert reweight(PLAN, training, none, scores[:0], BatchSource(model, data, TRAINER)) is None
    assert report(None, PLAN) is None


def test_the_report_is_of_the_change():
    changes = Changes(torch.tensor([0.5, 0.25, 1.0]), torch.tensor([0.75, 0.25, 1.125]))
    found = report(changes, PLAN)
    assert found["mean"] == pytest.approx(0.125)
    half = 4.302652729911275 * np.std([0.25, 0, 0.125], ddof=1) / 3**0.5
    assert (found["low"], found["high"]) == (pytest.approx(0.125 - half), pytest.approx(0.125 + half))
    told = {key: found[key] for key in ("mode", "epochs", "helpful", "harmful", "optimizer", "lr", "n")}
    assert list(told.values()) == ["cached", 1, 2.0, 0.0, "Adam", 1e-3, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"mode": "cache"},
            r"retrain.mode=cache is not known; did you mean cached\? Valid: cached, images, n",
        ),
        ({"epochs": 0}, r"retrain.epochs=0 is too small"),
        ({"epochs": 1.5}, r"retrain.epochs=1.5 is not a whole number"),
        ({"helpful": -1.0}, r"retrain.helpful=-1.0 is out of range"),
        ({"harmful": float("inf")}, r"retrain.harmful=inf is out of range"),
        ({"harmful": "none"}, r"retrain.harmful=none is not a number"),
        ({"seed": -1}, r"retrain.seed=-1 is too small"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        replace(PLAN, **changes)


def test_settings_that_are_no_keys_and_more_than_the_head_are_refused():
    with pytest.raises(UserError, match=r"retrain=cached is not a group of keys; give retrain.mode=cached"):
        check("cached", "head")
    for mode in MODES[1:]:
        with pytest.raises(UserError, match=rf"retrain.mode={mode} trains the head again, but params=all"):
            check({"mode": mode}, "all")
    check({"mode": "none"}, "all")


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (partial(torch.optim.SGD, lr=-1.0), r"retrain.optimizer: Invalid learning rate: -1.0"),
        (partial(torch.optim.Adam, rate=1.0), r"retrain.optimizer: .*unexpected keyword argument 'rate'"),
        (torch.optim.SparseAdam, r"retrain.optimizer: SparseAdam does not support dense gradients"),
        (partial(torch.nn.Linear, out_features=3), r"retrain.optimizer: "),
        (None, r"retrain.optimizer: "),
        (partial(torch.optim.SGD, lr=float("inf")), r"explanation 0 is not finite .* lower retrain.opt"),
    ],
)
def test_an_optimizer_that_can_not_work_is_named(optimizer, message):
    model, _ = model_and_data()
    with pytest.raises(UserError, match=message):
        rehearse(replace(PLAN, optimizer=optimizer), model)
    rehearse(replace(PLAN, optimizer=optimizer, mode="none"), model)


def test_a_rehearsal_changes_nothing(made):
    model, *_ = made
    weight, state = model.head.weight.clone(), torch.random.get_rng_state()
    rehearse(PLAN, model)
    assert torch.equal(model.head.weight, weight)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_head_that_is_not_finite_is_named(made):
    model, data, training, targets, scores = made
    plan = replace(PLAN, helpful=1e10, optimizer=partial(torch.optim.SGD, lr=1e38))
    scores = scores.clone()
    scores[:2] = 1.0  # weights of 0: these heads stay
    with pytest.raises(UserError, match=r"explanation 2 is not finite after retraining"):
        reweight(plan, training, targets, scores, BatchSource(model, data, TRAINER))
