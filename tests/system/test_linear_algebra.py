from dataclasses import replace
from unittest.mock import patch

import pytest
import torch

from deconfuse.attribution import kronecker
from deconfuse.attribution.head import Targets
from deconfuse.attribution.solving import spectrum
from deconfuse.influence import eif, ekfac, influence_function
from deconfuse.report.projection import pca
from deconfuse.system.errors import UserError
from deconfuse.system.linear_algebra import factorise, shrunk_root


def test_what_works_is_what_torch_gives():
    matrix = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    assert factorise(torch.linalg.eigh, matrix, "a matrix", "").eigenvalues.tolist() == [2, 3]
    inverse = factorise(torch.linalg.inv, matrix, "a matrix", "")
    torch.testing.assert_close(inverse, torch.diag(torch.tensor([0.5, 1 / 3])))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("how", [torch.linalg.eigh, torch.linalg.qr, torch.linalg.inv, torch.linalg.cholesky])
def test_entries_that_are_not_finite_are_counted(how, bad):
    matrix = torch.eye(3)
    matrix[0, 1] = matrix[1, 0] = bad
    with pytest.raises(UserError, match=r"^the matrix: 2 of 9 entries are not finite, so \w+ is not"):
        factorise(how, matrix, "the matrix", "do this")


def test_a_routine_that_fails_is_one_line():
    with pytest.raises(UserError, match=r"^the matrix: inv failed \(.*singular.*\); do this$") as told:
        factorise(torch.linalg.inv, torch.zeros(3, 3), "the matrix", "do this")
    assert "\n" not in str(told.value)


def fails(matrix):
    raise torch.linalg.LinAlgError("linalg: The algorithm failed to converge\nbecause of this matrix")


def test_every_factorisation_goes_this_way(toy):
    """eigh of the two factors and of the map, eigvalsh of Lanczos, inv of H, qr of the sides."""
    training, test = toy
    targets = Targets.pairs(test, test, torch.tensor([[0, 1]]))
    calls = {
        "eigh": [
            (lambda: kronecker.fit(training), "second moments of the features: .*influence=eif or tracin"),
            (lambda: ekfac.scores(training, targets), "second moments of the features"),
            (lambda: pca(test), "the map of the embeddings: .*report=false"),
        ],
        "eigvalsh": [
            (lambda: spectrum(lambda v: v, training.weight), "eigenvalues by Lanczos: .*take influence=eif"),
            (lambda: influence_function.scores(training, targets), "eigenvalues by Lanczos"),
        ],
        "inv": [
            (
                lambda: influence_function.scores(
                    training, targets, solver=influence_function.Solver(kind="explicit")
                ),
                r"the damped Hessian: .*raise influence.damping \(lambda is .*influence.solver.kind=cg",
            )
        ],
        "qr": [(lambda: eif.scores(training, targets), "embeddings of the confused samples")],
    }
    for name, ways in calls.items():
        with patch.object(torch.linalg, name, fails):
            for way, told in ways:
                with pytest.raises(UserError, match=rf"{told}"):
                    way()


def test_features_that_overflow_are_told_and_not_decomposed(toy):
    training, _ = toy
    huge = replace(training, features=training.features * 1e200)
    with pytest.raises(UserError, match="second moments of the features: 121 of 121 entries are not finite"):
        kronecker.fit(huge)


def test_the_root_of_a_shrunk_spread_by_hand():
    spread = torch.tensor([[8.0, 0.0], [0.0, 0.0]], dtype=torch.float64)  # tr(S)/D = 4
    root = shrunk_root(spread, 0.25, 0.0, "S", "fix")
    torch.testing.assert_close(root, torch.diag(torch.tensor([3.0, 1.0], dtype=torch.float64)))
    assert torch.equal(shrunk_root(spread, 0.25, 4.0, "S", "fix"), torch.eye(2, dtype=torch.float64))
    with pytest.raises(UserError, match=r"^S: cholesky failed .*; fix$"):
        shrunk_root(torch.tensor([[9.0, 9.0], [9.0, 1.0]], dtype=torch.float64), 0.0, 0.0, "S", "fix")
