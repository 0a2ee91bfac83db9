import sys

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from deconfuse.attribution.head import Training
from deconfuse.detector import cleanlab
from deconfuse.labels.relabel import vote
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.system.errors import UserError
from tests.test_story import TINY, go


def made(labels, spread=0.6, seed=0):
    """A class c of `labels` lies around axis c of seven; the head is the identity."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.tensor(labels)
    noise = torch.randn(len(labels), 7, generator=random, dtype=torch.float64)
    features = torch.eye(7, dtype=torch.float64)[labels] + spread * noise
    weight, bias = torch.eye(7, dtype=torch.float64), torch.zeros(7, dtype=torch.float64)
    return Training(features, labels, weight, bias, ProxyNCA(7, 7).double().requires_grad_(False))


def found(training, **settings):
    votes = vote(training.z, training.labels, 1)
    return cleanlab.suspicion(training, torch.zeros(2, len(training)), votes, **settings)


def relabelled(training, labels):
    return Training(training.features, labels, training.weight, training.bias, training.loss)


def probabilities(training, folds, C, seed):
    """(P(class | e) by scikit-learn's own loop over the folds, columns of the labels)."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=5000))
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    e, labels = F.normalize(training.z, dim=1).numpy(), training.labels.numpy()
    share = cross_val_predict(model, e, labels, cv=split, method="predict_proba")
    return share, np.searchsorted(np.unique(labels), labels)


LABELS = [0] * 9 + [3] * 14 + [4] * 6  # ids with gaps


@pytest.mark.parametrize(("folds", "C", "seed"), [(5, 0.1, 0), (2, 1.0, 3), (6, 0.01, 1)])
def test_every_method_from_scikit_learns_own_loop(folds, C, seed):
    training = made(LABELS)
    share, column = probabilities(training, folds, C, seed)
    own = share[np.arange(29), column]
    other = np.where(np.eye(3, dtype=bool)[column], -1, share).max(1)
    entropy = -(share * np.log(share)).sum(1) / np.log(3)
    want = {
        "self_confidence": 1 - own,
        "normalized_margin": 1 - (own - other + 1) / 2,
        "confidence_weighted_entropy": 1 - np.log1p(entropy / own) / (entropy / own),
    }
    for method, values in want.items():
        ours = found(training, folds=folds, method=method, C=C, seed=seed)
        np.testing.assert_allclose(ours, values, rtol=1e-10, atol=1e-12)
        assert ours.min() >= 0
        assert ours.max() <= 1


def test_wrong_labels_come_first():
    training = made(LABELS, spread=0.1)
    labels = training.labels.clone()
    wrong = torch.tensor([2, 11, 25])
    labels[wrong] = torch.tensor([3, 4, 0])
    suspicion = found(relabelled(training, labels))
    assert set(suspicion.argsort(descending=True)[:3].tolist()) == set(wrong.tolist())


def test_names_of_classes_do_not_matter_and_the_seed_does():
    training = made(LABELS)
    plain = found(training)
    assert torch.equal(plain, found(relabelled(training, 10 * training.labels + 2)))
    assert not torch.equal(plain, found(training, seed=1))


def test_a_class_smaller_than_the_folds_is_judged_by_its_others():
    training = made([0] * 9 + [1] * 8 + [5] * 2)
    with pytest.warns(UserWarning, match="least populated class"):
        share, column = probabilities(training, 5, 0.1, 0)
    assert share.min() > 0  # no regression went without a class
    np.testing.assert_allclose(found(training), 1 - share[np.arange(19), column], rtol=1e-10)


def test_more_folds_than_the_largest_class_has_samples_are_as_many_as_it_has():
    training = made([0] * 3 + [1] * 2 + [5] * 3)
    assert torch.equal(found(training, folds=50), found(training, folds=3))


def test_a_sample_alone_in_its_class_gets_the_median_and_changes_no_other(capsys):
    training = made([6, *LABELS, 1])
    suspicion = found(training)
    others = Training(
        training.features[1:-1], training.labels[1:-1], training.weight, training.bias, training.loss
    )
    # The embeddings are made in another batch, so the regressions may start from other roundings in float64.
    torch.testing.assert_close(suspicion[1:-1], found(others), rtol=1e-10, atol=1e-12)
    assert suspicion[0] == suspicion[-1] == suspicion[1:-1].median()
    assert "2 samples are alone in their class and cannot be judged" in capsys.readouterr().err


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 0, 1]])
def test_nothing_is_suspicious_where_no_two_classes_can_be_compared(labels):
    assert found(made(labels)).tolist() == [0, 0, 0, 0]


def test_a_regression_that_did_not_converge_is_said_once(monkeypatch, capsys):
    monkeypatch.setattr(cleanlab, "MOST_STEPS", 2)
    found(made(LABELS))
    assert "5 of 5 regressions did not converge in 2 steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 1}, r"detector.folds=1 is too small"),
        ({"C": 0.0}, r"detector.C=0.0 is too small"),
        ({"seed": 2**32}, r"detector.seed=4294967296 is out of range"),
        ({"method": "margins"}, r"detector.method=margins is not known; .*normalized_margin"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        found(made([0, 0, 0, 0]), **settings)


def test_without_the_library_nothing_is_trained(tmp_path, monkeypatch):
    for name in ("cleanlab", "cleanlab.rank"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"needs the library cleanlab .*pip install 'deconfuse\[cleanlab\]'"):
        go(tmp_path, *TINY, "detector=cleanlab")
    assert not list(tmp_path.iterdir())


def test_a_run_with_it_passes_its_rehearsal_and_writes_it(tmp_path):
    folder = go(tmp_path, *TINY, "noise=flip_10", "noise.ratio=0.25", "detector=cleanlab")
    samples = pd.read_csv(folder / "samples.csv")
    assert samples["suspicion"].between(0, 1).all()
    assert samples["suspicion"].nunique() > 90
