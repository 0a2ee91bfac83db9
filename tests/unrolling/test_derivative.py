import pytest
import torch

from deconfuse.unrolling.derivative import weight_derivatives
from deconfuse.unrolling.descent import checkpoints, ends, train
from tests.unrolling.made import LOSSES, OPTIMIZERS, N, distances, made, slopes


def found(descent, test):
    kept, last = checkpoints(descent)
    return weight_derivatives(descent, kept, slopes(descent, ends(descent, last), test))


def by_retraining(descent, test, step=1e-6):
    """dd/dw of all samples by central differences: 2 n whole trainings, side by side."""
    shift = step * torch.eye(N, dtype=torch.float64)
    up, down = (distances(train(descent, 1 + sign * shift), test) for sign in (1, -1))
    return ((up - down) / (2 * step)).T


@pytest.mark.parametrize("every_moves", [True, False], ids=["all", "head"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_equals_whole_retrainings_with_other_weights(loss, optimizer, every_moves):
    descent, test = made(loss, optimizer, every_moves=every_moves)
    want = by_retraining(descent, test)
    assert want.abs().max() > 1e-4
    torch.testing.assert_close(found(descent, test), want, rtol=1e-4, atol=1e-6 * want.abs().max().item())
