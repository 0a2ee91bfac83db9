from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.model.identity import Identity
from deconfuse.retraining import leave_out
from deconfuse.retraining.leave_out import LeaveOut, Material, check, measure, report, sets, tables
from deconfuse.retrieval.confusion import Explained, Pairs
from deconfuse.retrieval.queries import Queries
from deconfuse.system.errors import UserError
from deconfuse.training.checkpoint import save
from deconfuse.training.embedder import Embedder
from tests.made import model_and_data, recipe

PLANTED = 12


@pytest.fixture
def planted(tmp_path):
    """(sides, explained, scores, checkpoint): 12 samples of one label put the query upon its wrong neighbour.

    Test: the query e0 + e1, another of its class e0 + e2, and one of another class, e3.
    """
    torch.manual_seed(0)
    e, random = torch.eye(6), torch.Generator().manual_seed(1)
    bad = torch.cat([(e[0] + e[1]).repeat(6, 1), e[3].repeat(6, 1)])
    rest = torch.cat([(e[0] + e[2]).repeat(6, 1), (e[0] + e[1] / 4).repeat(6, 1), e[4].repeat(12, 1)])
    features = torch.cat([bad, rest, e[5].repeat(12, 1)])
    features = features + 0.02 * torch.randn(features.shape, generator=random)
    labels = torch.cat([torch.full((12,), c) for c in (3, 0, 1, 2)])
    sizes = {"embedding_size": 6, "classes_per_batch": 4, "per_class": 3}
    numbers = recipe(epochs=8, lr_head=1e-2, frozen=True, whiten=0.3, **sizes)
    model = Embedder(Identity(6), ProxyNCA(4, 6), numbers)
    data = SimpleNamespace(labels=labels.numpy(), drawn=labels.numpy(), recipe=numbers, seed=0)
    test = torch.stack([e[0] + e[1], e[0] + e[2], e[3]])
    queries = Queries(test, test, *2 * [torch.tensor([0, 0, 1])], True)
    pair = torch.tensor([[0, 2]])
    pairs = Pairs(*pair.T, torch.tensor([0.1]))
    scores = torch.zeros(1, 48)
    scores[0, :PLANTED] = 1 + torch.arange(PLANTED) / 100
    save(model.state_dict(), tmp_path / "model.ckpt")
    sides = Material(model, data, features, test, test, queries)
    return sides, Explained((pair,), 1.0, "confusions.csv", pairs), scores, tmp_path / "model.ckpt"


PLAN = LeaveOut(3, "spread", (0.02, 0.25), "leave_out", 3)


def test_leaving_out_the_planted_samples_mends_the_confusion(planted):
    sides, explained, scores, checkpoint = planted
    found = measure(PLAN, sides, explained, scores, torch.zeros(48, dtype=torch.long), checkpoint)
    assert found.sizes == (1, PLANTED)
    assert found.confused_kept.all()
    assert not found.confused[:, 1].any()
    assert (found.d[:, 1] - found.d_kept > 10 * found.spread).all()
    assert abs(found.d[:, 0] - found.d_kept).mean() < 0.2 * (found.d[:, 1] - found.d_kept).mean()
    np.testing.assert_allclose(found.spread, found.d_kept.std(1, ddof=1)[0], rtol=1e-9)  # a single pair
    table = tables(found)["left_out.csv"]
    assert table[["row", "share", "left_out", "seed"]].values.tolist()[3:] == [
        [0, 0.25, 12, i] for i in range(3)
    ]
    said = report(found, PLAN)
    assert said["confused"][1] == 0
    assert said["confused_kept"] == 1
    assert said["change"][1] == pytest.approx((table["d"] - table["d_kept"])[3:].mean())


def test_relabelling_them_to_the_right_class_mends_it_too(planted):
    sides, explained, scores, checkpoint = planted
    plan, recommended = (
        LeaveOut(1, "closest", (0.25,), "relabel", 2),
        torch.from_numpy(sides.data.labels.copy()),
    )
    recommended[:6], recommended[6:12] = 0, 2
    found = measure(plan, sides, explained, scores, recommended, checkpoint)
    assert found.confused_kept.all()
    assert not found.confused.any()


def test_it_is_found_beside_the_checkpoint_and_how_many_heads_at_once_changes_nothing(planted, monkeypatch):
    sides, explained, scores, checkpoint = planted
    nothing = torch.zeros(48, dtype=torch.long)
    first = measure(PLAN, sides, explained, scores, nothing, checkpoint)
    with monkeypatch.context() as patch:
        patch.setattr("deconfuse.retraining.leave_out._trained", lambda *args: pytest.fail("trained again"))
        again = measure(PLAN, sides, explained, scores, nothing, checkpoint)
    assert np.array_equal(first.d, again.d)
    for path in checkpoint.parent.glob("*.npz"):
        path.unlink()
    monkeypatch.setattr(leave_out, "chunk_size", lambda *args: 1)
    alone = measure(PLAN, sides, explained, scores, nothing, checkpoint)
    np.testing.assert_allclose(first.d, alone.d, rtol=1e-3, atol=1e-3)


def test_the_sets_are_the_highest_scores_ties_by_index():
    scores = torch.tensor([[0.0, 3, 3, -1, 5, 3, 0]])
    allowed = torch.tensor([True, True, True, True, False, True, True])
    masks, sizes = sets(LeaveOut(1, "closest", (0.01, 0.34), "leave_out", 2), scores, allowed)
    assert sizes == (1, 2)
    assert [torch.nonzero(mask)[:, 0].tolist() for mask in masks[0]] == [[1], [1, 2]]


def test_a_query_is_compared_with_the_whole_gallery_but_itself(planted):
    sides, *_ = planted
    random = torch.Generator().manual_seed(2)
    weight, bias = torch.randn(5, 4, 6, generator=random), torch.randn(5, 4, generator=random)
    heads = leave_out.Heads(weight, bias, torch.zeros(5, 4, 4))
    pairs = torch.tensor([[[0, 2], [1, 2]]]).repeat(5, 1, 1)
    for h, (d, wrong) in enumerate(leave_out.looked(sides, heads, pairs)):
        e = F.normalize(F.linear(sides.query, weight[h], bias[h]), dim=1)
        apart = torch.cdist(e, e).square()
        torch.testing.assert_close(d.float(), apart[[0, 1], 2], rtol=1e-4, atol=1e-5)
        assert wrong.tolist() == [(apart[0, 2] < apart[0, 1]).item(), (apart[1, 2] < apart[1, 0]).item()]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((-1, "spread", (0.1,), "leave_out", 2), "leave_out.confusions=-1"),
        ((1, "far", (0.1,), "leave_out", 2), "leave_out.which=far"),
        ((1, "spread", (), "leave_out", 2), "leave_out.shares is empty"),
        ((1, "spread", (0.7,), "leave_out", 2), "leave_out.shares=0.7"),
        ((1, "spread", (0.1,), "forget", 2), "leave_out.treatment=forget"),
        ((1, "spread", (0.1,), "leave_out", 1), "leave_out.seeds=1"),
    ],
)
def test_bad_settings_are_one_line(numbers, message):
    with pytest.raises(UserError, match=message):
        LeaveOut(*numbers)


def test_what_it_cannot_do_is_said(planted):
    sides, explained, scores, checkpoint = planted
    with pytest.raises(UserError, match="add recipe=frozen"):
        check(PLAN, model_and_data()[0], "head")
    with pytest.raises(UserError, match="take params=head"):
        check(PLAN, sides.model, "all")
    groups = Explained(explained.groups, 1.0, "groups.csv", explained.pairs)
    with pytest.raises(UserError, match="take target=pairs"):
        measure(PLAN, sides, groups, scores, torch.zeros(48, dtype=torch.long), checkpoint)
    nothing = LeaveOut(0, "spread", (0.1,), "leave_out", 2)
    assert measure(nothing, sides, explained, scores, torch.zeros(48, dtype=torch.long), checkpoint) is None
    assert tables(None) == {}
    assert report(None, nothing) is None
