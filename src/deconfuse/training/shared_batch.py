"""One training batch in several processes: the same loss and the same step as in one.

Each process passes its part of the samples through the network. The embeddings of all processes are joined,
and the loss is computed from the whole batch, so a loss need not be a mean over samples, and parts may differ
in length. Lightning averages the gradients of w processes; therefore each process multiplies its part of the
gradient by w. BatchNorm uses the whole batch too (torch's SyncBatchNorm does the same, on GPUs only).
"""

from contextlib import AbstractContextManager, nullcontext
from inspect import signature

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

from deconfuse.system import distributed

BATCH_NORM = signature(F.batch_norm)


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx, part: Tensor) -> Tensor:
        lengths = distributed.joined(torch.tensor([len(part)]))
        start = int(lengths[: distributed.rank()].sum())
        ctx.own = slice(start, start + len(part))
        return distributed.joined(part)

    @staticmethod
    def backward(ctx, slope: Tensor) -> Tensor:
        return distributed.world() * slope[ctx.own]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx, part: Tensor) -> Tensor:
        return distributed.total(part)

    @staticmethod
    def backward(ctx, slope: Tensor) -> Tensor:
        return distributed.total(slope)


def joined(part: Float[Tensor, "k m"]) -> Float[Tensor, "B m"]:
    """The rows of the whole batch, in the order of the processes; the gradient is as described above."""
    return _Joined.apply(part) if distributed.world() > 1 else part


def whole_batch() -> AbstractContextManager:
    """Inside, BatchNorm in training mode uses the mean and variance of the whole batch."""
    return WholeBatchNorm() if distributed.world() > 1 else nullcontext()


class WholeBatchNorm(TorchFunctionMode):
    """Replaces F.batch_norm, so that it applies to all modules that call it, and none is modified."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """Call the function, or `batch_norm` in place of F.batch_norm in training mode."""
        kwargs = kwargs or {}
        if function is F.batch_norm:
            call = BATCH_NORM.bind(*args, **kwargs)
            call.apply_defaults()
            if call.arguments.pop("training"):
                return batch_norm(**call.arguments)
        return function(*args, **kwargs)


def batch_norm(
    input: Float[Tensor, "k c *d"],
    running_mean: Float[Tensor, " c"] | None,
    running_var: Float[Tensor, " c"] | None,
    weight: Float[Tensor, " c"] | None,
    bias: Float[Tensor, " c"] | None,
    momentum: float,
    eps: float,
) -> Float[Tensor, "k c *d"]:
    """F.batch_norm in training: y = weight (x - mean) / sqrt(var + eps) + bias, over all processes' samples.

    Updates the running statistics, if there are any, with the unbiased variance, as torch does.
    """
    dims = [0, *range(2, input.ndim)]
    along = [1, -1, *[1] * (input.ndim - 2)]
    size = input[:, :1].numel()
    count = distributed.total(torch.tensor(float(size), dtype=torch.float64)).item()
    mean = _Total.apply(input.sum(dims)) / count
    centred = input - mean.view(along)
    var = _Total.apply(centred.square().sum(dims)) / count
    if running_mean is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_((var * count / max(count - 1, 1)).to(running_var), momentum)
    scale = (var + eps).rsqrt()
    result = centred * (scale if weight is None else scale * weight).view(along)
    return result if bias is None else result + bias.view(along)
