"""Every method, detector, vote and metric on a pretended device: nothing is mixed, little is read back."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from deconfuse.attribution.head import Targets, Training
from deconfuse.attribution.look import Frozen
from deconfuse.attribution.rows import embeddings, of_every_process, parts, projected, weighted_sum
from deconfuse.detector import evidence, influence, knn, loss, margin, self_influence
from deconfuse.influence import eif, ekfac, if_code, influence_function, tracin, unrolled
from deconfuse.labels import judge
from deconfuse.labels.evidence import evidence as combined
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.loss.softtriple import SoftTriple
from deconfuse.retraining.parallel_heads import Heads
from deconfuse.retrieval.confusion import groups, mis_similar, retrieve
from deconfuse.retrieval.metrics import nmi
from deconfuse.retrieval.queries import Queries
from deconfuse.unrolling import plans
from deconfuse.unrolling.subsets import SubsetRetraining, draw, measure_changes
from tests.pretend import DEVICE, Pretending, There

N, D, M, C = 41, 11, 5, 4
LOSSES = {
    "proxynca": lambda: ProxyNCA(C, M),
    "softtriple": lambda: SoftTriple(C, M),
    "softtriple3": lambda: SoftTriple(C, M, centres=3),
}
METHODS = {
    "eif": partial(eif.scores, path=eif.Sphere(steps=3)),
    "eif3": partial(eif.scores, path=eif.Sphere(steps=3), n_theta=3),
    "eif_code": partial(eif.scores, path=eif.RawSteps(steps=3), normalise=False),
    "if": influence_function.scores,
    "explicit": partial(influence_function.scores, solver=influence_function.Solver("explicit"), damping=0.1),
    "if_code": if_code.scores,
    "ekfac": ekfac.scores,
    "relatif": partial(ekfac.scores, relative=True),
    "tracin": tracin.scores,
    "unrolled": unrolled.scores,
    "descent": partial(unrolled.scores, through="descent", descent=plans.FullBatch(3)),
}
DETECTORS = {
    "evidence": evidence.suspicion,
    "influence": influence.suspicion,
    "knn": knn.suspicion,
    "loss": loss.suspicion,
    "margin": margin.suspicion,
    "self_influence": self_influence.suspicion,
}


def side(name="proxynca"):
    torch.manual_seed(3)
    module = LOSSES[name]().double().requires_grad_(False)
    labels, phi = torch.arange(N) % C, torch.randn(N, D, dtype=torch.float64)
    weight, bias = torch.randn(M, D, dtype=torch.float64) / 3, torch.randn(M, dtype=torch.float64) / 9
    return Training(phi, labels, weight, bias, module)


def moved(training, features=True):
    """The side on the device; its features there too, or still in the processor's memory."""
    module = copy.deepcopy(training.loss)
    for name, parameter in list(module.named_parameters()):
        owner, _, last = name.rpartition(".")
        owner = module.get_submodule(owner)
        setattr(owner, last, nn.Parameter(There(parameter.detach().clone()), requires_grad=False))
    rest = training.labels.to(DEVICE), training.weight.to(DEVICE), training.bias.to(DEVICE), module
    return Training(training.features.to(DEVICE) if features else training.features, *rest)


def explained(device=None, sizes=(1, 1, 1)):
    random = torch.Generator().manual_seed(4)
    test = torch.randn(2 * sum(sizes), D, generator=random, dtype=torch.float64)
    rows = torch.arange(2 * sum(sizes)).view(-1, 2).split(sizes)
    test = test if device is None else test.to(device)
    return Targets(test, test, tuple(rows))


def here(found):
    return found.held if isinstance(found, There) else found


@pytest.mark.parametrize(
    ("method", "name", "features"),
    [
        *((method, *rest) for method in METHODS for rest in (("proxynca", True), ("softtriple", False))),
        *((method, "softtriple3", True) for method in ("eif", "if", "tracin")),
    ],
)
def test_methods(method, name, features, monkeypatch):
    """features: True if they lie on the device, False if they come to it in parts."""
    if not features:
        monkeypatch.setattr("deconfuse.attribution.rows.PART_ROWS", 9)
    training, targets = side(name), explained()
    want = METHODS[method](training, targets)
    with Pretending():
        found = METHODS[method](moved(training, features), explained(DEVICE))
    assert found.device.type == DEVICE.type
    torch.testing.assert_close(here(found), want, rtol=1e-6, atol=1e-8 * want.abs().max().item())


@pytest.mark.parametrize("method", ["eif", "ekfac", "tracin", "if"])
def test_nothing_is_read_back_for_each_explanation(method):
    """Twice the explanations in one chunk cost no more stalls."""
    reads = []
    for pairs in (6, 12):
        with Pretending() as mode:
            METHODS[method](moved(side()), explained(DEVICE, (1,) * pairs))
        reads.append(mode.reads["aten._local_scalar_dense.default"])
    assert reads[1] <= reads[0] + (pairs if method == "if" else 0)  # CG asks how many are not solved


@pytest.mark.parametrize("features", [True, False], ids=["there", "in parts"])
@pytest.mark.parametrize("detector", DETECTORS)
def test_detectors_and_votes(detector, features, monkeypatch, tmp_path):
    training = side()
    scores = torch.randn(3, N, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def judged(training):
        votes = judge.votes(training, scores, 5, None)
        frozen = Frozen(training, training.features, training.features, tmp_path)
        return votes, judge.judge(partial(DETECTORS[detector]), frozen, scores, votes, iter(()))

    votes, want = judged(training)
    if not features:
        monkeypatch.setattr("deconfuse.attribution.rows.PART_ROWS", 9)
    with Pretending():
        there, found = judged(moved(training, features))
    for one, other in ((there.share, votes.share), (found.suspicion, want.suspicion)):
        assert not isinstance(one, There)
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert torch.equal(there.classes, votes.classes)


def test_candidates_are_asked_alone():
    scores = torch.randn(3, N, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    want = judge.votes(side(), scores, 5, 7)
    with Pretending():
        found = judge.votes(moved(side()), scores, 5, 7)
    torch.testing.assert_close(found.own, want.own, equal_nan=True)


def test_votes_that_exceed_the_devices_memory_are_counted_on_the_processor(monkeypatch):
    monkeypatch.setattr(judge, "fits", lambda nbytes, device: False)
    zeros = torch.zeros(1, N, dtype=torch.float64)
    with Pretending():
        found = judge.votes(moved(side()), zeros, 5, None)
    torch.testing.assert_close(found.own, judge.votes(side(), zeros, 5, None).own)


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("k", [(1, 2, 4), (300,)])
def test_retrieval(same, k):
    random = torch.Generator().manual_seed(6)
    z, labels = torch.randn(401, 7, generator=random), torch.randint(0, 9, (401,), generator=random)
    gallery, theirs = (z, labels) if same else (z[200:].clone(), labels[200:].clone())
    twins = None if same else torch.arange(401) - 200
    twins = None if same else torch.where(twins >= 0, twins, -1)
    want, found = retrieve(Queries(z, gallery, labels, theirs, same, twins), k)
    with Pretending():
        query, classes = z.to(DEVICE), labels.to(DEVICE)
        other = (query, classes) if same else (gallery.to(DEVICE), theirs.to(DEVICE))
        test = Queries(query, other[0], classes, other[1], same, None if same else twins.to(DEVICE))
        pairs, numbers = retrieve(test, k)
        apart = mis_similar(test)
        assert not isinstance(pairs.query, There)
        assert not isinstance(apart.distance, There)
        assert [c for c, _ in groups(pairs, classes)] == [c for c, _ in groups(want, labels)]
        assert nmi(query, classes) == pytest.approx(nmi(z, labels))
    assert numbers == pytest.approx(found)
    assert torch.equal(pairs.pairs, want.pairs)
    far = mis_similar(Queries(z, gallery, labels, theirs, same, twins))
    assert torch.equal(apart.pairs, far.pairs)


def test_evidence_of_several_sides_with_voters_and_labels_of_the_processor():
    labels, voters = torch.arange(N) % C, torch.arange(N) % 3 > 0
    want = combined([side(), side()], 5, labels=labels, voters=[voters, voters])
    with Pretending():
        there = moved(side())
        found = combined([there, there], 5, labels=labels, voters=[voters, voters]).cpu()
    torch.testing.assert_close(found.own, want.own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("features", [True, False], ids=["there", "in parts"])
def test_heads_are_trained_again_on_the_device(features, monkeypatch):
    if not features:
        monkeypatch.setattr("deconfuse.attribution.rows.PART_ROWS", 9)
    plan = SubsetRetraining(3, 0.5, 2, 0)
    want = measure_changes(side(), explained(), draw(plan, N), plan)
    with Pretending():
        found = measure_changes(moved(side(), features), explained(DEVICE), draw(plan, N), plan).cpu()
    torch.testing.assert_close(found, want, rtol=1e-6, atol=1e-9)


def test_parts_of_rows_in_the_processors_memory_come_to_the_device(monkeypatch):
    monkeypatch.setattr("deconfuse.attribution.rows.PART_ROWS", 9)
    training = side()
    with Pretending():
        there = moved(training, features=False)
        seen = list(parts(there))
        assert [len(part) for _, part in seen] == [9, 9, 9, 9, 5]
        assert all(isinstance(part.features, There) for _, part in seen)
        z, sums = embeddings(there), weighted_sum(there, there.labels[:, None].double())
        q = projected(there, training.features[:20])
    torch.testing.assert_close(z.held, training.z)
    torch.testing.assert_close(q.held, training.z[:20])
    torch.testing.assert_close(sums.held[0], training.labels.double() @ training.features)
    assert of_every_process(training) is training


def test_heads_of_a_reweighting_learn_on_the_device():
    training = side()
    rows, weights = (
        torch.arange(8),
        torch.rand(3, N, generator=torch.Generator().manual_seed(7), dtype=torch.float64),
    )

    def learnt(training, phi, labels):
        heads = Heads.start(training, weights, training.weight.device)
        return heads.learn(heads.optimizer(partial(torch.optim.SGD, lr=0.1)), phi, labels, rows)

    want = learnt(training, training.features[:8], training.labels[:8])
    with Pretending():
        there = moved(training)
        found = learnt(there, there.features[:8], there.labels[:8])
    assert found == pytest.approx(want, rel=1e-5)
