"""Every method of conf/influence gives in two processes the scores that it gives in one.

A method that sums over samples and does not pass the sum through `rows.total`, or does not join what each
process found, gives each process the scores of its own shard, and nothing else would show that.
"""

import typing
from functools import partial
from unittest.mock import patch

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from deconfuse.attribution import rows
from deconfuse.attribution.attribute import takes_earlier, takes_record
from deconfuse.attribution.head import Targets, Training
from deconfuse.attribution.network import Network
from deconfuse.attribution.rows import of_all, own
from deconfuse.attribution.trajectory import method
from deconfuse.influence import eif, influence_function
from deconfuse.launch.command_line import CONF
from deconfuse.loss.softtriple import SoftTriple
from deconfuse.system import distributed
from deconfuse.training.recipe import Record
from tests.influence.test_eif import GROUPS
from tests.made import recipe
from tests.team import team

N = 23  # rows; two processes have 11 and 12
OPTIONS = sorted(path.stem for path in (CONF / "influence").glob("*.yaml"))


def methods() -> dict[str, partial]:
    """Every option with its own settings, and those ways through a method that no option takes."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = {option: compose("config", [f"influence={option}"]) for option in OPTIONS}
    chosen = {option: OmegaConf.to_container(one, resolve=True) for option, one in composed.items()}
    found = {option: instantiate(method(one["influence"])) for option, one in chosen.items()}
    # On these random heads H is indefinite, and the way of CG would be a matter of rounding: a large damping.
    found["if"] = partial(found["if"].func, **(found["if"].keywords | {"damping": 10.0}))
    found["if, explicit"] = partial(
        influence_function.scores, solver=influence_function.Solver("explicit"), damping=0.5
    )
    found["eif, three directions"] = partial(eif.scores, n_theta=3)
    return found


def side(seed: int) -> tuple[Training, Targets]:
    """A training side and what is explained; labels are sorted, so no process has a sample of each class."""
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    loss = SoftTriple(4, 5).double().requires_grad_(False)
    loss.proxies.copy_(draw(*loss.proxies.shape))
    training = Training(draw(N, 11), torch.arange(N) * 4 // N, draw(5, 11) / 3, draw(5) / 3, loss)
    test = draw(9, 11)
    return training, Targets(test, test, GROUPS)


def network() -> Network:
    """A network in whose batches of four each process has those of its own rows."""
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double().requires_grad_(False)
    loss = SoftTriple(4, 3).double().requires_grad_(False)
    for value in (*model.parameters(), *loss.parameters()):
        value.copy_(draw(*value.shape))
    images, labels, rows = draw(N, 6), torch.arange(N) * 4 // N, torch.tensor(distributed.share(N, 4))
    batches, shared = [(images[some], labels[some], some) for some in rows.split(4)], distributed.world() > 1
    names = ("0.weight", "2.weight")
    return Network(model, loss, names, labels, batches, images.__getitem__, images.__getitem__, shared)


def more(method: partial, past: tuple) -> dict:
    """What attribute() also gives a method that sums over the checkpoints kept, or repeats the training."""
    found = {"earlier": [past]} if takes_earlier(method) else {}
    return found | ({"record": record()} if takes_record(method) else {})


def record() -> Record:
    """A training of three epochs that starts somewhere near the head of `side`."""
    training, _ = side(9)
    start = {"weight": training.weight, "bias": training.bias, "loss.proxies": training.loss.proxies.clone()}
    return Record(recipe(frozen=True), 0, training.labels.numpy(), start, None)


def on_head(method: partial, folder) -> torch.Tensor:
    """The scores of all rows, from each process's own."""
    (training, targets), (before, were) = side(5), side(8)
    scores = method(own(training), targets, **more(method, (own(before), were)))
    return of_all(scores, N, folder, scores.dtype)


def on_network(method: partial) -> torch.Tensor:
    """The scores of all rows by a method that can do more than the head."""
    targets = Targets.pairs(torch.empty(N, 1), torch.empty(N, 1), torch.tensor([[0, 5], [3, 7]]))
    return method(network(), targets, **more(method, (network(), targets)))


def does_networks(method: partial) -> bool:
    return Network in typing.get_args(typing.get_type_hints(method.func).get("training"))


def everything(methods: dict[str, partial], folder) -> dict:
    """All scores, by method and by what is attributed."""
    found = {(name, "head"): on_head(method, folder) for name, method in methods.items()}
    with patch.object(rows, "PART_ROWS", 5):  # shards of 11 and 12 rows are taken in three parts each
        found |= {(name, "head in parts"): on_head(method, folder) for name, method in methods.items()}
    whole = {name: method for name, method in methods.items() if name in OPTIONS and does_networks(method)}
    return found | {(name, "network"): on_network(method) for name, method in whole.items()}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> tuple[dict, list[dict]]:
    """The scores of one process, and those that each of two has."""
    folder, tried = tmp_path_factory.mktemp("processes"), methods()
    return everything(tried, folder), team(folder, 2, everything, tried, folder)


def test_every_option_is_tried_and_rows_are_shared_unevenly(found):
    alone, two = found
    assert {"eif", "eif_code", "if", "if_code", "tracin", "ekfac", "relatif", "random", "unrolled"} <= set(
        OPTIONS
    )
    for one in (alone, *two):
        assert {name for name, params in one if params == "head"} >= set(OPTIONS)
        assert {name for name, params in one if params == "network"} >= {"eif", "if", "tracin", "random"}


@pytest.mark.parametrize("name", [*OPTIONS, "if, explicit", "eif, three directions"])
def test_two_processes_have_the_scores_of_one(found, name):
    alone, two = found
    for key, want in alone.items():
        if key[0] == name:
            assert want.shape[1] == N
            assert want.abs().max() > 1e-9
            for one in two:
                torch.testing.assert_close(one[key], want, rtol=1e-7, atol=1e-9 * want.abs().max().item())
