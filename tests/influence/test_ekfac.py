from dataclasses import replace

import pytest
import torch

from deconfuse.attribution.curvature import gradient_z
from deconfuse.attribution.head import Targets, chunks, weight_gradient
from deconfuse.attribution.kronecker import fit
from deconfuse.influence import ekfac
from deconfuse.influence.ekfac import scores
from deconfuse.system.errors import UserError
from tests.chunk_sizes import asked
from tests.defaults import in_code, in_yaml
from tests.influence.test_eif import GROUPS


def dense(factors, damping):
    """(F + damping I)^-1 as a matrix over W flattened (m D)."""
    basis = torch.kron(factors.outputs, factors.inputs)
    return basis @ torch.diag(1 / (factors.values + damping).flatten()) @ basis.T


def test_equals_the_dense_inverse_and_any_chunk(toy, monkeypatch):
    training, test = toy
    factors, targets = fit(training, seed=3), Targets(test, test, GROUPS)
    inverse = dense(factors, 0.1 * factors.values.max())
    gradients = torch.einsum("nm,nd->nmd", gradient_z(training, training.z), training.features).flatten(1)
    v = torch.cat([weight_gradient(training, sides) for sides in chunks(targets, 23, 1)]).flatten(1)
    want = v @ inverse @ gradients.T
    for budget in (2**28, 1, 6_000):  # all groups in a chunk, one, two
        monkeypatch.setattr(ekfac, "BLOCK_BYTES", budget)
        found = scores(training, targets, damping=0.1, seed=3)
        torch.testing.assert_close(found, want, rtol=1e-8, atol=1e-11)
    relative = scores(training, targets, damping=0.1, seed=3, relative=True)
    torch.testing.assert_close(relative, want / (gradients @ inverse).norm(dim=1), rtol=1e-8, atol=1e-11)


def test_a_sample_that_moves_nothing_has_a_relative_influence_of_zero(toy):
    training, test = toy
    features = training.features.clone()
    features[4] = 0  # W z has no gradient in W
    found = scores(replace(training, features=features), Targets(test, test, GROUPS), relative=True)
    assert found.isfinite().all()
    assert found[:, 4].tolist() == [0, 0, 0]
    assert (found[:, torch.arange(23) != 4] != 0).all()


def test_the_defaults_are_those_of_the_command_line(toy):
    settings = in_yaml("influence/ekfac")
    assert in_code(scores, settings) == settings
    assert in_code(scores, ["seed"]) == {"seed": 0}
    training, test = toy
    for damping in (0, 0.9e-9):
        with pytest.raises(
            UserError, match=rf"^influence\.damping={damping} is too small; give 1e-09 or more"
        ):
            scores(training, Targets(test, test, GROUPS), damping=damping)
    assert scores(training, Targets(test, test, GROUPS), damping=1e-9).isfinite().all()


@pytest.mark.parametrize(("budget", "size"), [(3 * 2680, 3), (3 * 2680 - 1, 2), (2680 - 1, 1)])
def test_as_many_groups_are_solved_at_a_time_as_memory_allows(toy, budget, size):
    """A group takes four times W, 440 bytes here, and 23 samples with 5 axes in float64."""
    assert asked(ekfac, toy, GROUPS, budget) == [size]
