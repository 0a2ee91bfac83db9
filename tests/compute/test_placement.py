"""Where rows lie: what fits, what comes in parts, and that TF32 is off where numbers are computed."""

import inspect

import pytest
import torch

from deconfuse.attribution import attribute, look
from deconfuse.attribution.head import Targets, Training
from deconfuse.attribution.rows import score_chunks
from deconfuse.compute import placement
from deconfuse.compute.placement import brought, exact, fits, free_bytes, placed
from deconfuse.labels import judge
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.retraining import counterfactual, reweight
from deconfuse.system.errors import UserError
from tests.pretend import DEVICE, Pretending, There

CPU = torch.device("cpu")


def test_the_processors_memory_is_not_asked():
    assert free_bytes(CPU) == float("inf")
    assert fits(10**18, CPU)


def test_a_quarter_of_the_device_stays_free(monkeypatch):
    monkeypatch.setattr(placement, "free_bytes", lambda device: 80.0)
    monkeypatch.setattr(placement, "total_bytes", lambda device: 100.0)
    assert fits(55, DEVICE)
    assert not fits(56, DEVICE)


def test_rows_that_fit_are_put_there_and_others_stay(monkeypatch):
    rows = torch.ones(3, 2)
    with Pretending():
        there = placed(rows, DEVICE)
        assert isinstance(there, There)
        assert placed(there, DEVICE) is there
        monkeypatch.setattr(placement, "fits", lambda nbytes, device: nbytes < 24)
        assert placed(rows, DEVICE) is rows
        assert isinstance(placed(rows[:2], DEVICE), There)


def test_parts_are_brought_in_order():
    given = [(torch.full((2,), float(i)), torch.tensor([i])) for i in range(3)]
    with Pretending():
        found = list(brought(iter(given), DEVICE))
    assert [(a.held.tolist(), b.held.tolist()) for a, b in found] == [([i, i], [i]) for i in range(3)]


def test_exact_turns_tf32_off_and_sets_it_back():
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    try:
        with exact():
            assert (torch.get_float32_matmul_precision(), cudnn.allow_tf32) == ("highest", False)
        assert (torch.get_float32_matmul_precision(), cudnn.allow_tf32) == ("high", before[1])
    finally:
        torch.set_float32_matmul_precision(before[0])


@pytest.mark.parametrize(
    "computes",
    [
        look.freeze,
        look.measure,
        attribute.attribute,
        judge.votes,
        judge.judge,
        counterfactual.measure,
        reweight.reweight,
    ],
    ids=lambda function: function.__name__,
)
def test_whatever_computes_scores_distances_or_solves_is_exact(computes):
    assert "@exact()\ndef " in inspect.getsource(computes)


def limited(most):
    """A method that needs memory for each group and row, of which there is enough for `most` together."""

    def score(sides):
        def of(rows, part):
            if len(sides.rows) * len(part) > most:
                raise torch.OutOfMemoryError("no memory")
            first = sides.features.sum((1, 2))
            return first[:, None] * part.features.sum(1)

        return of

    return score


@pytest.mark.parametrize("most", [1000, 60, 23, 7, 1])
def test_where_memory_is_too_small_parts_are_halved_and_a_line_says_so_once(most, capsys):
    random = torch.Generator().manual_seed(0)
    phi, test = torch.randn(23, 4, generator=random), torch.randn(10, 4, generator=random)
    labels, loss = torch.zeros(23, dtype=torch.long), ProxyNCA(2, 3).requires_grad_(False)
    training = Training(phi, labels, torch.ones(3, 4), torch.zeros(3), loss)
    targets = Targets.pairs(test, test, torch.arange(10).view(5, 2))
    found = score_chunks(training, targets, "test", limited(most))
    want = torch.stack([(test[2 * i] + test[2 * i + 1]).sum() * phi.sum(1) for i in range(5)])
    torch.testing.assert_close(found, want)
    said = capsys.readouterr().err
    assert said.count("memory is too small") == (most < 115)


def test_a_device_that_has_no_room_for_one_row_is_an_error():
    phi = torch.ones(3, 4)
    training = Training(
        phi, torch.zeros(3, dtype=torch.long), torch.ones(3, 4), torch.zeros(3), ProxyNCA(2, 3)
    )
    targets = Targets.pairs(phi, phi, torch.tensor([[0, 1]]))
    with pytest.raises(UserError, match=r"the memory of cpu is too small for one explanation"):
        score_chunks(training, targets, "test", limited(0))
