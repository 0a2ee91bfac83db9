import torch

from deconfuse.attribution.curvature import gradient_z
from deconfuse.attribution.head import Training
from deconfuse.attribution.kronecker import _labels, fit


def test_values_are_the_fishers_diagonal_in_the_eigenbasis(toy):
    training, _ = toy
    factors = fit(training, seed=0)
    for q in (factors.inputs, factors.outputs):
        torch.testing.assert_close(q.T @ q, torch.eye(len(q), dtype=q.dtype), atol=1e-10, rtol=0)
    if training.loss.softmax() is None:  # the empirical Fisher: labels as given
        r = gradient_z(training, training.z)
        g = torch.einsum("nm,nd->nmd", r, training.features).flatten(1)
        fisher = g.T @ g / len(g)
        basis = torch.kron(factors.outputs, factors.inputs)
        torch.testing.assert_close((basis.T @ fisher @ basis).diagonal(), factors.values.flatten())


def test_it_is_exact_where_the_fisher_is_a_kronecker_product(toy):
    """With one phi for all samples F = E[r r^T] x phi phi^T, which the factors hold exactly."""
    training, _ = toy
    same = Training(
        training.features[:1].repeat(23, 1), training.labels, training.weight, training.bias, training.loss
    )
    factors = fit(same, seed=0)
    basis = torch.kron(factors.outputs, factors.inputs)
    fisher = basis @ torch.diag(factors.values.flatten()) @ basis.T
    inputs = same.features.T @ same.features / 23
    trace = torch.einsum("iaib->ab", fisher.view(5, 11, 5, 11))
    torch.testing.assert_close(trace / trace.diagonal().sum(), inputs / inputs.diagonal().sum())


def test_solve_and_norms_equal_the_dense_matrix(toy):
    training, _ = toy
    factors = fit(training, seed=0)
    basis = torch.kron(factors.outputs, factors.inputs)
    inverse = basis @ torch.diag(1 / (factors.values + 0.3).flatten()) @ basis.T
    v = torch.randn(2, 5, 11, dtype=torch.float64)
    torch.testing.assert_close(
        factors.solve(v, 0.3).flatten(1), v.flatten(1) @ inverse, rtol=1e-9, atol=1e-10
    )
    r = gradient_z(training, training.z)
    g = torch.einsum("nm,nd->nmd", r, training.features).flatten(1)
    found = factors.squared_norms(r, training.features, 0.3)
    torch.testing.assert_close(found, (g @ inverse).square().sum(1), rtol=1e-8, atol=1e-12)


def test_labels_are_drawn_from_the_losss_softmax(toy):
    training, _ = toy
    if training.loss.softmax() is None:
        assert torch.equal(_labels(training, 0), training.labels)
        return
    a, draws = training.loss.softmax()[0], 600
    z = training.z / training.z.norm(dim=1, keepdim=True)
    share = torch.softmax(a * z @ training.proxies.T, dim=1)
    drawn = torch.stack([_labels(training, seed) for seed in range(draws)])
    found = torch.stack([(drawn == c).double().mean(0) for c in range(4)], 1)
    deviation = (share * (1 - share) / draws).sqrt()
    assert ((found - share).abs() <= 5 * deviation + 2 / draws).all()
    assert torch.equal(_labels(training, 3), drawn[3])
