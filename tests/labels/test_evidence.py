import copy
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deconfuse.attribution.head import Training, class_cosines
from deconfuse.labels import evidence as module
from deconfuse.labels.evidence import SCALE, evidence, odds
from deconfuse.labels.relabel import Votes
from tests.labels.test_relabel import slow


def moved(training, seed):
    """The same labels at another time of training: other features."""
    noise = torch.randn(training.features.shape, generator=torch.Generator().manual_seed(seed))
    features = training.features + noise.double()
    return Training(features, training.labels, training.weight, training.bias, training.loss)


def written_out(sides, k):
    """(n, c): the mean of the three views, sample by sample."""
    total, n = 0, len(sides[0])
    for side in sides:
        y = side.labels.numpy()
        for x in (side.z, side.features):
            total = total + slow(F.normalize(x, dim=1).numpy(), y, k, 4)
        head = np.zeros((n, 4))
        for i in range(n):
            e = side.z[i] / side.z[i].norm()
            near = [max((e @ p).item() for p in part) for part in side.proxies.chunk(4)]
            head[i] = np.exp(SCALE * np.array(near))
        total = total + head / head.sum(1, keepdims=True)
    return total / (3 * len(sides))


@pytest.mark.parametrize("tile", [1, 5, None])
def test_is_the_mean_of_three_views_over_the_checkpoints(toy, tile):
    training, _ = toy
    sides = [moved(training, 1), moved(training, 2), training]
    want, votes = written_out(sides, 6), evidence(iter(sides), 6, tile=tile)
    found = torch.zeros(23, 4, dtype=torch.float64).scatter(1, votes.classes, votes.share)
    np.testing.assert_allclose(found, want, atol=1e-9)
    np.testing.assert_allclose(votes.own, want[np.arange(23), training.labels], atol=1e-9)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-9)
    assert np.array_equal(votes.best[0], want.argmax(1))


def test_features_of_a_frozen_backbone_are_voted_on_once(toy, monkeypatch):
    """Checkpoints with equal features, another head or other labels; who votes counts too."""
    training, _ = toy
    same = replace(training, features=training.features.clone(), weight=training.weight + 0.1)
    other = replace(same, labels=(training.labels + 1) % 4)
    asked, real = [], module._vote
    monkeypatch.setattr(module, "_vote", lambda x, *rest: asked.append(x.shape[1]) or real(x, *rest))
    few = torch.arange(23) % 5 > 0
    m, dim = training.weight.shape
    for sides, voters, times in (
        ([training, same], None, 1),
        ([training, other], None, 2),
        ([training, moved(training, 1)], None, 2),
        ([training, same], [few, few.clone()], 1),
        ([training, same], [few, ~few], 2),
    ):
        asked.clear()
        found = evidence(sides, 6, training.labels, voters)
        assert (asked.count(m), asked.count(dim)) == (2, times)
        alone = [
            module._both(side, who, 6, []) for side, who in zip(sides, voters or [None] * 2, strict=True)
        ]
        with monkeypatch.context() as patch:
            patch.setattr(module, "_both", Mock(side_effect=alone))
            assert torch.equal(evidence(sides, 6, training.labels, voters).share, found.share)


def test_features_that_are_the_embeddings_are_voted_on_once(toy, monkeypatch):
    training, _ = toy
    m = len(training.weight)
    features = training.features[:, :m].contiguous()
    eye = torch.eye(m, dtype=training.weight.dtype)
    asked = []
    real = module._vote
    monkeypatch.setattr(module, "_vote", lambda x, *rest: asked.append(x.shape) or real(x, *rest))
    for weight, bias, times in (
        (eye, training.bias * 0, 1),
        (eye, training.bias * 0 + 1, 2),
        (2 * eye, training.bias * 0, 2),
    ):
        side = Training(features, training.labels, weight, bias, training.loss)
        votes = evidence([side], 6)
        found = torch.zeros(23, 4, dtype=torch.float64).scatter(1, votes.classes, votes.share)
        np.testing.assert_allclose(found, written_out([side], 6), atol=1e-9)
        assert len(asked) == times
        asked.clear()


def test_own_is_of_the_labels_asked_for(toy):
    training, _ = toy
    asked = (training.labels + 1) % 4
    votes = evidence([training], 5, labels=asked)
    want = written_out([training], 5)
    np.testing.assert_allclose(votes.own, want[np.arange(23), asked], atol=1e-9)


def test_who_is_no_voter_changes_nobodys_evidence_and_is_judged_by_the_others(toy):
    training, _ = toy
    voters = torch.ones(23, dtype=torch.bool)
    voters[[0, 7, 22]] = False
    other = Training(
        training.features,
        torch.where(voters, training.labels, (training.labels + 1) % 4),
        *(training.weight, training.bias, training.loss),
    )
    one, two = (evidence([side], 5, labels=training.labels, voters=[voters]) for side in (training, other))
    assert torch.equal(one.own, two.own)
    assert torch.equal(one.share, two.share)
    assert not torch.equal(one.own, evidence([training], 5).own)


def test_each_time_has_its_own_labels_and_voters(toy):
    training, _ = toy
    other = Training(
        training.features.flip(1),
        (training.labels + 1) % 4,
        *(training.weight, training.bias, training.loss),
    )
    voters = [torch.arange(23) % 5 > 0, torch.arange(23) % 3 > 0]
    both = evidence([training, other], 5, labels=training.labels, voters=voters)
    alone = [
        evidence([side], 5, labels=training.labels, voters=[who])
        for side, who in zip((training, other), voters, strict=True)
    ]
    torch.testing.assert_close(both.own, (alone[0].own + alone[1].own) / 2)


def test_the_most_likely_labels_are_kept(toy, monkeypatch):
    training, _ = toy
    every = evidence([training], 5)
    monkeypatch.setattr("deconfuse.labels.evidence.KEPT", 2)
    few = evidence([training], 5)
    assert few.classes.shape == (23, 2)
    assert torch.equal(few.share, every.share[:, :2])
    assert torch.equal(few.own, every.own)


@pytest.mark.parametrize(
    ("memory", "tile", "rows"),
    # 8 bytes for each of four classes: 7 samples in 224 bytes, one where none fits, or as many as asked for.
    [(224, None, [7, 7, 7, 2]), (1, None, [1] * 23), (1, 11, [11, 11, 1])],
)
def test_as_many_samples_are_held_at_a_time_as_memory_allows(toy, monkeypatch, memory, tile, rows):
    training, _ = toy
    seen = []

    def watched(side, some):
        found = class_cosines(side, some)
        seen.append(len(found))
        return found

    monkeypatch.setattr("deconfuse.labels.evidence.TILE_BYTES", memory)
    monkeypatch.setattr("deconfuse.labels.evidence.class_cosines", watched)
    evidence([training], 5, tile=tile)
    assert seen == rows


def test_the_closest_proxy_of_a_class_counts(toy):
    training, _ = toy
    found = class_cosines(training, slice(3, 9))
    z = F.normalize(training.z[3:9], dim=1)
    want = torch.stack([(z @ part.T).amax(1) for part in training.proxies.chunk(4)], 1)
    torch.testing.assert_close(found, want)


def test_odds_by_hand():
    votes = Votes(
        torch.tensor([[2, 0], [1, 0]]), torch.tensor([[0.6, 0.3], [0.8, 0.1]]), torch.tensor([0.3, 0.8])
    )
    label, log_odds = odds(votes, torch.tensor([0, 1]))
    assert label.tolist() == [2, 0]
    torch.testing.assert_close(log_odds, torch.tensor([2.0, 0.125]).log())


def test_where_no_other_label_is_known_the_odds_are_finite():
    votes = Votes(torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2), torch.ones(1))
    label, log_odds = odds(votes, torch.zeros(1, dtype=torch.long))
    assert label.tolist() == [0]
    assert -100 < log_odds.item() < -80


def test_where_nobody_votes_for_the_label_given_the_odds_are_finite():
    votes = Votes(torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1), torch.zeros(1))
    label, log_odds = odds(votes, torch.ones(1, dtype=torch.long))
    assert label.tolist() == [0]
    assert 80 < log_odds.item() < 100  # -log of the smallest number of float32 that keeps its digits


def test_a_side_in_float64_beside_one_in_float32_counts_alike(toy):
    """As a checkpoint whose embeddings have nearly one direction is judged in float64."""
    training, _ = toy
    single = replace(
        training,
        features=training.features.float(),
        weight=training.weight.float(),
        bias=training.bias.float(),
        loss=copy.deepcopy(training.loss).float(),
    )
    mixed, double = (evidence([training, other], 4) for other in (single, training))
    assert mixed.share.dtype == torch.float64
    torch.testing.assert_close(mixed.own, double.own, rtol=0, atol=1e-6)
