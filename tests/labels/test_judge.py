from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from deconfuse.attribution.look import Frozen
from deconfuse.labels import judge
from deconfuse.labels.relabel import Judgement, Votes, vote


def plain(training, influence, votes):
    return training.z.double().norm(dim=1)


def recommending(training, influence, votes, earlier=()):
    sides = [*earlier, training]
    share = torch.stack([side.z.abs()[:, :2] for side in sides]).mean(0)
    classes = torch.tensor([[0, 1]]).expand(len(share), 2)
    return Judgement(share.sum(1), Votes(classes, share, share[:, 0]))


def frozen(training):
    return Frozen(training, training.features[:2], training.features[:2], Path())


def test_the_neighbours_vote_for_all_or_for_those_that_score_most_harmful(toy):
    training, _ = toy
    influence = torch.zeros(2, 23, dtype=torch.float64)
    influence[:, [3, 7, 11]] = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    whole = judge.votes(training, influence, 5, None)
    want = vote(training.z, training.labels, 5, unit=True, fair=True)
    torch.testing.assert_close(whole.share, want.share, rtol=1e-12, atol=0)
    assert torch.equal(whole.classes, want.classes)
    some = judge.votes(training, influence, 5, 2)
    asked = ~some.own.isnan()
    assert asked.nonzero()[:, 0].tolist() == [3, 7]


def test_a_suspicion_alone_goes_with_the_neighbours_recommendation(toy):
    training, _ = toy
    influence = torch.zeros(1, 23, dtype=torch.float64)
    votes = judge.votes(training, influence, 5, None)
    found = judge.judge(partial(plain), frozen(training), influence, votes, iter(()))
    assert found.votes is votes
    torch.testing.assert_close(found.suspicion, training.z.norm(dim=1))


def test_a_detector_that_asks_for_earlier_checkpoints_gets_them(toy):
    training, _ = toy
    past = replace(training, features=2 * training.features)
    influence = torch.zeros(1, 23, dtype=torch.float64)
    votes = judge.votes(training, influence, 5, None)
    found = judge.judge(partial(recommending), frozen(training), influence, votes, iter([frozen(past)]))
    want = (training.z.abs()[:, :2] + past.z.abs()[:, :2]) / 2
    torch.testing.assert_close(found.votes.share, want)
    torch.testing.assert_close(found.suspicion, want.sum(1))
    # A detector without the word in its signature is not given them, and nobody reads them.
    unread = iter([frozen(past)])
    judge.judge(partial(plain), frozen(training), influence, votes, unread)
    assert len(list(unread)) == 1


def test_a_side_in_one_direction_is_judged_in_float64_and_answered_in_its_own_type(toy):
    training, _ = toy
    narrow = replace(
        training,
        features=(training.features * 1e-4).float(),
        weight=training.weight.float(),
        bias=torch.full_like(training.bias, 3.0).float(),
        loss=training.loss.float(),
    )
    seen = []

    def noted(training, influence, votes):
        seen.append(training.weight.dtype)
        return training.z.norm(dim=1)

    influence = torch.zeros(1, 23)
    votes = judge.votes(narrow, influence, 5, None)
    found = judge.judge(partial(noted), frozen(narrow), influence, votes, iter(()))
    assert seen == [torch.float64]
    assert found.suspicion.dtype == torch.float32


USED = torch.tensor([i for i in range(23) if i not in (0, 7, 22)])


def test_samples_that_were_left_out_do_not_vote(toy):
    training, _ = toy
    influence = torch.zeros(2, 23, dtype=torch.float64)
    influence[:, [3, 9, 11]] = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    found = judge.votes(training, influence, 5, None, used=USED)
    alone = vote(training.z[USED], training.labels[USED], 5, unit=True, fair=True)
    torch.testing.assert_close(found.own[USED], alone.own, rtol=1e-12, atol=0)
    assert torch.equal(found.index[USED], USED[alone.index])
    assert not torch.isin(found.index, torch.tensor([0, 7, 22])).any()
    assert not found.own.isnan().any()  # they are voted on all the same
    some = judge.votes(training, influence, 5, 2, used=USED)
    assert (~some.own.isnan()).nonzero()[:, 0].tolist() == [3, 9]
    torch.testing.assert_close(some.own[[3, 9]], found.own[[3, 9]], rtol=1e-12, atol=0)


def test_a_detector_does_not_see_what_was_left_out(toy):
    training, _ = toy
    influence = torch.zeros(1, 23, dtype=torch.float64)
    votes = judge.votes(training, influence, 5, None, used=USED)
    found = judge.judge(partial(plain), frozen(training), influence, votes, iter(()), used=USED)
    norms = training.z.norm(dim=1)
    torch.testing.assert_close(found.suspicion[USED], norms[USED])
    assert found.suspicion[[0, 7, 22]].tolist() == [norms[USED].min().item()] * 3
    past = replace(training, features=2 * training.features)
    earlier = iter([frozen(past)])
    said = judge.judge(partial(recommending), frozen(training), influence, votes, earlier, used=USED).votes
    want = (training.z.abs()[:, :2] + past.z.abs()[:, :2]) / 2
    torch.testing.assert_close(said.share[USED], want[USED])
    assert said.own[[0, 7, 22]].isnan().all()
    assert torch.equal(said.best[0][[0, 7, 22]], training.labels[[0, 7, 22]])
