import numpy as np
import torch

from deconfuse.labels import held_out
from deconfuse.labels.held_out import FOLDS, SHRINK, cosines, folds


def drawn(n=83, d=6, c=4, seed=0, offset=0.0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, c, n)
    x = 2 * random.normal(size=(c, d))[labels] + random.normal(size=(n, d)) @ random.normal(size=(d, d))
    return torch.from_numpy(x + offset), torch.from_numpy(labels)


def dense(x, labels, weight, c):
    found = torch.full((len(x), c), torch.nan)
    for rows, cosine, _ in cosines(x, labels, weight, c):
        found[rows] = cosine
    return found.numpy()


def slow(x, labels, weight, c):
    """Fold by fold: the other folds' weighted means and spread, and the cosines in the whitened space."""
    x, labels, weight, fold = x.numpy(), labels.numpy(), weight.numpy(), folds(labels).numpy()
    result = np.empty((len(x), c))
    for f in range(FOLDS):
        rest = np.flatnonzero(fold != f)
        means, within, total = np.zeros((c, x.shape[1])), 0, weight[rest].sum()
        for y in range(c):
            rows = rest[labels[rest] == y]
            means[y] = np.average(x[rows], axis=0, weights=weight[rows])
            apart = x[rows] - means[y]
            within = within + (weight[rows, None] * apart).T @ apart
        within = within / (total - c)
        within += SHRINK * within.trace() / len(within) * np.eye(len(within))
        root = np.linalg.inv(np.linalg.cholesky(within))
        centre = np.average(x[rest], axis=0, weights=weight[rest])
        near, far = (means - centre) @ root.T, (x[fold == f] - centre) @ root.T
        near, far = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (near, far))
        result[fold == f] = far @ near.T
    return result


def test_cosines_equal_those_written_out_fold_by_fold(monkeypatch):
    x, labels = drawn()
    weight = torch.from_numpy(np.random.default_rng(1).uniform(0.2, 1, len(x)))
    want = slow(x, labels, weight, 4)
    for rows, tile in ((8192, 64 * 2**20), (7, 300)):
        monkeypatch.setattr(held_out, "ROWS", rows)
        monkeypatch.setattr(held_out, "TILE_BYTES", tile)
        np.testing.assert_allclose(dense(x, labels, weight, 4), want, atol=2e-6)  # made of float32


def test_an_offset_changes_nothing():
    (x, labels), (far, _) = drawn(), drawn(offset=1e4)
    weight = torch.ones(len(x), dtype=torch.float64)
    np.testing.assert_allclose(dense(x, labels, weight, 4), dense(far, labels, weight, 4), atol=1e-4)


def test_a_samples_own_label_does_not_count():
    x, labels = drawn()
    weight, changed = torch.ones(len(x), dtype=torch.float64), labels.clone()
    fold = folds(labels)
    i = 5
    before = dense(x, labels, weight, 4)
    # Another label for sample i, with the folds as they are.
    changed[i] = (labels[i] + 1) % 4
    held_folds = held_out.folds
    try:
        held_out.folds = lambda *_: fold
        after = dense(x, changed, weight, 4)
    finally:
        held_out.folds = held_folds
    mine = (fold == fold[i]).numpy()
    np.testing.assert_allclose(before[mine], after[mine], atol=1e-6)
    assert np.abs(before[~mine] - after[~mine]).max() > 1e-3


def test_folds_spread_each_class_evenly():
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 9, 203))
    fold = folds(labels)
    assert torch.bincount(fold).tolist() == [41, 41, 41, 40, 40]
    for y in range(9):
        each = torch.bincount(fold[labels == y], minlength=FOLDS)
        assert each.max() - each.min() <= 1
    assert torch.equal(fold, folds(labels))


def test_a_class_that_the_other_folds_lack_is_said():
    x, labels = drawn(n=40, c=3)
    labels[labels == 2] = 0
    labels[7] = 2
    weight = torch.ones(len(x), dtype=torch.float64)
    for rows, cosine, there in cosines(x, labels, weight, 3):
        assert there.tolist() == [True, True, 7 not in rows.tolist()]
        assert torch.isfinite(cosine).all()
