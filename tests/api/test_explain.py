import os
import random
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import Subset

import deconfuse as dc
from deconfuse.attribution.head import Targets, Training
from deconfuse.influence import eif
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.loss.softtriple import SoftTriple
from deconfuse.system.errors import UserError
from tests.api.data import Named, Small, images, rows
from tests.conftest import ROOT, SHARED
from tests.test_story import go

TRAIN, TEST = rows(70, 5, 0), rows(47, 4, 1, first=5)


def test_arrays_give_the_numbers_of_the_command_line(tmp_path):
    """The same embeddings as a file for model=as_is recipe=small: equal proxies, scores and tables."""
    features = np.concatenate([TRAIN[0], TEST[0]])
    labels = np.concatenate([TRAIN[1], TEST[1]])
    split = np.array(["train"] * 70 + ["test"] * 47)
    np.savez(tmp_path / "data.npz", features=features, labels=labels, split=split)
    words = [
        "dataset=features",
        "model=as_is",
        "recipe=small",
        f"dataset.path={tmp_path / 'data.npz'}",
        "report=false",
        "seed=3",
    ]
    folder = go(tmp_path / "out", *words)
    found = dc.explain(train=TRAIN, test=TEST, seed=3)
    assert len(found.confusions) > 3
    # Lightning's loop and ours take the same steps on the same batches; sums may be rounded in another order.
    np.testing.assert_allclose(found.influence, np.load(folder / "influence.npy"), rtol=1e-4, atol=1e-6)
    for name, keys in (
        ("confusions", ["query_class", "neighbour_class"]),
        ("samples", ["class", "recommended"]),
    ):
        written, own = (
            pd.read_csv(folder / f"{name}.csv", dtype=dict.fromkeys(keys, str)),
            found.tables[f"{name}.csv"],
        )
        pd.testing.assert_frame_equal(written[keys], own[keys].astype(str), check_dtype=False)
    written = pd.read_csv(folder / "samples.csv")
    np.testing.assert_allclose(found.samples["suspicion"], written["suspicion"], rtol=1e-5, atol=1e-6)


def test_lists_tensors_and_memory_maps_are_what_arrays_are(tmp_path):
    np.save(tmp_path / "train.npy", TRAIN[0])
    mapped = np.load(tmp_path / "train.npy", mmap_mode="r")
    first = dc.explain(train=TRAIN, test=TEST)
    others = [
        dc.explain(train=(mapped, TRAIN[1]), test=TEST),
        dc.explain(train=(torch.from_numpy(TRAIN[0]), torch.from_numpy(TRAIN[1])), test=TEST),
        dc.explain(train=(TRAIN[0].astype(np.float64), TRAIN[1].astype(float)), test=TEST),
        dc.explain(train=(TRAIN[0].tolist(), TRAIN[1].tolist()), test=TEST),
        dc.explain(train=(pd.DataFrame(TRAIN[0]), pd.Series(TRAIN[1])), test=TEST),
    ]
    for other in others:
        # The same numbers, but elsewhere in memory: how they are aligned may change the order of a sum.
        np.testing.assert_allclose(first.influence, other.influence, rtol=1e-4, atol=1e-6)
        pd.testing.assert_frame_equal(first.samples, other.samples)


def test_confusions_and_recall_are_those_of_a_search_by_hand():
    found = dc.explain(train=TRAIN, test=TEST)
    e = TEST[0] / np.linalg.norm(TEST[0], axis=1, keepdims=True)
    d = ((e[:, None].astype(float) - e[None]) ** 2).sum(2)
    np.fill_diagonal(d, np.inf)
    near = d.argmin(1)
    wrong = TEST[1] != TEST[1][near]
    assert found.retrieval["R@1"] == pytest.approx(1 - wrong.mean())
    pairs = {(f"test/{i:06d}", f"test/{near[i]:06d}") for i in np.flatnonzero(wrong)}
    assert set(zip(found.confusions["query"], found.confusions["neighbour"], strict=True)) == pairs
    np.testing.assert_allclose(found.confusions["distance"], np.sort(d.min(1)[wrong]), rtol=1e-5)


def test_the_head_and_the_loss_of_a_network_are_explained_as_by_hand():
    """phi, W and b by the network's own layers; EIF of them by the method itself."""
    torch.manual_seed(1)
    model, loss = Small().train(), ProxyNCA(4, 6)
    train, test = images(50, 4, 0), images(31, 3, 1, first=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = dc.explain(model, train=train, test=test, loss=loss)
    assert model.training
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    model.eval()
    with torch.no_grad():
        phi, phi_test = model.features(train.tensors[0]), model.features(test.tensors[0])
        z = model.fc(phi)
    np.testing.assert_allclose(found.embeddings()["train"], z, rtol=1e-5, atol=1e-6)
    lone = Training(
        phi, train.tensors[1], model.fc.weight.detach(), model.fc.bias.detach(), loss.requires_grad_(False)
    )
    pairs = found.seen.confusions.pairs
    assert len(pairs) > 2
    scores = eif.scores(lone, Targets.pairs(phi_test, phi_test, pairs))
    np.testing.assert_allclose(found.influence, scores, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("params", ["last_block", "all"])
def test_more_than_the_head_is_attributed(params):
    """TracIn by hand: the product of the gradients of d and of each loss in the chosen parameters."""
    torch.manual_seed(2)
    model, loss = Small(normalise=False).eval(), ProxyNCA(3, 6).requires_grad_(False)
    train, test = images(9, 3, 0), images(12, 3, 5, first=3)
    found = dc.explain(
        model, train=train, test=test, loss=loss, params=params, influence="tracin", progress=False
    )
    chosen = [*model.mix.parameters(), model.fc.weight]
    if params == "all":
        chosen = [*model.conv.parameters(), *model.norm.parameters(), *chosen]
    pairs = found.seen.confusions.pairs
    assert len(pairs) > 0
    for row, (i, j) in zip(found.influence, pairs.tolist(), strict=True):
        e = nn.functional.normalize(model(test.tensors[0][[i, j]]), dim=1)
        of_d = torch.autograd.grad((e[0] - e[1]).square().sum(), chosen)
        for k, score in enumerate(row):
            of_loss = torch.autograd.grad(
                loss(model(train.tensors[0][[k]]), train.tensors[1][[k]]).sum(), chosen
            )
            truth = sum((a * b).sum() for a, b in zip(of_d, of_loss, strict=True)).item()
            assert score == pytest.approx(truth, rel=1e-3, abs=1e-5)


def test_a_classifier_is_explained_at_what_its_last_layer_reads():
    """Cross-entropy: the embeddings are the features, and the loss of a sample is the classifier's own."""
    torch.manual_seed(3)
    model = Small(m=4, normalise=False).eval()
    train, test = images(40, 4, 0), images(20, 4, 7)  # the same classes in test
    found = dc.explain(model, train=train, test=test, loss=nn.CrossEntropyLoss())
    with torch.no_grad():
        phi = model.features(train.tensors[0])
        losses = nn.functional.cross_entropy(model(train.tensors[0]), train.tensors[1], reduction="none")
    np.testing.assert_allclose(found.embeddings()["train"], phi, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.training.losses, losses, rtol=1e-4, atol=1e-5)
    guessed = dc.explain(model, train=train, test=test)
    np.testing.assert_array_equal(found.influence, guessed.influence)


def test_all_forms_of_a_data_set_and_of_a_model_are_one():
    torch.manual_seed(4)
    model, train, test = Small(), images(40, 4, 0), images(21, 3, 1, first=4)
    first = dc.explain(model, train=train, test=test, head="fc")
    trunk = nn.Sequential(
        model.conv, model.norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.mix, nn.ReLU()
    )
    arrays = [tuple(values.numpy() for values in side.tensors) for side in (train, test)]
    others = [
        dc.explain(model, train=train, test=test, head=model.fc),
        dc.explain(model, train=Subset(train, range(40)), test=Named(test)),
        dc.explain(model, train=arrays[0], test=arrays[1]),
        dc.explain((trunk, model.fc), train=train, test=test),
        dc.explain({"trunk": trunk, "embedder": model.fc}, train=train, test=test),
        dc.explain(model, train=train, test=test, batch_size=7),
    ]
    for other in others:
        np.testing.assert_allclose(first.influence, other.influence, rtol=1e-3, atol=1e-5)
        assert first.confusions["query_class"].tolist() == other.confusions["query_class"].tolist()


def test_a_gallery_of_its_own_is_searched():
    gallery = rows(30, 4, 2, first=5)
    found = dc.explain(train=TRAIN, test=TEST, gallery=gallery)
    assert found.confusions["neighbour"].str.startswith("gallery/").all()
    e, f = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (TEST[0], gallery[0]))
    right = TEST[1] == gallery[1][(e @ f.T).argmax(1)]
    assert found.retrieval["R@1"] == pytest.approx(right.mean())


def test_no_state_of_the_process_is_changed_and_the_seed_decides():
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    one, same, other = (dc.explain(train=TRAIN, test=TEST, seed=seed) for seed in (0, 0, 1))
    assert random.getstate() == states[0]
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    assert not torch.are_deterministic_algorithms_enabled()
    np.testing.assert_array_equal(one.influence, same.influence)
    assert not np.array_equal(one.influence, other.influence)


BAD = np.where(np.arange(70 * 12).reshape(70, 12) == 100, np.nan, TRAIN[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"train": (TRAIN[0][:, :, None], TRAIN[1])},
            r"^train: has shape \(70, 12, 1\); give embeddings of shape",
        ),
        ({"train": (TRAIN[0], TRAIN[1][:9])}, r"^train labels: has shape \(9,\) for 70 samples"),
        ({"train": (BAD, TRAIN[1])}, r"^train: row 8, column 4 is nan"),
        ({"train": (TRAIN[0], TRAIN[1] + 0.5)}, r"^train labels: label 0 is 0.5; give whole numbers"),
        ({"train": (TRAIN[0], np.eye(5)[TRAIN[1]])}, r"^train labels: has shape \(70, 5\), as one-hot"),
        ({"train": (TRAIN[0], [None, *TRAIN[1][1:].tolist()])}, r"^train labels: label 0 is missing"),
        (
            {"train": (TRAIN[0], ["a", *TRAIN[1][1:].tolist()])},
            r"^train labels: labels of the types int, str",
        ),
        ({"train": (TRAIN[0], [str(i) for i in TRAIN[1]])}, r"^labels are text in train, numbers in test"),
        ({"train": (TRAIN[0].astype(complex), TRAIN[1])}, r"^train: holds complex"),
        (
            {"train": (TRAIN[0][:, :5], TRAIN[1])},
            r"^embeddings have different lengths: 5 in train, 12 in test",
        ),
        ({"train": (TRAIN[0], 0 * TRAIN[1])}, r"^train: all 70 samples have the label 0"),
        ({"train": (0 * TRAIN[0], TRAIN[1])}, r"^train: 70 embedding\(s\) are all zeros \(train/000000"),
        ({"train": TRAIN[0]}, r"^train: an array without labels"),
        ({"train": (*TRAIN, ["a"])}, r"^train: 1 names for 70 samples"),
        ({"train": (1, 2, 3, 4)}, r"^train: a tuple of 4"),
        ({"train": images(8, 2, 0)}, r"^train: a TensorDataset, but there is no model"),
        ({"test": (TEST[0], np.arange(47))}, r"^test: none of the 47 samples has another of its label"),
        ({"params": "heads"}, r"^params=heads is not known; did you mean head"),
        ({"influence": "eiff"}, r"^influence=eiff is not known; did you mean eif"),
        ({"influence": {"name": "eif", "radius": 1}}, r"^there is no key influence.radius"),
        ({"influnce": "eif"}, r"^explain has no argument influnce; did you mean influence"),
        ({"seed": -1}, r"^seed=-1 is too small"),
        ({"batch_size": 0}, r"^batch_size=0"),
        ({"loss": "softriple"}, r"^loss=softriple is not known; did you mean softtriple"),
        ({"loss": nn.CrossEntropyLoss()}, r"^loss: cross-entropy needs a model"),
        ({"loss": SoftTriple(5, 7)}, r"^loss: its proxies have 7 numbers, and the embeddings 12"),
        ({"loss": SoftTriple(3, 12)}, r"^train: the label 4 is none of the loss's 3 classes, 0 to 2"),
        ({"loss": nn.MarginRankingLoss()}, r"^loss: MarginRankingLoss fails on"),
        ({"head": "fc"}, r"^head: without a model give"),
        ({"head": nn.Linear(5, 3)}, r"^head: W and b have the shapes"),
        ({"images": {"training": []}}, r"^images: 'training' is no side"),
        ({"candidates": 0}, r"^candidates=0"),
    ],
)
def test_what_cannot_be_meant_is_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as raised:
        dc.explain(**{"train": TRAIN, "test": TEST, **arguments})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"head": "fcc"}, r"^head=fcc is no linear layer of the model; did you mean fc\?"),
        ({"head": nn.Linear(2, 2)}, r"^head: this layer is no linear layer of the model"),
        (
            {"train": images(12, 3, 0, channels=2)},
            r"^the model cannot read a batch",
        ),
        ({"device": "cuda:99"}, r"^device=cuda:99"),
        ({"params": "all", "influence": "ekfac"}, r"^influence=ekfac works on the head only"),
    ],
)
def test_a_model_that_cannot_be_meant_is_one_line(arguments, message):
    given = {"train": images(12, 3, 0), "test": images(9, 3, 1), **arguments}
    with pytest.raises(UserError, match=message) as raised:
        dc.explain(Small(), **given)
    assert "\n" not in str(raised.value)


def test_a_data_set_with_random_augmentation_is_refused():
    class Moving(Named):
        def __getitem__(self, i):
            image, label = self.tensors[i]
            return image + torch.rand(()), label

    with pytest.raises(UserError, match=r"^train: item 0 is another one each time it is read"):
        dc.explain(Small(), train=Moving(images(12, 3, 0)), test=images(9, 3, 1))


def test_a_model_that_draws_in_eval_mode_is_refused():
    class Noisy(Small):
        def features(self, x):
            return super().features(x) + torch.rand(10)

    with pytest.raises(UserError, match="give others the second time"):
        dc.explain(Noisy(), train=images(12, 3, 0), test=images(9, 3, 1), head="fc")


@pytest.mark.slow
def test_a_resnet_of_torchvision_trained_in_plain_pytorch_on_omniglot():
    """Ten lines of a stranger's script; its classifier reads 512 features, which are what is compared."""
    if not (SHARED / "data/omniglot/images_background_small1.zip").exists():
        pytest.skip("no Omniglot at ../shared/data/omniglot")
    from torchvision.models import resnet18

    from deconfuse.dataset.omniglot import load

    listing = load(str(SHARED / "data/omniglot"), ["Greek"], ["Sanskrit"], download=False)
    pixels = torch.from_numpy(listing.images.pixels[:, ::4, ::4]).float()[:, None].repeat(1, 3, 1, 1) / 255
    parts = np.array(listing.parts)
    labels = np.unique(listing.classes, return_inverse=True)[1]
    sides = []
    for part in ("train", "test"):
        chosen = np.flatnonzero((parts == part) & (np.arange(len(parts)) % 20 < 8))
        sides.append((pixels[chosen], np.unique(labels[chosen], return_inverse=True)[1]))
    torch.manual_seed(0)
    model = resnet18(num_classes=24)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(3):
        for rows_ in torch.randperm(len(sides[0][0])).split(32):
            y = torch.from_numpy(sides[0][1])[rows_]
            loss = nn.functional.cross_entropy(model(sides[0][0][rows_]), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    found = dc.explain(model, train=sides[0], test=(sides[1][0], sides[1][1] + 24))
    assert found.training.features.shape == (192, 512)
    assert found.influence.shape == (len(found.confusions), 192)
    assert 0.02 < found.retrieval["R@1"] < 1
    assert np.isfinite(found.influence).all()


LAZY = """
import sys, time
import deconfuse
assert "torch" not in sys.modules and "pytorch_lightning" not in sys.modules and "hydra" not in sys.modules
assert {"explain", "UserError", "callbacks", "influence"} <= set(dir(deconfuse))
try:
    deconfuse.explane
except AttributeError as error:
    print(error)
deconfuse.UserError
assert "torch" not in sys.modules
deconfuse.explain
assert "hydra" not in sys.modules, "no Hydra in the public face"
"""


def test_importing_is_cheap_and_brings_no_hydra():
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", LAZY], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "module 'deconfuse' has no attribute 'explane'\n"
