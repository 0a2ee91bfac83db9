import copy
import gc
import json
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch

from deconfuse.attribution.epochs import Moments
from deconfuse.attribution.look import Subject
from deconfuse.attribution.trajectory import Moment, When
from deconfuse.influence import eif, tracin
from deconfuse.launch.command_line import explain
from deconfuse.runs.finished import read
from deconfuse.system.arrays import read_arrays
from deconfuse.system.errors import UserError
from deconfuse.target import groups, pairs
from deconfuse.training.checkpoint import kept_at
from deconfuse.training.train import find_or_train
from tests.made import model_and_data
from tests.test_story import TINY, go, report

TRAINER = partial(pl.Trainer, accelerator="cpu", devices=1)


def made(model, data, words, explainer=None, target=None, name="eif", params="head"):
    """Moments of the untrained model; words: of When."""
    explainer = explainer or partial(eif.scores, path=eif.Sphere(0.02, 3))
    target = target or partial(pairs.choose, most=7)
    subject = Subject(copy.deepcopy(model), data, params, torch.device("cpu"))
    return Moments(When(**words), subject, explainer, target, name)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(untrained model, data, checkpoint): four epochs, the second and the third kept beside the last."""
    folder = tmp_path_factory.mktemp("home")
    model, data = model_and_data(epochs=4, checkpoints=2)
    untrained = copy.deepcopy(model)
    words = {"when": "every_n_epochs", "every": 3}
    checkpoint, _ = find_or_train(model, data, folder, TRAINER, None, moments=made(untrained, data, words))
    assert [kept_at(folder, epoch).name for epoch in (2, 3)] == ["epoch_0002.ckpt", "explained_0003.ckpt"]
    return untrained, data, checkpoint


def last(n=96, epoch=4):
    nothing = torch.zeros(0, dtype=torch.long), torch.zeros(0, 2, dtype=torch.long), torch.zeros(0)
    return Moment.of(epoch, 0.5, 0, nothing, torch.zeros(0, n))


def test_what_the_callback_explained_is_what_is_explained_afterwards(trained):
    """From the same checkpoint, with features taken again."""
    untrained, data, checkpoint = trained
    folder = checkpoint.parent
    before = read_arrays(folder / "explained_0003.eif.npz")
    for name in ("explained_0003.eif.npz", "explained_0003.features.npz"):
        (folder / name).unlink()
    made(untrained, data, {"when": "every_n_epochs", "every": 3}).trajectory(checkpoint, last())
    after = read_arrays(folder / "explained_0003.eif.npz")
    assert before["scores"].shape == (7, 96)
    assert np.abs(before["scores"]).max() > 0
    for key in before:
        np.testing.assert_array_equal(before[key], after[key])


def test_explaining_leaves_no_memory_behind(trained, tmp_path):
    """Where training goes on, as many bytes of tensors live after each explanation as after the first."""
    untrained, data, checkpoint = trained

    def alive():
        gc.collect()
        storages = {}
        for each in gc.get_objects():
            if type(each) in (torch.Tensor, torch.nn.Parameter):  # others may stand for memory elsewhere
                storage = each.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
        return sum(storages.values())

    moments = made(untrained, data, {"when": "every_n_epochs", "every": 1})
    after = []
    for i in range(3):
        folder = tmp_path / str(i)
        folder.mkdir()
        copied = shutil.copy(kept_at(checkpoint.parent, 2), folder)
        moments.while_training(Path(copied), 2)
        after.append(alive())
        assert list(folder.glob("*.eif.npz"))
    assert after[0] == after[1] == after[2] > 0


def test_an_explanation_is_what_the_method_says_of_that_epochs_model(trained):
    """Against the steps written out: the epoch's weights, its own confusions, its own features."""
    untrained, data, checkpoint = trained
    model = copy.deepcopy(untrained)
    model.load_state_dict(torch.load(checkpoint.parent / "explained_0003.ckpt", weights_only=True))
    model.eval()
    with torch.no_grad():
        batch = [torch.cat([model.backbone(x) for x, _, _ in data.in_order(part)])
                 for part in (data.split.train, data.split.query)]  # fmt: skip
        z = torch.nn.functional.normalize(model.head(batch[1]), dim=1)
    far = torch.cdist(z, z).fill_diagonal_(torch.inf)
    labels = torch.from_numpy(data.split.query.labels)
    wrong = labels[far.argmin(1)] != labels
    moment = made(untrained, data, {}).explain(checkpoint.parent / "explained_0003.ckpt", 3)
    assert moment.confusions == int(wrong.sum())
    assert moment.recall == pytest.approx(1 - wrong.double().mean().item())
    assert {query for query, _ in moment.pairs.tolist()} <= set(torch.nonzero(wrong)[:, 0].tolist())
    scores = torch.from_numpy(read_arrays(checkpoint.parent / "explained_0003.eif.npz")["scores"])
    torch.testing.assert_close(moment.mean, scores.mean(0))
    torch.testing.assert_close(moment.worst_score, scores.max(1).values)


def test_tracin_sums_over_what_came_before_the_epoch_alone(trained):
    untrained, data, checkpoint = trained
    folder, method = checkpoint.parent, partial(tracin.scores)
    early = []

    def explainer(training, targets, *, earlier=()):
        sides = list(earlier)
        early.append([len(side[0]) for side in sides])
        return method(training, targets, earlier=sides)

    moments = made(untrained, data, {}, explainer=partial(explainer), name="tracin")
    for epoch in (2, 3):
        moments.explain(kept_at(folder, epoch), epoch)
    assert early == [[], [96]]  # the second epoch is before the third; neither is before the second


def test_a_damaged_explanation_is_made_again_and_another_methods_is_its_own(trained, capsys):
    untrained, data, checkpoint = trained
    path, moments = kept_at(checkpoint.parent, 2), made(untrained, data, {})
    first = moments.explain(path, 2)
    file = path.with_suffix(".eif.npz")
    whole = file.read_bytes()
    file.write_bytes(whole[:300])
    capsys.readouterr()
    assert torch.equal(moments.explain(path, 2).mean, first.mean)
    assert "explaining again:" in capsys.readouterr().err
    moments.explain(path, 2)
    assert not capsys.readouterr().err  # found
    other = made(untrained, data, {}, target=partial(groups.choose), name="groups").explain(path, 2)
    assert not torch.equal(other.mean, first.mean)
    assert len(other.pairs) == other.confusions == len(other.group) > len(other.worst)


def test_an_explanation_of_other_weights_is_made_again(trained, tmp_path):
    untrained, data, checkpoint = trained
    for epoch in (2, 3):
        (tmp_path / "epoch_0002.ckpt").write_bytes(kept_at(checkpoint.parent, epoch).read_bytes())
        found = made(untrained, data, {}).explain(tmp_path / "epoch_0002.ckpt", 2)
    assert torch.equal(found.mean, made(untrained, data, {}).explain(kept_at(checkpoint.parent, 3), 3).mean)


@pytest.mark.parametrize(
    ("words", "epochs", "line"),
    [
        ({}, None, ""),
        ({"when": "every_n_epochs"}, [2, 4], ""),
        ({"when": "every_n_epochs", "every": 3}, [3, 4], ""),
        (
            {"when": "every_n_epochs", "every": 1},
            [2, 3, 4],
            r"influence.when=every_n_epochs: epoch 1 was not kept when this model was trained, and is not "
            r"explained; influence.when=every_n_epochs influence.every=null explains what was \(epoch 2\), "
            r"or delete .*home0 to train again and keep it \(a sweep also wants again=true\)",
        ),
        ({"when": "best"}, [3, 4], ""),
    ],
)
def test_a_model_that_was_trained_before_is_explained_where_it_was_kept(trained, capsys, words, epochs, line):
    untrained, data, checkpoint = trained
    history = "epoch,loss,R@1\n1,2,0.25\n2,2,0.5\n3,2,0.75\n4,2,0.7\n"
    (checkpoint.parent / "history.csv").write_text(history)
    moments = made(untrained, data, words)
    for epoch in (2, 3):
        moments.explain(kept_at(checkpoint.parent, epoch), epoch)
    capsys.readouterr()
    found = moments.trajectory(checkpoint, last())
    assert (found and found.epochs) == epochs
    assert re.fullmatch(line, capsys.readouterr().err.strip())


def test_the_best_epoch_that_was_the_last_leaves_nothing_to_explain(trained, capsys):
    untrained, data, checkpoint = trained
    (checkpoint.parent / "history.csv").write_text("epoch,loss,R@1\n4,2,0.7\n")
    assert made(untrained, data, {"when": "best"}).trajectory(checkpoint, last()) is None
    assert "influence.when=best: the last epoch is all there is to explain" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "", "epoch,loss\n1,2\n"])
def test_without_its_history_nobody_knows_the_best_epoch(trained, tmp_path, content):
    untrained, data, _ = trained
    if content is not None:
        (tmp_path / "history.csv").write_text(content)
    with pytest.raises(UserError, match=r"history.csv: can't be read .*nobody knows which epoch was best"):
        made(untrained, data, {"when": "best"}).trajectory(tmp_path / "model.ckpt", last())


NOISY = [*TINY, "noise=flip_10", "noise.ratio=0.25", "recipe.epochs=3", "recipe.checkpoints=3"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(output folder, the last epoch alone, the others too from the same checkpoint)."""
    output = tmp_path_factory.mktemp("outputs")
    return output, go(output, *NOISY), go(output, *NOISY, "influence.when=every_n_epochs")


def test_a_run_says_how_influence_moved_during_training(runs):
    output, plain, folder = runs
    assert report(folder)["checkpoint"]["reused"]  # one model, however it is looked at
    assert len(list(output.glob("checkpoints/*"))) == 1
    samples, epochs = (pd.read_csv(folder / f"{name}.csv") for name in ("samples", "influence_epochs"))
    means, scores = np.load(folder / "influence_epochs.npy"), np.load(folder / "influence.npy")
    assert means.shape == (3, 96)
    np.testing.assert_allclose(means[-1], scores.mean(0), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(samples["influence_epochs_mean"], means.mean(0), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(samples["influence_epochs_std"], means.std(0, ddof=1), rtol=1e-3, atol=1e-6)
    first = [next((k + 1 for k in range(3) if means[k, i] > 0), np.nan) for i in range(96)]
    np.testing.assert_array_equal(samples["first_harmful_epoch"], first)
    assert epochs["epoch"].tolist() == [1, 2, 3] == report(folder)["influence_epochs"]["epochs"]
    assert epochs["harmful"].tolist() == (means > 0).sum(1).tolist()
    assert epochs["R@1"].iloc[-1] == pytest.approx(report(folder)["retrieval"]["R@1"], abs=1e-6)
    history = pd.read_csv(next(output.glob("checkpoints/*/history.csv")))
    np.testing.assert_allclose(epochs["R@1"], history["R@1"], atol=1e-6)
    pairs_of = pd.read_csv(folder / "explained_epochs.csv").groupby("epoch").size()
    assert pairs_of.tolist() == epochs["explained"].tolist() == epochs["confusions"].tolist()
    described = json.loads((folder / "columns.json").read_text())
    for name in ("samples.csv", "influence_epochs.csv", "explained_epochs.csv"):
        assert list(described[name]) == list(pd.read_csv(folder / name))
    # The last epoch's findings are those of a run that explains it alone.
    assert report(plain)["influence_epochs"] is None
    pd.testing.assert_frame_equal(
        samples.drop(columns=["influence_epochs_mean", "influence_epochs_std", "first_harmful_epoch"]),
        pd.read_csv(plain / "samples.csv"),
    )
    assert not (plain / "influence_epochs.npy").exists()


def test_explaining_on_the_way_or_afterwards_writes_the_same(runs, tmp_path, capsys):
    _, plain, afterwards = runs
    on_the_way = go(tmp_path, *NOISY, "influence.when=every_n_epochs")
    assert not report(on_the_way)["checkpoint"]["reused"]
    said = capsys.readouterr()
    assert said.err.index("epoch 1: R@1 ") < said.err.index("epoch 2: R@1 ") < said.err.index("trained ")
    assert re.search(r"Harmful samples    \d+ at epoch 1, \d+ at epoch 2, \d+ at epoch 3\n", said.out)
    assert on_the_way.name == afterwards.name != plain.name
    for name in ("samples.csv", "influence_epochs.csv", "explained_epochs.csv", "influence_epochs.npy"):
        assert (on_the_way / name).read_bytes() == (afterwards / name).read_bytes(), name
    assert len({report(folder)["checkpoint"]["sha256"] for folder in (on_the_way, *runs[1:])}) == 1
    # Tables take both for one setting.
    assert read(plain).setting() == read(afterwards).setting()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("influence.when=bset", r"influence.when=bset is not known; did you mean best\?"),
        (
            "influence.when=every_n_epochs influence.every=2",
            r"influence.every=2 names no epoch before",
        ),
    ],
)
def test_a_wrong_word_is_named_before_anything_is_trained(tmp_path, word, message):
    with pytest.raises(UserError) as caught:
        go(tmp_path, *TINY, *word.split())
    assert re.search(message, explain(caught.value, [])[0])
    assert not list(tmp_path.iterdir())


def test_of_several_processes_none_goes_on_alone(monkeypatch):
    """The others may wait for it in the explanation."""

    def fails(moments, checkpoint, epoch):
        raise UserError("influence: no")

    model, data = model_and_data()
    moments = made(model, data, {})
    monkeypatch.setattr(Moments, "explain", fails)
    moments.while_training("model.ckpt", 4)
    monkeypatch.setattr("deconfuse.attribution.epochs.distributed.world", lambda: 2)
    with pytest.raises(UserError, match=r"epoch 4 .*: influence: no; influence.when=last trains without"):
        moments.while_training("model.ckpt", 4)
