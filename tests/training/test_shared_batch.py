from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from deconfuse.loss.proxyanchor import ProxyAnchor
from deconfuse.loss.softtriple import SoftTriple
from deconfuse.system import distributed
from deconfuse.training import shared_batch
from deconfuse.training.embedder import Embedder
from tests.made import recipe
from tests.team import team

SIZES = (7, 8, 1, 5)  # of batches: odd ones, and one that leaves a process without a sample


class Net(nn.Module):
    """Two convolutions with BatchNorm, a head and a loss; forward is the loss of a batch."""

    def __init__(self, loss: nn.Module):
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Sequential(
            nn.Conv2d(1, 3, 3),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4, momentum=0.3),
        )
        self.head, self.loss = nn.Linear(4, 5), loss
        self.double()

    def forward(self, images, labels):
        with shared_batch.whole_batch():
            z = self.head(self.body(images).mean((2, 3)))
        z, labels = shared_batch.joined(z), distributed.joined(labels)
        of_batch = getattr(self.loss, "of_batch", None)
        loss = of_batch(z, labels) if of_batch else self.loss(z, labels).mean()
        return loss + self.loss.regulariser()


class Frozen(nn.Module):
    """The network that a recipe with freeze_batchnorm trains, by its own training step."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(6)
        body = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        body.num_features = 4
        body[1].running_mean.uniform_(-1, 1)
        body[1].running_var.uniform_(0.5, 2)
        numbers = recipe(embedding_size=5, freeze_batchnorm=True)
        self.embedder = Embedder(body, SoftTriple(4, 5, centres=2), numbers).double()
        self.embedder.log = lambda *_, **__: None  # no Trainer is there to keep it
        self.embedder.train()

    def forward(self, images, labels):
        return self.embedder.training_step((images, labels, labels), 0)


def nets():
    torch.manual_seed(4)
    found = {"proxyanchor": ProxyAnchor(4, 5, alpha=4.0), "softtriple": SoftTriple(4, 5, centres=2)}
    return {name: Net(loss) for name, loss in found.items()} | {"frozen": Frozen()}


def trained() -> dict[str, tuple[dict, list[float]]]:
    """(weights, losses of the steps) after a step on each batch, whoever has which part of it."""
    result = {}
    for name, net in nets().items():
        one = DistributedDataParallel(net, forward_sync_buffers=False) if distributed.world() > 1 else net
        optimizer = torch.optim.SGD(one.parameters(), lr=0.1, momentum=0.9)
        random, seen = torch.Generator().manual_seed(5), []
        for size in SIZES:
            images = torch.randn(size, 1, 8, 8, generator=random, dtype=torch.float64)
            labels = torch.randint(0, 4, (size,), generator=random)
            start, stop = (size * (distributed.rank() + i) // distributed.world() for i in (0, 1))
            optimizer.zero_grad()
            value = one(images[start:stop], labels[start:stop])
            value.backward()
            optimizer.step()
            seen.append(value.item())
        result[name] = (net.state_dict(), seen)
    return result


def test_steps_of_two_processes_are_those_of_one(tmp_path):
    want, start = trained(), nets()["frozen"].state_dict()
    moved = {key for key, value in want["frozen"][0].items() if not torch.equal(value, start[key])}
    assert start.keys() - moved == {
        f"embedder.backbone.1.{key}" for key in ("running_mean", "running_var", "num_batches_tracked")
    }
    for found in team(tmp_path, 2, trained):
        for name, (weights, values) in want.items():
            torch.testing.assert_close(found[name][1], values, rtol=1e-10, atol=1e-12)
            for key, value in weights.items():
                torch.testing.assert_close(
                    found[name][0][key], value, rtol=1e-8, atol=1e-11, msg=f"{name} {key}"
                )


@pytest.mark.parametrize("dims", [0, 1, 2])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_is_torchs_with_its_slopes_and_running_statistics(dims, affine):
    random = torch.Generator().manual_seed(1)
    draw = partial(torch.randn, generator=random, dtype=torch.float64)
    x, parameters = draw(5, 3, *(4, 2)[:dims]), (draw(3), draw(3)) if affine else (None, None)
    found = []
    for function in (shared_batch.batch_norm, partial(F.batch_norm, training=True)):
        given, running = x.clone().requires_grad_(), (x.new_zeros(3), x.new_ones(3))
        result = function(given, *running, *parameters, momentum=0.2, eps=1e-5)
        found.append((result, *running, *torch.autograd.grad(result.pow(3).sum(), given)))
    torch.testing.assert_close(*found)


def test_only_batch_norm_in_training_is_replaced(monkeypatch):
    seen = []
    monkeypatch.setattr(shared_batch, "batch_norm", lambda **call: seen.append(call["eps"]) or call["input"])
    norm = nn.BatchNorm1d(3, eps=0.25)
    with shared_batch.WholeBatchNorm():
        F.relu(norm(torch.ones(2, 3)))
        norm.eval()(torch.ones(2, 3))
    norm.train()(torch.randn(2, 3))
    assert seen == [0.25]
