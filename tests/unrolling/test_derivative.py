import copy
import dataclasses

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
@pytest.mark.parametrize(
    ("loss", "optimizer"),
    [
        *(("proxynca", optimizer) for optimizer in OPTIMIZERS),
        *((loss, optimizer) for loss in LOSSES if loss != "proxynca" for optimizer in ("momentum", "adamw")),
    ],
)
def test_equals_whole_retrainings_with_other_weights(loss, optimizer, every_moves):
    descent, test = made(loss, optimizer, every_moves=every_moves)
    want = by_retraining(descent, test)
    assert want.abs().max() > 1e-4
    torch.testing.assert_close(found(descent, test), want, rtol=1e-4, atol=1e-6 * want.abs().max().item())


@pytest.mark.parametrize("every", [1, 2, 5, 11, 40])
def test_does_not_depend_on_which_states_are_kept(every):
    descent, test = made("softtriple3", "adamw")
    want = found(descent, test)
    other = descent_with(descent, every)
    torch.testing.assert_close(found(other, test), want, rtol=1e-12, atol=1e-14)


def descent_with(descent, every):
    """The same descent with states kept before every so many steps."""
    other = dataclasses.replace(descent)
    object.__setattr__(other, "__dict__", {**other.__dict__, "every": every})
    return other


def test_does_not_depend_on_how_many_values_go_back_side_by_side():
    descent, test = made("proxynca", "nesterov")
    kept, last = checkpoints(descent)
    given = slopes(descent, ends(descent, last), test)
    each = [
        weight_derivatives(descent, kept, {name: value[i : i + 1] for name, value in given.items()})
        for i in range(3)
    ]
    torch.testing.assert_close(
        torch.cat(each), weight_derivatives(descent, kept, given), rtol=1e-12, atol=1e-15
    )


def test_is_zero_for_samples_that_no_batch_has_and_for_no_others():
    descent, test = made("proxynca", "momentum", steps=9)
    drawn = torch.cat(descent.batches).unique()
    result = found(descent, test)
    never = torch.ones(N, dtype=torch.bool)
    never[drawn] = False
    assert 2 <= never.sum() < N
    assert (result[:, never] == 0).all()
    assert (result[:, ~never] != 0).all()


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_short_trainings(steps):
    descent, test = made("proxynca", "momentum", steps=steps)
    want = by_retraining(descent, test)
    torch.testing.assert_close(found(descent, test), want, rtol=1e-4, atol=1e-8)
    assert bool(want.abs().max() > 1e-6) == (steps > 0)


def test_a_tick_for_each_step():
    descent, test = made(steps=7)
    kept, last = checkpoints(descent)
    seen = []
    weight_derivatives(descent, kept, slopes(descent, ends(descent, last), test), lambda: seen.append(1))
    assert len(seen) == 7
    assert len(kept) == 3  # before steps 0, 3 and 6


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_float32_is_float64_to_rounding(optimizer):
    descent, test = made("softtriple", optimizer, steps=30)
    want = found(descent, test)
    single = dataclasses.replace(
        descent,
        features=descent.features.float(),
        weighted=type(descent.weighted)(copy.deepcopy(descent.weighted.loss).float(), False, True),
        start={name: value.float() for name, value in descent.start.items()},
    )
    result = found(single, test.float())
    assert result.dtype == torch.float64
    torch.testing.assert_close(result, want, rtol=0, atol=1e-4 * want.abs().max().item())
