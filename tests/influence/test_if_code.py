import numpy as np
import pytest
import torch

from deconfuse.attribution.curvature import hvp
from deconfuse.attribution.head import Targets, Training
from deconfuse.influence import if_code, influence_function
from deconfuse.influence.if_code import lissa, scores
from deconfuse.influence.influence_function import Solver
from deconfuse.system.errors import UserError
from tests.attribution.test_curvature import autograd_hessian
from tests.chunk_sizes import asked
from tests.damping import share_of_largest
from tests.defaults import in_code, in_yaml
from tests.influence.test_eif import GROUPS, golden_groups, golden_side


@pytest.mark.parametrize("batch", [1, 5, 23, 99])
def test_lissa_is_its_recursion_written_out(toy, batch):
    """Two passes in batches in order; the last of 23 in fives is one of three."""
    training, _ = toy
    v = torch.randn(2, 5, 11, dtype=torch.float64)
    want = v.clone()
    for start in [*range(0, 23, batch)] * 2:
        rows = slice(start, start + batch)
        some = Training(
            training.features[rows], training.labels[rows], training.weight, training.bias, training.loss
        )
        want = v + 0.99 * want - hvp(some, want) / 700
    found = lissa(training, v, 700.0, 0.01, batch, epochs=2)
    torch.testing.assert_close(found, want / 700, rtol=1e-9, atol=1e-12)
    once = lissa(training, v, 700.0, 0.01, batch)  # one pass where nothing is said
    torch.testing.assert_close(once, lissa(training, v, 700.0, 0.01, batch, epochs=1), rtol=1e-12, atol=0)


def test_lissa_over_the_whole_set_converges_to_its_damped_inverse(toy):
    training, _ = toy
    h = autograd_hessian(training)
    scale = 10 * torch.linalg.eigvalsh(h)[-1].item()  # enough that the damped H is positive definite
    v = torch.randn(1, 5, 11, dtype=torch.float64)
    found = lissa(training, v, scale, 0.2, batch=23, epochs=150)
    want = torch.linalg.solve(h + 0.2 * scale * torch.eye(55), v.flatten())
    torch.testing.assert_close(found.flatten(), want, rtol=1e-6, atol=1e-9)


def test_lissa_that_diverges_says_what_to_raise(toy):
    training, _ = toy
    with pytest.raises(UserError, match=r"LiSSA diverged .* raise influence.scale"):
        lissa(training, torch.ones(1, 5, 11, dtype=torch.float64), 1e-12, 0.0, 1, epochs=30)
    one_of_two = torch.zeros(2, 5, 11, dtype=torch.float64)
    one_of_two[1] = 1  # the other stays 0, which is finite
    with pytest.raises(UserError, match="LiSSA diverged"):
        lissa(training, one_of_two, 1e-12, 0.0, 1, epochs=30)


def test_lissa_that_has_converged_equals_explicit_at_its_damping(toy, capsys):
    """The set 150 times over, in batches of the set: one pass is 150 steps, and the mean loss stays."""
    training, test = toy
    often = Training(
        training.features.repeat(150, 1),
        training.labels.repeat(150),
        training.weight,
        training.bias,
        training.loss,
    )
    targets = Targets(test, test, GROUPS)
    found = scores(often, targets, scale=60.0, damping=0.5, batch=23)[:, :23]
    assert float(capsys.readouterr().err.rpartition("residual ")[2]) < 1e-9
    exact = influence_function.scores(
        training, targets, solver=Solver("explicit"), damping=share_of_largest(training, 30.0)
    )
    assert (found - exact).abs().max() <= 1e-8 * exact.abs().max()


@pytest.mark.parametrize("name", ["proxynca", "softtriple"])
def test_golden_lissa(golden, name):
    """The recorded scores have Eq. 4's own sign, > 0 helpful."""
    data = golden(name)
    training, test = golden_side(data, name)
    cases = {
        "if_lissa": Targets.pairs(test, test, torch.from_numpy(data["pairs"])),
        "group_if_lissa": Targets(test, test, golden_groups(data)),
    }
    for key, targets in cases.items():
        found = -scores(training, targets).numpy()
        assert np.abs(found - data[key]).max() / np.abs(data[key]).max() < 1e-4, key


def test_what_lissa_has_not_solved_is_said_with_its_own_advice(toy, capsys):
    training, test = toy
    scores(training, Targets(test, test, GROUPS), scale=1e4, damping=0.01)
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("solved with lissa: largest relative residual ")
    assert "3 of 3 explanations are not solved (tolerance 0.001)" in said
    assert "raise influence.damping, or use influence=if" in said


def test_the_size_of_a_chunk_changes_no_score(toy, monkeypatch):
    training, test = toy
    targets = Targets(test, test, GROUPS)
    want = scores(training, targets)
    for budget in (1, 12_000):  # one and two right sides at a time
        monkeypatch.setattr(if_code, "BLOCK_BYTES", budget)
        torch.testing.assert_close(scores(training, targets), want, rtol=1e-9, atol=1e-12)


def test_the_defaults_are_those_of_the_command_line():
    settings = in_yaml("influence/if_code")
    assert in_code(scores, settings) == settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"damping": -1}, "influence.damping=-1 is too small; give 0 or more"),
        ({"damping": -1e-9}, "influence.damping=-1e-09 is too small"),
        ({"scale": 0}, "influence.scale=0 is too small; give 1e-12 or more"),
        ({"scale": 9e-13}, "influence.scale=9e-13 is too small"),
        ({"batch": 0}, "influence.batch=0 is too small"),
    ],
)
def test_bad_settings_are_named(toy, settings, message):
    training, test = toy
    with pytest.raises(UserError, match=f"^{message}"):
        scores(training, Targets(test, test, GROUPS), **settings)


@pytest.mark.parametrize(("budget", "size"), [(3 * 5400, 3), (3 * 5400 - 1, 2), (5400 - 1, 1)])
def test_as_many_groups_are_solved_at_a_time_as_memory_allows(toy, budget, size):
    """A group takes six times W, 440 bytes here, and three times 23 samples with 5 axes in float64."""
    assert asked(if_code, toy, GROUPS, budget) == [size]
