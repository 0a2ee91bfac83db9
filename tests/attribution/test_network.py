"""A network whose parameters are attributed, against the head's factorised path and autograd."""

from functools import partial

import pytest
import torch
from torch import nn

from deconfuse.attribution.curvature import hvp, sample_gradients
from deconfuse.attribution.head import Targets, Training, along
from deconfuse.attribution.network import Network, parameter_names
from deconfuse.influence import eif, influence_function, tracin
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.model.small_cnn import SmallCNN
from deconfuse.retrieval.confusion import distance
from deconfuse.system.errors import UserError
from tests.damping import share_of_largest
from tests.influence.test_eif import GROUPS
from tests.networks import Embeds, in_batches, only_a_head


def solved(side, targets):
    solver = influence_function.Solver(tolerance=1e-11)
    return influence_function.scores(side, targets, solver=solver, damping=share_of_largest(side, 100.0))


METHODS = {
    "eif": partial(eif.scores, path=eif.Sphere(steps=20), n_theta=2),
    "eif_code": partial(eif.scores, path=eif.RawSteps(step_size=0.01), normalise=False),
    "if": solved,
    "tracin": tracin.scores,
}


@pytest.mark.parametrize("params", ["last_block", "all"])
@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_on_a_network_that_is_only_a_head_all_agree(toy, params, method, sign):
    training, test = toy
    targets = Targets(test, test, GROUPS, sign)
    network = only_a_head(training, test, params)
    want, found = METHODS[method](training, targets), METHODS[method](network, targets)
    torch.testing.assert_close(found, want, rtol=1e-7, atol=1e-10 * want.abs().max().item())


@pytest.fixture
def convolutions():
    """A small_cnn in float64 with 13 training images of 4 classes and 6 test images."""
    torch.manual_seed(1)
    model = Embeds(SmallCNN(1, width=4), nn.Linear(16, 5)).double().eval().requires_grad_(False)
    loss = ProxyNCA(4, 5).double().requires_grad_(False)
    images, tests = torch.randn(13, 1, 16, 16).double(), torch.randn(6, 1, 16, 16).double()
    labels = torch.randint(0, 4, (13,))

    def network(size, names):
        parts = in_batches(images, size)
        return Network(model, loss, names, labels, parts, tests.__getitem__, tests.__getitem__)

    return network, images, tests, labels


NAMES = ("backbone.blocks.12.weight", "backbone.blocks.13.bias", "head.weight")


def test_derivatives_are_autograds(convolutions):
    make, images, tests, labels = convolutions
    network = make(5, NAMES)
    theta = network.theta
    assert len(theta) == 16 * 8 * 9 + 16 + 80
    losses = lambda t: network.loss(network.z(t, images), labels)  # noqa: E731
    v = torch.randn(len(theta), dtype=torch.float64)
    gradients = torch.autograd.functional.jacobian(losses, theta)
    torch.testing.assert_close(network.along(v), gradients @ v)
    _, want = torch.autograd.functional.hvp(lambda t: losses(t).mean(), theta, v)
    torch.testing.assert_close(network.hessian_product(v), want)
    torch.testing.assert_close(network.losses(theta), losses(theta))

    def d(t):
        z = network.z(t, tests[[0, 2, 3, 1]])
        return -distance(z[:2], z[2:]).mean()

    targets = Targets(torch.empty(0, 1), torch.empty(0, 1), (torch.tensor([[0, 3], [2, 1]]),), sign=-1.0)
    found = network.distance_gradient(theta, *network.sides(targets, 0))
    torch.testing.assert_close(found, torch.autograd.functional.jacobian(d, theta))


@pytest.mark.parametrize("method", list(METHODS))
def test_the_batch_size_changes_no_score_and_nothing_changes_in_the_model(convolutions, method):
    make, *_ = convolutions
    targets = Targets(torch.empty(0, 1), torch.empty(0, 1), (torch.tensor([[0, 1]]),))
    network = make(4, NAMES)
    before = {name: value.clone() for name, value in network.model.state_dict().items()}
    one, other = METHODS[method](network, targets), METHODS[method](make(13, NAMES), targets)
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert one.abs().max() > 0
    after = network.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_tracin_sums_over_the_checkpoints_kept(toy):
    training, test = toy
    targets = Targets(test, test, GROUPS)
    before = Training(
        training.features + 1, training.labels, training.weight / 2, training.bias, training.loss
    )
    other = Targets(test - 1, test - 1, GROUPS)
    found = tracin.scores(training, targets, earlier=[(before, other)])
    torch.testing.assert_close(found, tracin.scores(training, targets) + tracin.scores(before, other))


def test_products_equal_the_heads(toy):
    training, test = toy
    network = only_a_head(training, test, "all")
    v = torch.randn(5, 11, dtype=torch.float64)
    torch.testing.assert_close(network.hessian_product(v.flatten()).view(5, 11), hvp(training, v[None])[0])
    torch.testing.assert_close(
        network.along(v.flatten()), along(training, sample_gradients(training), v[None])[0]
    )


def test_names_of_what_is_attributed():
    model = Embeds(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3, bias=False)), nn.Linear(3, 2))
    assert parameter_names(model, "all") == (
        *("backbone.0.weight", "backbone.0.bias", "backbone.1.weight", "head.weight"),
    )
    with pytest.raises(UserError, match=r"params=last_block: Sequential does not say what its last block is"):
        parameter_names(model, "last_block")
    model.backbone.last_block = ["1.weight"]
    assert parameter_names(model, "last_block") == ("backbone.1.weight", "head.weight")


def test_what_only_the_head_has_is_refused(toy):
    training, test = toy
    network, targets = only_a_head(training, test, "all"), Targets(test, test, GROUPS)
    with pytest.raises(UserError, match=r"influence.n_theta=3: .* take 1 or 2, or params=head"):
        eif.scores(network, targets, n_theta=3)
    with pytest.raises(UserError, match=r"influence.solver.kind=explicit works with params=head"):
        influence_function.scores(network, targets, solver=influence_function.Solver("explicit"))
