import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deconfuse.data.images import FeatureRows
from deconfuse.data.split import Part, RowSpec, Split
from deconfuse.frozen.start import as_they_lie, begin, class_means, confusion, place_proxies, rows
from deconfuse.frozen.whitening import scatter, whitening
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.loss.softtriple import SoftTriple


def drawn(n=90, d=6, c=5, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(n) % c
    x = 3 * random.normal(size=(c, d))[labels] + random.normal(size=(n, d))
    return x.astype(np.float32), labels


def split_of(values, labels, trained=5):
    """The first half of the rows trains, the second half are queries of classes of their own."""
    half = len(values) // 2
    images, names = FeatureRows(values), tuple(map(str, range(len(values))))
    train = Part(images, np.arange(half), labels[:half], names[:half])
    query = Part(images, np.arange(half, len(values)), labels[half:] + trained, names[half:])
    return Split(train, query, query, tuple("abcdefghij"), trained, RowSpec(values.shape[1]))


def test_the_head_starts_whitened_and_the_proxies_at_the_means(tmp_path):
    x, labels = drawn()
    split, head, loss = split_of(x, labels), nn.Linear(6, 4), ProxyNCA(5, 4)
    found = begin(head, loss, split, split.train.labels, None, 0.3, tmp_path)
    features, given = torch.from_numpy(x[:45]), torch.from_numpy(labels[:45])
    weight, bias = whitening(scatter(features, given), 4, 0.3)
    torch.testing.assert_close(head.weight.detach(), weight.float())
    torch.testing.assert_close(head.bias.detach(), bias.float())
    e = F.normalize(features.double() @ weight.T + bias, dim=1)
    for c in range(5):
        mean = F.normalize(e[given == c].mean(0), dim=0)
        torch.testing.assert_close(loss.proxies[c].detach().double(), mean, atol=1e-5, rtol=0)
    assert set(found.backbone) == set(found.whitened) == {"R@1", "MAP@R"}
    query = F.normalize(torch.from_numpy(x[45:]), dim=1)
    near = (query @ query.T).fill_diagonal_(-2).argmax(1)
    assert found.backbone["R@1"] == pytest.approx((labels[45:][near] == labels[45:]).mean())


def test_samples_that_are_left_out_move_nothing(tmp_path):
    x, labels = drawn()
    left_out = np.zeros(45, dtype=bool)
    left_out[[3, 17]] = True
    moved = x.copy()
    moved[[3, 17]] = 1e3
    heads = []
    for values in (x, moved):
        head, loss = nn.Linear(6, 4), ProxyNCA(5, 4)
        split = split_of(values, labels)
        begin(head, loss, split, split.train.labels, left_out, 0.3, tmp_path)
        heads.append((head.weight.detach(), loss.proxies.detach()))
    torch.testing.assert_close(heads[0], heads[1])


def test_a_class_without_samples_keeps_its_random_proxy():
    loss = ProxyNCA(3, 4)
    before = F.normalize(loss.proxies.detach().clone(), dim=1)
    means = torch.eye(3, 4)
    means[1] = 0
    with torch.no_grad():
        place_proxies(loss, means)
    torch.testing.assert_close(loss.proxies.detach()[[0, 2]], means[[0, 2]])
    torch.testing.assert_close(loss.proxies.detach()[1], before[1])


def test_several_proxies_of_a_class_start_near_its_mean_but_apart():
    loss = SoftTriple(3, 16, centres=4)
    with torch.no_grad():
        place_proxies(loss, torch.eye(3, 16))
    proxies = loss.proxies.detach().unflatten(0, (3, 4))
    assert (proxies.diagonal(dim1=0, dim2=2) > 0.9).all()
    assert (torch.cdist(proxies[0], proxies[0]) + torch.eye(4) > 1e-3).all()


def test_rows_that_follow_each_other_are_a_view_and_others_a_copy(tmp_path):
    values = np.arange(24, dtype=np.float32).reshape(8, 3)
    names = tuple("abcd")
    inner = Part(FeatureRows(values), np.arange(2, 6), np.zeros(4, int), names)
    assert as_they_lie(inner).data_ptr() == values[2:].ctypes.data
    mixed = Part(FeatureRows(values), np.array([5, 0, 2, 7]), np.zeros(4, int), names)
    assert as_they_lie(mixed) is None
    np.testing.assert_array_equal(rows(mixed, tmp_path), values[[5, 0, 2, 7]])
    scaled = Part(FeatureRows(values, exponent=3), np.arange(4), np.zeros(4, int), names)
    assert as_they_lie(scaled) is None
    np.testing.assert_array_equal(rows(scaled, tmp_path), 8 * values[:4])


def test_class_means_are_the_same_in_parts(monkeypatch):
    x, labels = drawn()
    args = torch.from_numpy(x), torch.from_numpy(labels), torch.eye(6), torch.zeros(6), 5
    whole = class_means(*args)
    monkeypatch.setattr("deconfuse.frozen.start.ROWS", 7)
    torch.testing.assert_close(class_means(*args), whole)


def test_confusion_counts_the_closest_other_class(tmp_path):
    """Classes 0 and 1 lie beside each other, so do 2 and 3, and 4 is nearest to 3."""
    random = np.random.default_rng(0)
    means = np.array([[0, 0], [3, 0], [30, 0], [33, 0], [36, 9]], dtype=np.float32)
    labels = np.arange(200) % 5
    x = (means[labels] + random.normal(scale=0.3, size=(200, 2))).astype(np.float32)
    found = confusion(split_of(x, labels), tmp_path)
    np.testing.assert_allclose(found.sum(1), 1)
    assert not np.diag(found).any()
    assert found[0, 1] == found[1, 0] == found[2, 3] == 1
    assert found[4, 3] == 1
