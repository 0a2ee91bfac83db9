import inspect
from dataclasses import asdict

import pytest
import torch
from scipy.stats import spearmanr

from deconfuse.attribution.curvature import hessian_of
from deconfuse.attribution.head import Targets
from deconfuse.attribution.kronecker import fit
from deconfuse.attribution.solving import spectrum
from deconfuse.influence import eif, influence_function, tracin
from deconfuse.influence.influence_function import Solver, scores
from deconfuse.retrieval.confusion import distance
from deconfuse.system.errors import UserError
from tests.chunk_sizes import asked
from tests.damping import share_of_largest
from tests.defaults import in_code, in_yaml
from tests.influence.test_eif import GROUPS
from tests.minimise import minimise
from tests.networks import only_a_head

EXPLICIT = Solver(kind="explicit")


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
    damping = share_of_largest(training, 30.0)
    found = scores(training, Targets(test, test, GROUPS), solver=EXPLICIT, damping=damping)
    torch.testing.assert_close(found, slow(training, test, 30.0), rtol=1e-8, atol=1e-10)


def test_cg_equals_explicit_in_chunks_of_any_size(toy, monkeypatch):
    training, test = toy
    targets, damping = Targets(test, test, GROUPS), share_of_largest(training, 30.0)
    exact = scores(training, targets, solver=EXPLICIT, damping=damping)
    for budget in (1, 12_000, 2**28):  # one, two and all three right sides at a time
        monkeypatch.setattr(influence_function, "BLOCK_BYTES", budget)
        found = scores(training, targets, solver=Solver(tolerance=1e-12), damping=damping)
        assert (found - exact).abs().max() <= 1e-8 * exact.abs().max()


def test_cg_has_the_inverse_of_the_damped_fisher_matrix_as_its_preconditioner(toy, monkeypatch):
    training, test = toy
    seen = []

    def conjugate_gradient(product, v, tolerance, most, precondition):
        seen.append((v, precondition(v)))
        return torch.zeros_like(v)

    monkeypatch.setattr(influence_function, "conjugate_gradient", conjugate_gradient)
    scores(training, Targets(test, test, GROUPS), damping=share_of_largest(training, 30.0), seed=4)
    ((v, found),) = seen
    factors = fit(training, seed=4)
    basis = torch.kron(factors.outputs, factors.inputs)
    # seed=4 estimates H's largest eigenvalue, and so lambda, with another first vector.
    value = 30 * spectrum(hessian_of(training), training.weight, seed=4).largest
    value /= spectrum(hessian_of(training), training.weight, seed=0).largest
    dense = basis @ torch.diag(1 / (factors.values.flatten() + value)) @ basis.T
    torch.testing.assert_close(found.flatten(1), v.flatten(1) @ dense, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("damping", "helped"), [(0.0, False), (1e-6, True)])
def test_cg_has_a_preconditioner_wherever_there_is_damping(toy, monkeypatch, damping, helped):
    """Without damping the Fisher matrix may be singular, and has no inverse."""
    training, test = toy
    seen = []

    def conjugate_gradient(product, v, tolerance, most, precondition):
        seen.append(precondition is not None)
        return torch.zeros_like(v)

    monkeypatch.setattr(influence_function, "conjugate_gradient", conjugate_gradient)
    scores(training, Targets(test, test, GROUPS), damping=damping)
    assert seen == [helped]


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
        training,
        Targets(test, test, GROUPS),
        solver=EXPLICIT,
        damping=share_of_largest(training, damping),
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
    found = scores(training, targets, solver=EXPLICIT, damping=share_of_largest(training, 0.05))
    others = {0.80: eif.scores(training, targets), 0.81: tracin.scores(training, targets)}
    for g, group in enumerate(targets.groups):
        base = mean_d(training, test, training.weight, group)
        change = [(mean_d(training, test, retrain(k), group) - base).item() for k in range(len(training))]
        # Leaving a harmful sample out raises d.
        assert spearmanr(found[g], change).statistic > 0.99
        for least, other in others.items():
            assert spearmanr(other[g], change).statistic > least - 0.01


def test_no_groups_have_no_scores(toy):
    training, test = toy
    assert scores(training, Targets(test, test, ())).shape == (0, 23)


def test_what_is_not_solved_is_said(toy, capsys):
    training, test = toy
    targets, damping = Targets(test, test, GROUPS), share_of_largest(training, 30.0)
    scores(training, targets, damping=damping)
    assert "warning" not in capsys.readouterr().err
    scores(training, targets, solver=Solver(tolerance=1e-9, max_products=1), damping=damping)
    said = capsys.readouterr().err
    assert "3 of 3 explanations are not solved (tolerance 1e-09)" in said
    assert "raise influence.damping or influence.solver.max_products" in " ".join(said.split())
    assert "not at all" not in said


def test_what_is_not_solved_at_all_is_said_to_have_scores_of_0(toy, capsys, monkeypatch):
    training, test = toy
    monkeypatch.setattr(influence_function, "hessian_of", lambda training: torch.neg)
    found = scores(training, Targets(test, test, GROUPS), damping=0.5)
    assert found.shape == (3, 23)
    assert not found.any()
    said = " ".join(capsys.readouterr().err.split())
    assert "3 of them not at all, with scores of 0; raise influence.damping" in said


def test_the_defaults_are_those_of_the_command_line():
    settings = in_yaml("influence/if")
    solver = {key: value for key, value in settings.pop("solver").items() if key != "_target_"}
    assert in_code(scores, settings) == settings
    assert asdict(Solver()) == solver
    assert in_code(scores, ["solver", "seed"]) == {"solver": Solver(), "seed": 0}


def test_damping_is_in_units_of_the_largest_eigenvalue(toy):
    training, test = toy

    def mean_loss(w):
        return training.loss(training.features @ w.T + training.bias, training.labels).mean()

    h = torch.autograd.functional.hessian(mean_loss, training.weight).reshape(55, 55)
    largest = torch.linalg.eigvalsh(h).abs().max().item()
    found = scores(training, Targets(test, test, GROUPS), solver=EXPLICIT, damping=2.0)
    want = slow(training, test, 2 * largest)
    # The eigenvalue is estimated to some digits.
    assert (found - want).abs().max() <= 1e-2 * want.abs().max()


def test_a_network_that_is_only_a_head_has_the_heads_scores(toy, capsys):
    training, test = toy
    network, targets = only_a_head(training, test, "all", size=23), Targets(test, test, GROUPS, -1.0)
    want = scores(training, targets, solver=EXPLICIT, damping=share_of_largest(training, 100.0))
    assert "solved with explicit: largest relative residual" in capsys.readouterr().err
    damping = share_of_largest(network, 100.0)
    found = scores(network, targets, solver=Solver(tolerance=1e-11), damping=damping)
    said = capsys.readouterr().err
    assert float(said.rpartition("residual ")[2]) < 1e-10
    torch.testing.assert_close(found, want, rtol=1e-7, atol=1e-10 * want.abs().max().item())
    scores(network, targets, solver=Solver(tolerance=1e-11, max_products=1), damping=damping)
    assert "3 of 3 explanations are not solved (tolerance 1e-11)" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"influence.solver.kind=explicit works with params=head"):
        scores(network, targets, solver=EXPLICIT)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "foo"}, "influence.solver.kind=foo is not known"),
        ({"kind": "lissa"}, "influence.solver.kind=lissa is not known"),
        ({"max_products": 0}, "influence.solver.max_products=0 is too small"),
        ({"tolerance": 0}, "influence.solver.tolerance=0 is too small; give 1e-12 or more"),
        ({"tolerance": 9e-13}, "influence.solver.tolerance=9e-13 is too small"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(UserError, match=f"^{message}"):
        Solver(**settings)


def test_the_least_values_are_allowed():
    assert Solver(tolerance=1e-12, max_products=1).tolerance == 1e-12


def test_a_solver_that_is_a_word_and_no_group_is_named(toy):
    training, test = toy
    with pytest.raises(UserError, match=r"influence.solver=cg is not a group of keys; give .*kind=cg"):
        inspect.unwrap(scores)(training, Targets(test, test, GROUPS), solver="cg")


@pytest.mark.parametrize(("budget", "size"), [(3 * 5400, 3), (3 * 5400 - 1, 2), (5400 - 1, 1)])
def test_as_many_groups_are_solved_at_a_time_as_memory_allows(toy, budget, size):
    """A group takes six times W, 440 bytes here, and three times 23 samples with 5 axes in float64."""
    assert asked(influence_function, toy, GROUPS, budget) == [size]
