import pytest
import torch

from deconfuse.attribution import head
from deconfuse.attribution.head import Targets, Training
from deconfuse.influence.tracin import scores
from deconfuse.retrieval.confusion import distance
from tests.influence.test_eif import GROUPS
from tests.networks import only_a_head


def test_equals_the_product_of_autograds_gradients(toy, monkeypatch):
    training, test = toy

    def losses(w):
        return training.loss(training.features @ w.T + training.bias, training.labels)

    gradients = torch.autograd.functional.jacobian(losses, training.weight).flatten(1)
    rows = []
    for group in GROUPS:

        def d(w, group=group):
            z = test @ w.T + training.bias
            return distance(z[group[:, 0]], z[group[:, 1]]).mean()

        rows.append(gradients @ torch.autograd.functional.jacobian(d, training.weight).flatten())
    for budget in (2**28, 1, 2 * 4 * 23 * 6):  # all groups in a chunk, one, two
        monkeypatch.setattr(head, "CHUNK_BYTES", budget)
        found = scores(training, Targets(test, test, GROUPS))
        torch.testing.assert_close(found, torch.stack(rows), rtol=1e-9, atol=1e-12)


def test_a_step_on_a_harmful_sample_brings_the_pair_closer(toy):
    training, test = toy
    found = scores(training, Targets(test, test, GROUPS[:1]))[0]
    for k in (found.argmax().item(), found.argmin().item()):
        weight = training.weight.clone().requires_grad_()
        z = training.features[k : k + 1] @ weight.T + training.bias
        (gradient,) = torch.autograd.grad(training.loss(z, training.labels[k : k + 1]).sum(), weight)
        moved = [test @ w.T + training.bias for w in (training.weight, training.weight - 1e-6 * gradient)]
        before, after = (distance(z[0], z[1]).item() for z in moved)
        assert (after - before) * found[k].item() < 0


class Slope(torch.nn.Module):
    """l = z . s_y with a fixed slope s per class."""

    def __init__(self):
        super().__init__()
        self.slopes = torch.tensor([[0.0, 1.0], [3.0, 0.0]], dtype=torch.float64)

    def forward(self, z, y):
        return (z * self.slopes[y]).sum(1)


def by_hand(length):
    """A training side with W = length * identity, and the pair of test features (1, 0) and (0, 1).

    The gradients of d in the pair's z are (0, -2/length) and (-2/length, 0).
    """
    double = torch.float64
    features = torch.tensor([[1.0, 0.0], [0.0, 5.0], [1.0, 2.0]], dtype=double)
    weight, bias = length * torch.eye(2, dtype=double), torch.zeros(2, dtype=double)
    test = torch.eye(2, dtype=double)
    training = Training(features, torch.tensor([0, 1, 0]), weight, bias, Slope())
    return training, Targets.pairs(test, test, torch.tensor([[0, 1]]))


def test_a_checkpoint_and_the_earlier_ones_are_summed_by_hand():
    # Sample 0, slope (0, 1), features (1, 0): only the first side moves, by (0, 1) . (0, -2) = -2.
    # Sample 1, slope (3, 0), features (0, 5): only the second side, 5 * (3, 0) . (-2, 0) = -30.
    # Sample 2, slope (0, 1), features (1, 2): the first side -2, the second 2 * (0, 1) . (-2, 0) = 0.
    want = torch.tensor([[-2.0, -30.0, -2.0]], dtype=torch.float64)
    torch.testing.assert_close(scores(*by_hand(1.0)), want)
    torch.testing.assert_close(scores(*by_hand(1.0), earlier=[by_hand(2.0)]), 1.5 * want)
    torch.testing.assert_close(scores(*by_hand(1.0), earlier=iter([by_hand(2.0), by_hand(4.0)])), 1.75 * want)


def test_mis_similar_targets_have_the_other_sign():
    training, targets = by_hand(1.0)
    apart = Targets(targets.query, targets.gallery, targets.groups, sign=-1.0)
    torch.testing.assert_close(scores(training, apart), torch.tensor([[2.0, 30.0, 2.0]], dtype=torch.float64))


@pytest.mark.parametrize("params", ["last_block", "all"])
def test_a_network_that_is_only_a_head_has_the_heads_scores(params):
    (one, targets), (other, _) = by_hand(1.0), by_hand(2.0)
    networks = [only_a_head(training, targets.query, params, size=2) for training in (one, other)]
    want = torch.tensor([[-2.0, -30.0, -2.0]], dtype=torch.float64)
    torch.testing.assert_close(scores(networks[0], targets), want)
    torch.testing.assert_close(scores(networks[0], targets, earlier=[(networks[1], targets)]), 1.5 * want)
