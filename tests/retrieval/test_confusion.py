import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from deconfuse.retrieval.confusion import distance, distance_gradient, find, groups, mis_similar
from deconfuse.retrieval.queries import Queries
from tests.drawn import points


def test_find_by_hand_orders_by_distance_then_query():
    angles = torch.tensor([0.0, 0.1, 1.0, 1.3, 3.0, 3.05])
    z = torch.stack([angles.cos(), angles.sin()], 1) * torch.tensor([[1], [5], [2], [1], [3], [1.0]])
    labels = torch.tensor([0, 1, 2, 2, 0, 1])  # each has a partner
    found = find(Queries(z, z, labels, labels, same=True))
    assert found.pairs.tolist() == [[4, 5], [5, 4], [0, 1], [1, 0]]
    want = [2 - 2 * np.cos(0.05)] * 2 + [2 - 2 * np.cos(0.1)] * 2
    assert found.distance.tolist() == pytest.approx(want, rel=1e-3)


def test_own_gallery_and_no_confusion():
    query, gallery = torch.eye(3), torch.eye(3) + 0.01
    labels = torch.arange(3)
    found = find(Queries(query, gallery, labels, labels, same=False))
    assert len(found) == 0
    assert found.pairs.shape == (0, 2)
    assert groups(found, labels) == []


def test_groups_are_all_confusions_of_a_class_largest_first():
    z = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 7
    found = find(Queries(z, z, labels, labels, same=True))
    sorted_groups = groups(found, labels)
    sizes = [len(rows) for _, rows in sorted_groups]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == len(found)
    for c, rows in sorted_groups:
        assert (labels[found.query[rows]] == c).all()


def test_golden_distances(golden):
    for name in ("proxynca", "softtriple"):
        data = {
            key: torch.from_numpy(value) for key, value in golden(name).items() if value.dtype.kind != "U"
        }
        z = data["test_features"] @ data["weight"].T + data["bias"]
        a, b = data["pairs"].T
        torch.testing.assert_close(distance(z[a], z[b]).double(), data["d0"], rtol=1e-5, atol=1e-5)


def test_gradient_equals_autograd():
    a = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    b = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    want = torch.autograd.grad(distance(a, b).sum(), (a, b))
    for ours, theirs in zip(distance_gradient(a.detach(), b.detach()), want, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_distance_is_between_0_and_4():
    a = torch.tensor([[2.0, 0], [2, 0], [2, 0]])
    b = torch.tensor([[7.0, 0], [-1, 0], [0, 3]])
    assert distance(a, b).tolist() == [0, 4, 2]


def slow_mis_similar(query, gallery, query_labels, gallery_labels, same):
    """Every query's farthest gallery row of its class, by a loop."""
    rows = []
    for i, label in enumerate(query_labels.tolist()):
        mine = [j for j in range(len(gallery)) if gallery_labels[j] == label and not (same and i == j)]
        if mine:
            d = [distance(query[i], gallery[j]).item() for j in mine]
            j = mine[int(np.argmax(d))]
            if not (same and (j, i) in [row[1:] for row in rows]):
                rows.append((-max(d), i, j))
    return [row[1:] for row in sorted(rows)]


@pytest.mark.parametrize("same", [True, False])
def test_mis_similar_pairs_are_the_farthest_of_each_class(same):
    random = torch.Generator().manual_seed(2)
    query = torch.randn(23, 3, generator=random, dtype=torch.float64)
    labels = torch.randint(0, 5, (23,), generator=random)
    labels[4] = 9  # alone in its class
    gallery = query if same else torch.randn(31, 3, generator=random, dtype=torch.float64)
    gallery_labels = labels if same else torch.randint(0, 5, (31,), generator=random)
    found = mis_similar(Queries(query, gallery, labels, gallery_labels, same=same))
    assert [tuple(pair) for pair in found.pairs.tolist()] == slow_mis_similar(
        query, gallery, labels, gallery_labels, same
    )
    a, b = found.pairs.T
    torch.testing.assert_close(found.distance, distance(query[a], gallery[b]))
    assert 4 not in found.query.tolist()


def test_no_mis_similar_pair_where_every_class_has_one_sample():
    z, labels = torch.eye(3), torch.arange(3)
    assert mis_similar(Queries(z, z, labels, labels, same=True)).pairs.shape == (0, 2)
    assert mis_similar(Queries(z, z, labels, labels + 3, same=False)).pairs.shape == (0, 2)


@given(points(least=2), st.booleans())
def test_confusions_of_any_labels_are_the_definition(drawn, same):
    """Also where all labels are equal, all differ, points coincide, or one is the origin."""
    z, labels = drawn
    found = find(Queries(z, z, labels, labels, same=same))
    e = F.normalize(z, dim=1)
    apart = (e[:, None] - e[None]).square().sum(2)
    if same:
        apart.fill_diagonal_(torch.inf)
    for query, neighbour, d in zip(found.query, found.neighbour, found.distance, strict=True):
        assert labels[query] != labels[neighbour]
        assert d <= apart[query].min() + 1e-5
        assert 0 <= d <= 4 + 1e-5
    assert found.distance.tolist() == sorted(found.distance.tolist())
    lone = (labels.bincount()[labels] == 1) & same  # the gallery has no other of their class
    assert not lone[found.query].any()
    others = sorted(set(range(len(z))) - set(found.query.tolist()) - set(lone.nonzero()[:, 0].tolist()))
    assert all((apart[i][labels == labels[i]].min() <= apart[i].min() + 1e-5) for i in others)
    assert len(found) == 0 or len(labels.unique()) > 1
    parts = groups(found, labels)
    assert sorted(int(row) for _, rows in parts for row in rows) == list(range(len(found)))
    far = mis_similar(Queries(z, z, labels, labels, same=same))
    assert (labels[far.query] == labels[far.neighbour]).all()
    assert not same or (far.query != far.neighbour).all()


@pytest.mark.parametrize(("offset", "scale"), [(0, 1e-18), (0, 1e18), (300, 1), (5000, 1e15)])
def test_mis_similar_pairs_far_from_the_origin_are_those_of_float64(offset, scale):
    z = (torch.randn(60, 8, generator=torch.Generator().manual_seed(3)) + offset) * scale
    labels = torch.arange(60) % 4
    e = z.double() / z.double().norm(dim=1, keepdim=True)
    d = (e[:, None] - e).square().sum(2).masked_fill(labels[:, None] != labels, -1)
    found = mis_similar(Queries(z, z, labels, labels, same=True))
    far = d.max(1)
    assert torch.equal(far.indices[found.query], found.neighbour)
    np.testing.assert_allclose(found.distance, far.values[found.query], rtol=1e-6)
    assert found.distance.dtype == torch.float32
    assert (found.distance.diff() <= 0).all()


@pytest.mark.parametrize("scale", [1e-18, 1e-13, 1e18])
def test_distance_and_its_gradient_of_short_and_long_z(scale):
    """d does not depend on a length, and its gradient is 1/length as large."""
    a, b = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    assert torch.allclose(distance(scale * a, scale * b), distance(a, b), rtol=1e-12)
    for found, want in zip(distance_gradient(scale * a, scale * b), distance_gradient(a, b), strict=True):
        torch.testing.assert_close(found * scale, want)


@pytest.mark.parametrize("offset", [0.0, 1.0, 300.0, 1e4])
@pytest.mark.parametrize("same", [True, False])
def test_pairs_under_an_offset_are_those_of_float64(same, offset):
    random = torch.Generator().manual_seed(3)
    query = torch.randn(61, 4, generator=random) + offset
    gallery = query if same else torch.randn(47, 4, generator=random) + offset
    labels, theirs = torch.arange(61) % 7, torch.arange(len(gallery)) % 7
    e, f = (side.double() / side.double().norm(dim=1, keepdim=True) for side in (query, gallery))
    apart = (e[:, None] - f[None]).square().sum(2)
    if same:
        apart.fill_diagonal_(torch.inf)
    near = apart.argmin(1)
    found = find(Queries(query, gallery, labels, theirs, same=same))
    wrong = [i for i in range(61) if labels[i] != theirs[near[i]]]
    want = sorted(wrong, key=lambda i: (apart[i, near[i]].item(), i))
    assert found.pairs.tolist() == [[i, near[i].item()] for i in want]
    exact = apart[found.query, found.neighbour].float()
    torch.testing.assert_close(found.distance, exact, rtol=1e-6, atol=0)  # of float32
    far = mis_similar(Queries(query, gallery, labels, theirs, same=same))
    own = apart.masked_fill((labels[:, None] != theirs) | torch.isinf(apart), -1)
    assert torch.equal(own.argmax(1)[far.query], far.neighbour)
    torch.testing.assert_close(far.distance, own.amax(1)[far.query].float(), rtol=1e-6, atol=0)
    assert far.distance.tolist() == sorted(far.distance.tolist(), reverse=True)
