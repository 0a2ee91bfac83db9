import numpy as np
import pytest
import torch
from torch import nn

from deconfuse.frozen.start import begin
from deconfuse.frozen.start_derivative import Samples
from deconfuse.frozen.weighted_start import WeightedStart
from deconfuse.loss.softtriple import SoftTriple
from tests.frozen.test_start import drawn, split_of

OUT = [3, 17, 20]


def begun(tmp_path, left_out, centres=1):
    """(W, b, proxies, the proxies before) where `begin` puts a head of 4, without some of 45 samples."""
    x, labels = drawn()
    split = split_of(x, labels)
    torch.manual_seed(0)
    head, loss = nn.Linear(6, 4), SoftTriple(5, 4, centres=centres)
    before = loss.proxies.detach().clone()
    begin(head, loss, split, split.train.labels, left_out, 0.3, tmp_path)
    return head.weight.detach(), head.bias.detach(), loss.proxies.detach(), before


def weighted(tmp_path, centres=1):
    x, labels = drawn()
    weight, bias, proxies, before = begun(tmp_path, None, centres)
    features, given = torch.from_numpy(x[:45]), torch.from_numpy(labels[:45])
    samples = Samples(features, given, torch.ones(45, dtype=torch.float64), before, 5)
    return WeightedStart(samples, 0.3, {"weight": weight, "bias": bias, "loss.proxies": proxies})


@pytest.mark.parametrize("centres", [1, 3])
def test_is_where_the_training_starts_with_and_without_samples(tmp_path, centres):
    """Up to the signs of the directions, which are those of the start of all samples."""
    start = weighted(tmp_path, centres)
    out = np.isin(np.arange(45), OUT)
    weights = torch.ones(2, 45)
    weights[1, OUT] = 0
    found = start(weights)
    assert found["weight"].dtype == torch.float32
    for i, left_out in enumerate((None, out)):
        weight, bias, proxies, _ = begun(tmp_path, left_out, centres)
        signs = (weight * start.own["weight"]).sum(1).sign()
        torch.testing.assert_close(found["weight"][i], signs[:, None] * weight, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found["bias"][i], signs * bias, rtol=1e-5, atol=1e-5)
        if centres == 1:
            torch.testing.assert_close(found["loss.proxies"][i], signs * proxies, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["loss.proxies"][0], start.own["loss.proxies"], rtol=1e-5, atol=1e-5)
    assert (found["weight"][0] - found["weight"][1]).abs().max() > 1e-3


def test_a_sample_that_takes_no_part_has_no_weight(tmp_path):
    start, out = weighted(tmp_path), torch.ones(45, dtype=torch.float64)
    out[OUT] = 0
    given = start.samples
    other = WeightedStart(
        Samples(given.features, given.labels, out, given.random, 5), start.shrink, start.own
    )
    torch.testing.assert_close(other(torch.ones(1, 45)), start(out[None].float()))


def test_the_distance_to_another_start_is_seen(tmp_path):
    start = weighted(tmp_path)
    assert start.gap < 1e-6
    turned = {**start.own, "weight": 1.5 * start.own["weight"]}
    assert WeightedStart(start.samples, 0.3, turned).gap == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("moves", [True, False])
def test_the_derivative_is_the_difference_of_starts(tmp_path, moves):
    """In float64, of a sum of all parameters, with and without proxies that move."""
    single = weighted(tmp_path)
    own = {name: value.double() for name, value in single.own.items()}
    given = single.samples
    samples = Samples(given.features.double(), given.labels, given.weights, given.random.double(), 5)
    start = WeightedStart(samples, 0.3, own)
    draw = torch.Generator().manual_seed(1)
    names = ["weight", "bias", *(["loss.proxies"] if moves else [])]
    last = {name: torch.randn(2, *own[name].shape, generator=draw, dtype=torch.float64) for name in names}
    step, few = 1e-5, torch.arange(0, 45, 7)
    shift = step * torch.nn.functional.one_hot(few, 45).double()
    up, down = start(1 + shift), start(1 - shift)
    want = sum(
        torch.einsum("h...,k...->kh", (up[name] - down[name]) / (2 * step), last[name]) for name in names
    )
    found = start.weight_derivatives(last)[:, few]
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-6 * want.abs().max().item())
