from functools import partial

import pytest
import torch
from torch import nn

from deconfuse.attribution.head import Targets
from deconfuse.attribution.network import Network
from deconfuse.influence import tracin
from deconfuse.loss.softtriple import SoftTriple
from deconfuse.system import distributed
from deconfuse.system.errors import UserError
from tests.team import team

N, WORLD = 23, 3


def network() -> tuple[Network, torch.Tensor]:
    """A network whose batches of 4 are shared out, and a direction for its Hessian."""
    generator = torch.Generator().manual_seed(6)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double().requires_grad_(False)
    loss = SoftTriple(4, 3).double().requires_grad_(False)
    for value in (*model.parameters(), *loss.parameters()):
        value.copy_(draw(*value.shape))
    images, labels = draw(N, 6), torch.randint(0, 4, (N,), generator=generator)
    rows = torch.tensor(distributed.share(N, 4)).split(4) if len(distributed.share(N, 4)) else ()
    batches = [(images[some], labels[some], some) for some in rows]
    names, many = ("0.weight", "2.weight"), distributed.world() > 1
    found = Network(model, loss, names, labels, batches, images.__getitem__, images.__getitem__, many)
    return found, draw(45)


def everything() -> dict:
    """What one of the processes finds."""
    rank, mine = distributed.rank(), distributed.share(N, 4)
    values = torch.arange(2.0 * N).view(N, 2)
    net, direction = network()
    error = ""
    try:
        distributed.agreed(rank // 2, "number")
    except UserError as found:
        error = str(found)
    return {
        "rank": (rank, distributed.world(), distributed.first()),
        "rows": list(mine),
        "few": list(distributed.share(2)),
        "joined": distributed.joined(values[mine.start : mine.stop]),
        "by_row": distributed.by_row(values[rank::2], torch.arange(N)[rank::2], N),
        "in_turn": list(distributed.in_turn(iter(values[mine.start : mine.stop].double().split(3 - rank)))),
        "total": distributed.total(torch.tensor([1.0, rank])),
        "told": distributed.told(lambda: f"by {rank}"),
        "agreed": distributed.agreed("same", "word"),
        "error": error,
        "said": distributed.mine_to_say(),
        "losses": net.losses(net.theta),
        "hessian": net.hessian_product(direction),
        "tracin": tracin.scores(net, Targets.pairs(values, values, torch.tensor([[0, 5]]))),
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return team(tmp_path_factory.mktemp("team"), WORLD, everything)


def test_rows_are_whole_batches_and_each_is_somebodys(found):
    assert [one["rank"] for one in found] == [(0, 3, True), (1, 3, False), (2, 3, False)]
    assert [one["rows"] for one in found] == [list(range(8)), list(range(8, 16)), list(range(16, 23))]
    assert [one["few"] for one in found] == [[], [0], [1]]


def test_parts_of_any_length_are_put_together_by_row(found):
    values = torch.arange(2.0 * N).view(N, 2)
    for one in found:
        assert torch.equal(one["joined"], values)
        assert torch.equal(one["by_row"], values)  # rows 2, 4, ... are two processes'
        assert one["total"].tolist() == [3, 3]
        assert [len(batch) for batch in one["in_turn"]] == [3, 3, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1]
        assert torch.equal(torch.cat(one["in_turn"]), values.double())


def test_what_the_first_one_says_is_told_and_what_differs_is_named(found):
    for one in found:
        assert (one["told"], one["agreed"]) == ("by 0", "same")
        assert one["error"].startswith("process 2 has another number than process 0")
    assert sum(one["said"] for one in found) == 1


def test_a_networks_sums_and_scores_are_those_of_one_process(found):
    net, direction = network()
    pair = Targets.pairs(torch.zeros(N, 2), torch.zeros(N, 2), torch.tensor([[0, 5]]))
    want = {"losses": net.losses(net.theta), "hessian": net.hessian_product(direction)}
    want["tracin"] = tracin.scores(net, pair)
    for one in found:
        for name, value in want.items():
            torch.testing.assert_close(one[name], value, rtol=1e-10, atol=1e-12)


def test_alone_everything_is_as_it_is():
    values = torch.arange(6.0).view(3, 2)
    assert list(distributed.share(7, 3)) == list(range(7))
    assert distributed.joined(values) is values
    assert [batch is values for batch in distributed.in_turn(iter([values]))] == [True]
    assert distributed.total(values) is values
    assert distributed.told(lambda: 4) == distributed.agreed(4, "number") == 4
    assert distributed.mine_to_say()
    with pytest.raises(ValueError, match="1 of 4 rows were found by no process"):
        distributed.by_row(values, torch.tensor([0, 3, 1]), 4)


@pytest.mark.parametrize(("rank", "mine"), [("0", True), ("1", False)])
def test_before_torchruns_processes_have_joined_the_first_one_speaks(monkeypatch, rank, mine):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", rank)
    assert distributed.mine_to_say() == mine


def alone_in_a_team():
    """What one of three processes sees inside `alone`, where it waits for nobody, and outside."""
    with distributed.alone():
        found = distributed.world(), distributed.rank(), list(distributed.share(N, 4))
        inside = (*found, distributed.total(torch.ones(1)).item())
    return inside, distributed.world()


def test_inside_alone_a_process_works_as_if_there_were_no_others(tmp_path):
    for inside, outside in team(tmp_path, WORLD, alone_in_a_team):
        assert inside == (1, 0, list(range(N)), 1.0)
        assert outside == WORLD
