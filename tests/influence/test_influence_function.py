import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from deconfuse.attribution.head import Targets, Training
from deconfuse.influence import eif, tracin
from deconfuse.influence.influence_function import scores
from deconfuse.retrieval.confusion import distance
from deconfuse.system.errors import UserError
from tests.defaults import in_code, in_yaml
from tests.influence.test_eif import GROUPS, golden_groups, golden_side
from tests.minimise import minimise
from tests.networks import only_a_head


def mean_d(training, test, weight, group):
    z = test @ weight.T + training.bias
    return distance(z[group[:, 0]], z[group[:, 1]]).mean()


def slow(training, test, damping):
    """Eq. 4, negated, with autograd's Hessian as a matrix."""
    weight = training.weight

    def losses(w):
        return training.loss(training.features @ w.T + training.bias, training.labels)

    h = torch.autograd.functional.hessian(lambda w: losses(w).mean(), weight).reshape(55, 55)
    gradients = torch.autograd.functional.jacobian(losses, weight).reshape(23, 55)
    inverse = torch.linalg.inv(h + damping * torch.eye(55))
    rows = []
    for group in GROUPS:
        v = torch.autograd.functional.jacobian(lambda w, g=group: mean_d(training, test, w, g), weight)
        rows.append(gradients @ inverse @ v.reshape(55))
    return torch.stack(rows)


def test_explicit_equals_eq_4_written_out(toy):
    training, test = toy
    found = scores(
        training, Targets(test, test, GROUPS), solver="explicit", damping=30.0, damping_unit="absolute"
    )
    torch.testing.assert_close(found, slow(training, test, 30.0), rtol=1e-8, atol=1e-10)


def test_cg_equals_explicit(toy):
    training, test = toy
    settings = {"damping": 30.0, "damping_unit": "absolute"}
    targets = Targets(test, test, GROUPS)
    exact = scores(training, targets, solver="explicit", **settings)
    for chunk, helped in ((1, True), (2, False), (3, True)):
        settings["precondition"] = helped
        found = scores(training, targets, solver="cg", tolerance=1e-12, chunk=chunk, **settings)
        assert (found - exact).abs().max() <= 1e-8 * exact.abs().max()


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
    found = scores(often, targets, solver="lissa", scale=60.0, damping=0.5, batch=23)[:, :23]
    assert float(capsys.readouterr().err.rpartition("residual ")[2]) < 1e-9
    exact = scores(training, targets, solver="explicit", damping=30.0, damping_unit="absolute")
    assert (found - exact).abs().max() <= 1e-8 * exact.abs().max()


@pytest.mark.parametrize("name", ["proxynca", "softtriple"])
def test_golden_lissa(golden, name):
    """The recorded scores have Eq. 4's own sign, > 0 helpful."""
    data = golden(name)
    training, test = golden_side(data, name)
    code = {"solver": "lissa", "scale": 500.0, "damping": 0.01, "batch": 1}
    cases = {
        "if_lissa": Targets.pairs(test, test, torch.from_numpy(data["pairs"])),
        "group_if_lissa": Targets(test, test, golden_groups(data)),
    }
    for key, targets in cases.items():
        found = -scores(training, targets, **code).numpy()
        assert np.abs(found - data[key]).max() / np.abs(data[key]).max() < 1e-4, key


def test_value_and_sign_are_the_change_of_d_when_a_sample_weighs_more(toy):
    """Weigh one sample by eps more, solve the damped problem again to convergence, look at d."""
    training, test = toy
    damping, eps = 30.0, 1e-3
    start = training.weight

    def solve(weights):
        def objective(weight):
            losses = training.loss(training.features @ weight.T + training.bias, training.labels)
            # The damping that makes `start` a minimum: its own slope is taken off.
            value = (weights * losses).sum() + damping / 2 * (weight - start).square().sum()
            return value - (slope * (weight - start)).sum()

        return minimise(objective, start)

    even = torch.full((23,), 1 / 23, dtype=torch.float64)
    leaf = start.clone().requires_grad_()
    losses = training.loss(training.features @ leaf.T + training.bias, training.labels)
    (slope,) = torch.autograd.grad((even * losses).sum(), leaf)
    found = scores(
        training, Targets(test, test, GROUPS), solver="explicit", damping=damping, damping_unit="absolute"
    )
    for k in (0, 5, 11, 22):
        nudge = torch.zeros(23, dtype=torch.float64)
        nudge[k] = eps
        up, down = solve(even + nudge), solve(even - nudge)
        for g, group in enumerate(GROUPS):
            change = mean_d(training, test, up, group) - mean_d(training, test, down, group)
            # More weight on a harmful sample shrinks d.
            assert -change.item() / (2 * eps) == pytest.approx(found[g, k].item(), rel=2e-3, abs=1e-6)


def test_leave_one_out_retraining_agrees(toy_convex):
    """The other methods' correlations are in docs/influence.md: lower bounds here keep them true."""
    training, test, retrain = toy_convex
    targets = Targets.pairs(test, test, torch.tensor([[0, 1], [2, 3], [4, 5]]))
    found = scores(training, targets, solver="explicit", damping=0.05, damping_unit="absolute")
    others = {0.80: eif.scores(training, targets), 0.81: tracin.scores(training, targets)}
    for g, group in enumerate(targets.groups):
        base = mean_d(training, test, training.weight, group)
        change = [(mean_d(training, test, retrain(k), group) - base).item() for k in range(len(training))]
        # Leaving a harmful sample out raises d.
        assert spearmanr(found[g], change).statistic > 0.99
        for least, other in others.items():
            assert spearmanr(other[g], change).statistic > least - 0.01


def test_no_groups_and_bad_settings(toy):
    training, test = toy
    assert scores(training, Targets(test, test, ())).shape == (0, 23)
    with pytest.raises(UserError, match=r"influence.solver=foo is not known"):
        scores(training, Targets(test, test, GROUPS), solver="foo")


def test_what_is_not_solved_is_said(toy, capsys):
    training, test = toy
    targets, settings = Targets(test, test, GROUPS), {"damping": 30.0, "damping_unit": "absolute"}
    scores(training, targets, **settings)
    assert "warning" not in capsys.readouterr().err
    scores(training, targets, tolerance=1e-9, max_products=1, precondition=False, **settings)
    said = capsys.readouterr().err
    assert "3 of 3 explanations are not solved (tolerance 1e-09)" in said
    assert "influence.max_products" in said
    assert "not at all" not in said


def test_what_is_not_solved_at_all_is_said_to_have_scores_of_0(toy, capsys, monkeypatch):
    training, test = toy
    monkeypatch.setattr("deconfuse.influence.influence_function.hessian_of", lambda training: torch.neg)
    settings = {"damping": 0.5, "damping_unit": "absolute", "precondition": False}
    found = scores(training, Targets(test, test, GROUPS), **settings)
    assert found.shape == (3, 23)
    assert not found.any()
    assert "3 of them not at all, with scores of 0; raise influence.damping" in capsys.readouterr().err


def test_the_defaults_are_those_of_the_command_line():
    settings = in_yaml("influence/if")
    assert in_code(scores, settings) == settings
    assert in_code(scores, ["seed", "chunk"]) == {"seed": 0, "chunk": None}


def test_relative_damping_is_in_units_of_the_largest_eigenvalue(toy):
    training, test = toy

    def mean_loss(w):
        return training.loss(training.features @ w.T + training.bias, training.labels).mean()

    h = torch.autograd.functional.hessian(mean_loss, training.weight).reshape(55, 55)
    largest = torch.linalg.eigvalsh(h).abs().max().item()
    targets = Targets(test, test, GROUPS)
    found = scores(training, targets, solver="explicit", damping=2.0)
    want = scores(training, targets, solver="explicit", damping=2 * largest, damping_unit="absolute")
    # The eigenvalue is estimated to some digits.
    assert (found - want).abs().max() <= 1e-2 * want.abs().max()


def test_a_network_that_is_only_a_head_has_the_heads_scores(toy, capsys):
    training, test = toy
    network, targets = only_a_head(training, test, "all", size=23), Targets(test, test, GROUPS, -1.0)
    settings = {"damping": 100.0, "damping_unit": "absolute"}
    want = scores(training, targets, solver="explicit", **settings)
    assert "solved with explicit: largest relative residual" in capsys.readouterr().err
    found = scores(network, targets, tolerance=1e-11, **settings)
    said = capsys.readouterr().err
    assert float(said.rpartition("residual ")[2]) < 1e-10
    torch.testing.assert_close(found, want, rtol=1e-7, atol=1e-10 * want.abs().max().item())
    scores(network, targets, tolerance=1e-11, max_products=1, **settings)
    assert "3 of 3 explanations are not solved (tolerance 1e-11)" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"influence.solver=lissa works with params=head"):
        scores(network, targets, solver="lissa")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_products": 0}, "influence.max_products=0 is too small"),
        ({"batch": 0}, "influence.batch=0 is too small"),
        ({"tolerance": 0}, "influence.tolerance"),
        ({"solver": "lissa", "damping": -1}, "influence.damping"),
        ({"solver": "lissa", "scale": 0}, "influence.scale"),
    ],
)
def test_bad_settings_are_named(toy, settings, message):
    training, test = toy
    with pytest.raises(UserError, match=message):
        scores(training, Targets(test, test, GROUPS), **settings)


def test_what_lissa_has_not_solved_is_said_with_its_own_advice(toy, capsys):
    training, test = toy
    scores(training, Targets(test, test, GROUPS), solver="lissa", scale=1e4, damping=0.01)
    said = " ".join(capsys.readouterr().err.split())
    assert "3 of 3 explanations are not solved (tolerance 0.001)" in said
    assert "raise influence.damping, or use influence.solver=cg" in said
