"""The derivative of values after a training in each sample's weight, by reverse mode through all its steps.

With s_t the state before step t and s_{t+1} = F_t(s_t, w), the adjoint a_t = dv/ds_t of a value v of the last
state obeys

    a_t = (dF_t/ds)^T a_{t+1},        dv/dw = sum_t (dF_t/dw)^T a_{t+1}

(Franceschi et al., ICML 2017, section 3.1), and where the start is computed from the samples dv/dw has
(ds_0/dw)^T a_0 beside it. The optimizer's part of F_t is elementwise (`optimizers`), the gradient's part a
product with the batch's Hessian (`batch_loss.linearised`). States are needed in reverse order: those before
every sqrt(T)-th step are kept, and each segment between two of them is replayed. K adjoints go back side by
side.

W_0 acts as the start and as what the loss draws W to. Both together shift all W_t by the same, so that the
adjoint of W_0 is that of such a shift: the sum of what flows back into W_t from the batches and the decay.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from deconfuse.unrolling.batch_loss import Parameters, linearised
from deconfuse.unrolling.descent import Descent, States, of_loss


def weight_derivatives(
    descent: Descent, kept: list[States], last: Parameters, tick: Callable[[], None] = lambda: None
) -> Float[Tensor, "K n"]:
    """dv/dw_k of K values v for every training sample, float64.

    kept: the states before every `descent.every`-th step; last: the gradient of each value in every
    parameter that moves, after the last step, (K, ...). tick: is called after each step.
    """
    count = len(next(iter(last.values())))
    like = descent.start["weight"]
    result = torch.zeros(count, len(descent.labels), dtype=torch.float64, device=like.device)
    adjoints = {
        name: (last[name].clone(), *(torch.zeros_like(last[name]) for _ in state[1:]))
        for name, state in (descent.begin() if not kept else kept[0]).items()
    }
    shift = last["weight"].clone() if descent.begun else None
    _forget(descent, len(descent), adjoints)
    for t, before in _backwards(descent, kept):
        _back(descent, t, before, adjoints, result, shift)
        _forget(descent, t, adjoints)
        tick()
    if descent.begun:
        at_start = {name: each[0] for name, each in adjoints.items()} | {"weight": shift}
        result += descent.begun.weight_derivatives(at_start).to(result)
    return result


def _forget(descent: Descent, t: int, adjoints: States) -> None:
    """Set to 0, in place, the adjoints of W's columns whose feature is 0 in all batches before step t.

    No sample's weight acts through them any more. Their adjoints may grow without bound: where all gradients
    so far are 0, a step of Adam turns a small gradient into one of rate / eps times its size.
    """
    if "weight" in adjoints and len(descent):
        columns = (descent.first_seen < t).to(adjoints["weight"][0])
        for each in adjoints["weight"]:
            each.mul_(columns)


def _backwards(descent: Descent, kept: list[States]) -> Iterator[tuple[int, States]]:
    """(t, the states before step t) from the last step to the first."""
    weights = descent.ones()
    for i in reversed(range(len(kept))):
        first, segment = i * descent.every, [kept[i]]
        for t in range(first, min(first + descent.every, len(descent)) - 1):
            segment.append(descent.step(t, segment[-1], weights))
        for t in reversed(range(first, first + len(segment))):
            yield t, segment.pop()


def _back(
    descent: Descent,
    t: int,
    before: States,
    adjoints: States,
    result: Float[Tensor, "K n"],
    shift: Float[Tensor, "K m D"] | None,
) -> None:
    """The adjoints before step t from those after it, and the step's part of the result and of the adjoint of
    a shift of all W_t, in place."""
    rows, phi, labels = descent.batch(t)
    point = descent.point(before)
    z = descent.embeddings(point, phi)
    own = {name: value[0] for name, value in of_loss(point).items()}
    slopes, times = linearised(descent.weighted, labels, z[0], own)
    theirs = {name: value[None] for name, value in slopes.moving.items()}
    gradients = descent.gradients(point, phi, slopes.z[None], theirs)
    decays = shift is not None and getattr(descent.optimizers["weight"], "decay", 0.0)
    if decays:
        shift.sub_(adjoints["weight"][0])
    along = {
        name: optimizer.back(before[name], gradients[name], descent.factors[t], t + 1, adjoints[name])
        for name, optimizer in descent.optimizers.items()
    }
    if decays:
        shift.add_(adjoints["weight"][0])
    found = times(_along_z(along, phi, z), of_loss(along))
    parts = descent.spread(along, phi, found.z, found.moving)
    if shift is not None:
        shift.add_(parts["weight"]).add_(along["weight"], alpha=-2 * descent.pull)
    for name, optimizer in descent.optimizers.items():
        optimizer.receive(adjoints[name], parts[name])
    result.index_add_(1, rows, found.weights.to(result))


def _along_z(
    along: Parameters, phi: Float[Tensor, "B D"], z: Float[Tensor, "1 B m"]
) -> Float[Tensor, "K B m"]:
    """The directions of the parameters W and b as directions of the batch's z."""
    count = len(next(iter(along.values())))
    s = z.new_zeros(count, *z.shape[1:])
    if "weight" in along:
        m = along["weight"].shape[1]
        s = (phi @ along["weight"].flatten(0, 1).T).view(len(phi), count, m).transpose(0, 1)
    return s + along["bias"][:, None] if "bias" in along else s
