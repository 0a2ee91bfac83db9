import pytest
import torch

from deconfuse.unrolling.descent import checkpoints, ends, train
from tests.unrolling.made import N, distances, made

TORCH = {
    "momentum": lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.02, weight_decay=0.5),
}


def by_torch(descent, optimizer, weights):
    """The training written as a loop with autograd and torch's optimizer."""
    values = {name: torch.nn.Parameter(value.clone()) for name, value in descent.start.items()}
    optimiser = TORCH[optimizer](list(values.values()))
    rate = optimiser.param_groups[0]["lr"]
    for rows, factor in zip(descent.batches, descent.factors, strict=True):
        optimiser.param_groups[0]["lr"] = rate * factor
        z = descent.features[rows] @ values["weight"].T + values["bias"]
        own = {name: value for name, value in values.items() if name.startswith("loss.")}
        inputs = z, descent.labels[rows], weights[rows]
        loss = torch.func.functional_call(descent.weighted, own, inputs)
        loss = loss + descent.pull * (values["weight"] - descent.start["weight"]).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {name: value.detach() for name, value in values.items()}


@pytest.mark.parametrize("optimizer", TORCH)
@pytest.mark.parametrize("loss", ["proxynca", "softtriple3", "proxyanchor"])
def test_heads_side_by_side_are_trainings_of_their_own(loss, optimizer):
    descent, test = made(loss, optimizer)
    weights = torch.rand(3, N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights[0] = 1
    found = train(descent, weights)
    for h in range(3):
        want = by_torch(descent, optimizer, weights[h])
        for name, value in want.items():
            torch.testing.assert_close(found[name][h], value, rtol=1e-9, atol=1e-10)
    assert distances(found, test).std(0).min() > 1e-6


def test_the_states_kept_are_on_the_way_of_the_training():
    descent, _ = made("proxynca", "adamw", steps=11)
    kept, last = checkpoints(descent)
    assert descent.every == 4
    assert len(kept) == 3
    for name, value in train(descent, descent.ones()).items():
        torch.testing.assert_close(ends(descent, last)[name], value)
    torch.testing.assert_close(kept[0]["weight"][0][0], descent.start["weight"])
    assert not torch.equal(kept[1]["weight"][0], kept[0]["weight"][0])


def test_a_parameter_without_an_optimizer_stays_as_it_is():
    descent, _ = made("proxynca", "momentum", every_moves=False)
    found = train(descent, descent.ones())
    assert torch.equal(found["bias"][0], descent.start["bias"])
    assert not torch.equal(found["weight"][0], descent.start["weight"])


def test_no_steps_leave_the_start():
    descent, _ = made(steps=0)
    assert torch.equal(train(descent, descent.ones())["weight"][0], descent.start["weight"])
