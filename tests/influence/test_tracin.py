import torch

from src.confusion import distance
from src.head import Targets
from src.influence.tracin import scores
from tests.influence.test_eif import GROUPS


def test_equals_the_product_of_autograds_gradients(toy):
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
    for chunk in (None, 1, 2):
        found = scores(training, Targets(test, test, GROUPS), chunk=chunk)
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
