import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from deconfuse.attribution.curvature import hessian_of, sample_gradients
from deconfuse.attribution.head import Targets, Training, chunks, side_gradient
from deconfuse.attribution.rows import (
    embeddings,
    is_narrow,
    losses,
    of_every_process,
    own,
    part_rows,
    parts,
    place,
    total,
)
from deconfuse.detector import loss, margin, self_influence
from deconfuse.influence import eif, ekfac, influence_function, tracin
from deconfuse.labels.relabel import vote
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.model.identity import Identity
from deconfuse.retrieval.confusion import mean_distance_gradient
from deconfuse.system import distributed
from tests.influence.test_eif import GROUPS
from tests.team import team

METHODS = {
    "eif": partial(eif.scores, n_theta=2),
    "eif, three directions": partial(eif.scores, n_theta=3),
    "tracin": tracin.scores,
    "ekfac": ekfac.scores,
    "relatif": partial(ekfac.scores, relative=True),
    "if": partial(influence_function.scores, damping=0.1, solver=influence_function.Solver(tolerance=1e-7)),
}


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_the_same_where_the_training_set_is_taken_in_parts(toy, monkeypatch, method):
    training, test = toy
    targets = Targets(test, test, GROUPS)
    want = METHODS[method](training, targets)
    monkeypatch.setattr("deconfuse.attribution.rows.PART_ROWS", 7)
    part = replace(training)
    assert [len(each) for _, each in parts(part)] == [7, 7, 7, 2]
    found = METHODS[method](part, targets)
    assert "z" not in vars(part)  # nothing that has all rows was made
    torch.testing.assert_close(found, want, rtol=1e-6, atol=1e-9 * want.abs().max().item())


def test_what_a_side_says_of_each_sample_is_the_same_in_parts(toy, monkeypatch):
    training, _ = toy
    none, empty = torch.zeros(0, 23, dtype=torch.float64), vote(training.z, training.labels)
    detectors = [loss.suspicion, margin.suspicion, self_influence.suspicion]
    want = [detector(training, none, empty) for detector in detectors]
    gradients, unit = sample_gradients(training), embeddings(training)
    product = hessian_of(training)(training.weight[None])
    monkeypatch.setattr("deconfuse.attribution.rows.PART_ROWS", 5)
    part = replace(training)
    for detector, values in zip(detectors, want, strict=True):
        torch.testing.assert_close(detector(part, none, empty), values)
    torch.testing.assert_close(sample_gradients(part), gradients)
    torch.testing.assert_close(embeddings(part), unit)
    torch.testing.assert_close(hessian_of(part)(part.weight[None]), product)


def test_a_part_is_as_large_as_memory_allows(monkeypatch):
    loss = ProxyNCA(1000, 6)
    labels = torch.zeros(50, dtype=torch.long)
    side = Training(torch.zeros(50, 4), labels, torch.zeros(6, 4), torch.zeros(6), loss)
    assert part_rows(side) == 50
    monkeypatch.setattr("deconfuse.attribution.rows.PART_BYTES", 8 * 4 * 1000)
    assert part_rows(side) == 8
    monkeypatch.setattr("deconfuse.attribution.rows.PART_BYTES", 1)
    assert part_rows(side) == 1


def test_in_one_process_a_side_is_its_own_shard(toy):
    training, _ = toy
    assert own(training) is of_every_process(training) is training
    assert place(training) == slice(0, 23)
    assert torch.equal(total(training, training.z), training.z)
    assert torch.equal(losses(training), training.losses)


def of_a_shard() -> dict:
    """What each of several processes has of 23 samples, and the parts of at most three rows."""
    features = torch.arange(46.0).view(23, 2)
    weight, bias, labels = torch.eye(2), torch.zeros(2), torch.arange(23) % 3
    training = Training(features, labels, weight, bias, ProxyNCA(3, 2))
    side = own(training)
    cut = [place(part) for _, part in parts(replace(side, weight=torch.ones(2, 2)))]
    return {
        "rank": distributed.rank(),
        "place": place(side),
        "cut": cut,
        "rows": torch.equal(side.features, features[place(side)])
        and torch.equal(side.labels, labels[place(side)]),
        "whole": of_every_process(side) is training,
        "total": total(side, side.features.sum(0)).tolist(),
    }


def test_each_process_has_rows_of_its_own_and_sums_are_of_all(tmp_path, monkeypatch):
    monkeypatch.setattr("deconfuse.attribution.rows.PART_ROWS", 5)
    found = team(tmp_path, 2, of_a_shard)
    assert [one["place"] for one in found] == [slice(0, 11), slice(11, 23)]
    assert found[0]["cut"] == [slice(0, 5), slice(5, 10), slice(10, 11)]
    assert found[1]["cut"] == [slice(11, 16), slice(16, 21), slice(21, 23)]
    for one in found:
        assert one["rows"]
        assert one["whole"]
        assert one["total"] == torch.arange(46.0).view(23, 2).sum(0).tolist()


def turned(offset, n=200, m=32):
    """A head that is the identity on embeddings with a common part, and on as many of other classes."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(n) // 20
    centres = torch.randn(10, m, generator=random)
    z = centres[labels] + 1.2 * torch.randn(n, m, generator=random) + offset
    loss = ProxyNCA(10, m)
    with torch.no_grad():
        loss.proxies.copy_(F.normalize(z.double(), dim=1).view(10, 20, m).mean(1))
    return Training(z, labels, torch.eye(m), torch.zeros(m), loss)


@pytest.mark.parametrize(("offset", "narrow"), [(0, False), (10, False), (30, True), (5000, True)])
def test_embeddings_of_one_direction_are_narrow(offset, narrow, monkeypatch):
    training = turned(offset)
    e = F.normalize(training.z.double(), dim=1)
    assert is_narrow(training) == narrow == (e.var(0, correction=0).sum().item() < 1e-2)
    monkeypatch.setattr("deconfuse.attribution.rows.PART_ROWS", 7)
    assert is_narrow(replace(training)) == narrow


@pytest.mark.parametrize("offset", [0, 10, 300])
def test_slopes_of_d_far_from_the_origin_are_those_of_float64(offset):
    """They are differences of nearly equal directions: in float32 1e-3 of them would be lost at 300."""
    training = turned(offset)
    pairs = Targets.pairs(training.features, training.features, torch.tensor([[0, 30], [50, 199]]))
    (sides,) = chunks(pairs, 200)
    found = side_gradient(training, sides)
    want = mean_distance_gradient(sides.features.double(), sides.share.double())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), want, rtol=1e-6, atol=1e-6 * want.abs().max().item())


@pytest.mark.parametrize("method", METHODS)
def test_scores_of_embeddings_of_any_length_are_those_of_float64(method):
    """As they are, from 1e-18 to 1e18 row by row: scores depend on directions alone."""
    training = turned(0)
    scale = 10 ** (
        36 * torch.rand(200, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 18
    )
    rows = (training.features * scale).float()
    z = Identity(32, embeds=True)(rows)
    loss = copy.deepcopy(training.loss).double()
    exact = Training(z.double(), training.labels, torch.eye(32).double(), torch.zeros(32).double(), loss)
    found = METHODS[method](replace(training, features=z), Targets(z, z, GROUPS)).double()
    want = METHODS[method](exact, Targets(z.double(), z.double(), GROUPS))
    # Rounding of gradients that are nearly zero is not small beside them, and relatif divides by their size;
    # conjugate gradients in float32 stop at some 1e-6 of the right side, divided by the damping.
    tolerance = {"relatif": 2e-2, "if": 1e-3}.get(method, 1e-4)
    torch.testing.assert_close(found, want, rtol=0, atol=tolerance * want.abs().max().item())
