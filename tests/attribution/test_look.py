import numpy as np
import pytest
import torch

from deconfuse.attribution.head import Training
from deconfuse.attribution.look import Frozen, Subject, freeze
from deconfuse.data.build import build
from deconfuse.data.images import FeatureRows
from deconfuse.data.listing import Listing
from deconfuse.data.split import Part, RowSpec, Split
from deconfuse.influence import tracin
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.model.identity import Identity
from deconfuse.retrieval.confusion import Explained, Pairs
from deconfuse.system.errors import UserError
from deconfuse.training.datamodule import DataModule
from deconfuse.training.embedder import Embedder
from tests.influence.test_tracin import by_hand
from tests.made import recipe


@pytest.mark.parametrize(("sign", "table"), [(1.0, "confusions.csv"), (-1.0, "mis_similar.csv")])
def test_targets_have_the_sign_of_what_is_explained(tmp_path, sign, table):
    training, targets = by_hand(1.0)
    pairs = Pairs(torch.tensor([0]), torch.tensor([1]), torch.tensor([2.0]))
    explained = Explained((torch.tensor([[0, 1]]),), sign, table, pairs)
    found = Frozen(training, targets.query, targets.gallery, tmp_path).targets(explained)
    assert (found.sign, found.folder) == (sign, tmp_path)
    assert torch.equal(found.query, targets.query)
    assert torch.equal(found.gallery, targets.gallery)
    # What brings the pair closer harms a confusion, and helps a mis-similar pair.
    want = sign * torch.tensor([[-2.0, -30.0, -2.0]], dtype=torch.float64)
    torch.testing.assert_close(tracin.scores(training, found), want)


def side(z, names):
    """Rows of z as the features of a head that is the identity, and the split they are of."""
    m = z.shape[1]
    labels = torch.zeros(len(z), dtype=torch.long)
    training = Training(z, labels, torch.eye(m), torch.zeros(m), torch.nn.Module())
    part = Part(FeatureRows(z.numpy()), np.arange(len(z)), np.zeros(len(z), np.int64), names)
    return training, Split(part, part, part, ("a",), 1, RowSpec(m))


def test_an_embedding_that_is_zero_is_named(tmp_path):
    z = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    z[[2, 5]] = 0
    training, split = side(z, tuple("abcdefg"))
    with pytest.raises(UserError, match=r"of 2 query images \(c, f\) are all zeros, .* direction; mend"):
        Frozen(training, z, z, tmp_path).test_side(split)


@pytest.fixture
def frozen(tmp_path):
    """freeze() of a head on finished features, of which training rows 1 and 4 and query row 0 are zero."""
    labels = np.repeat(np.arange(4), 3)
    values = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    values[[1, 4, 6]] = 0
    parts = ["train"] * 6 + ["test"] * 6
    names = [f"{i}.png" for i in range(12)]
    split = build(Listing(FeatureRows(values), list(map(str, labels)), parts, names, "made"))
    model = Embedder(Identity(5), ProxyNCA(2, 8), recipe())
    data = DataModule(split, split.train.labels, model.backbone, model.recipe, 0, 5)

    def freeze_it(bias):
        torch.nn.init.constant_(model.head.bias, bias)
        path = tmp_path / "model.ckpt"
        torch.save({"state_dict": model.state_dict()}, path)
        return freeze(Subject(model, data, "head", torch.device("cpu")), path)

    return freeze_it


@pytest.mark.parametrize("rows", [1, 4, 2**16])
def test_images_whose_features_are_zero_are_named(frozen, monkeypatch, capsys, rows):
    """All have one embedding, the bias."""
    monkeypatch.setattr("deconfuse.attribution.look.CHECKED_ROWS", rows)
    z = frozen(0.5).training.z
    assert torch.equal(z[1], z[4])
    said = " ".join(capsys.readouterr().err.split())
    assert "features of 2 training images (1.png, 4.png) are all zeros, so that their" in said
    assert "features of 1 query image (6.png) are all zeros, so that" in said


@pytest.mark.parametrize("rows", [1, 4, 2**16])
def test_training_images_without_a_direction_are_named(frozen, monkeypatch, rows):
    monkeypatch.setattr("deconfuse.attribution.rows.PART_ROWS", rows)
    with pytest.raises(UserError, match=r"^the embeddings of 2 training images \(1.png, 4.png\) are all"):
        frozen(0.0)
