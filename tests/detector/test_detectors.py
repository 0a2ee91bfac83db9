import pytest
import torch
from hypothesis import given

from deconfuse.attribution.curvature import gradient_z
from deconfuse.attribution.head import Training
from deconfuse.attribution.kronecker import fit
from deconfuse.detector import evidence, held_out, influence, knn, loss, margin, random, self_influence
from deconfuse.labels.evidence import evidence as combined
from deconfuse.labels.evidence import odds
from deconfuse.labels.relabel import Judgement, vote
from deconfuse.labels.wrong import doubt
from deconfuse.loss.proxynca import ProxyNCA
from tests.drawn import points

SCORES = torch.zeros(2, 23, dtype=torch.float64)
SCORES[:, :2] = torch.tensor([[1.0, -2.0], [3.0, -4.0]])


def test_knn_is_one_minus_the_vote_for_the_current_label(toy):
    training, _ = toy
    votes = vote(training.z, training.labels, 5)
    assert torch.equal(knn.suspicion(training, SCORES, votes), 1 - votes.own)


def test_evidence_is_the_log_odds_of_the_checkpoints_and_recommends(toy):
    training, _ = toy
    before = Training(
        training.features.flip(1), training.labels, training.weight, training.bias, training.loss
    )
    votes = vote(training.z, training.labels, 5)
    found = evidence.suspicion(training, SCORES, votes, earlier=iter([before]))
    want = combined([before, training], 5)
    torch.testing.assert_close(found.suspicion, odds(want, training.labels)[1])
    assert torch.equal(found.votes.best[0], want.best[0])
    assert not torch.allclose(found.suspicion, evidence.suspicion(training, SCORES, votes).suspicion)


def test_influence_is_the_mean_over_confusions(toy):
    training, _ = toy
    votes = vote(training.z, training.labels, 5)
    assert influence.suspicion(training, SCORES, votes).tolist() == [2, 3] + [0] * 21
    assert influence.suspicion(training, SCORES, votes, signed=True).tolist() == [2, -3] + [0] * 21
    assert influence.suspicion(training, SCORES[:0], votes).tolist() == [0] * 23


def test_held_out_is_the_log_odds_that_the_label_is_wrong(toy):
    training, _ = toy
    found = held_out.suspicion(training, SCORES, vote(training.z, training.labels, 5))
    wrong = doubt(training.features, training.labels, 4).wrong.clamp(1e-15, 1 - 1e-15)
    torch.testing.assert_close(found.suspicion, wrong.log() - (-wrong).log1p())
    assert ((found.votes.share.sum(1) - 1).abs() < 1e-6).all()  # all four classes are kept


def test_loss_is_the_training_loss(toy):
    training, _ = toy
    want = training.loss(training.z, training.labels)
    found = loss.suspicion(training, SCORES, vote(training.z, training.labels, 5))
    torch.testing.assert_close(found, want)


def test_random_is_seeded(toy):
    training, _ = toy
    votes = vote(training.z, training.labels, 5)
    first, again = (random.suspicion(training, SCORES, votes, seed=1) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, random.suspicion(training, SCORES, votes, seed=2))
    assert first.min() >= 0
    assert first.max() < 1


def test_margin_is_the_closest_other_proxy_less_the_own(toy):
    training, _ = toy
    found = margin.suspicion(training, SCORES, vote(training.z, training.labels, 5))
    centres = len(training.proxies) // 4
    for i in range(23):
        z = training.z[i] / training.z[i].norm()
        cosines = [max((z @ p).item() for p in part) for part in training.proxies.split(centres)]
        y = training.labels[i].item()
        want = max(value for c, value in enumerate(cosines) if c != y) - cosines[y]
        assert abs(found[i].item() - want) < 1e-12


def test_self_influence_is_the_quadratic_form_of_the_dense_inverse(toy):
    training, _ = toy
    found = self_influence.suspicion(training, SCORES, vote(training.z, training.labels, 5), damping=0.1)
    factors = fit(training, 0)
    basis = torch.kron(factors.outputs, factors.inputs)
    values = (factors.values + 0.1 * factors.values.max()).flatten()
    g = torch.einsum("nm,nd->nmd", gradient_z(training, training.z), training.features).flatten(1)
    want = ((g @ basis).square() / values).sum(1)
    torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "detector", [evidence, held_out, influence, knn, loss, margin, random, self_influence]
)
@given(drawn=points(least=2))
def test_any_labels_have_finite_suspicions(detector, drawn):
    """Also one class alone, classes of one sample, an embedding of one number, and nothing explained."""
    features, labels = drawn
    dtype, size = features.dtype, features.shape[1]
    criterion = ProxyNCA(int(labels.max()) + 1, size).to(dtype).requires_grad_(False)
    training = Training(
        features, labels, torch.eye(size, dtype=dtype), torch.ones(size, dtype=dtype) / 3, criterion
    )
    found = detector.suspicion(training, features.new_zeros(0, len(labels)), vote(training.z, labels))
    found = found.suspicion if isinstance(found, Judgement) else found
    assert found.shape == labels.shape
    assert torch.isfinite(found).all()
