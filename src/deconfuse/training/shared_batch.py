"""One training batch in several processes: the same loss and the same step as in one.

Each process passes its share of the samples through the network. Losses are of the whole batch: embeddings
are joined, so that a loss may be no mean over samples and the shares may differ in length. Lightning averages
the gradients of w processes, so a process's are w times its own part of the slope. BatchNorm is of the whole
batch too (torch's SyncBatchNorm does the same, on GPUs only).
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
    """The whole batch's rows, in the order of the processes; see above for its slope."""
    return _Joined.apply(part) if distributed.world() > 1 else part


def whole_batch() -> AbstractContextManager:
    """Inside, BatchNorm in training has the mean and variance of the whole batch."""
    return WholeBatchNorm() if distributed.world() > 1 else nullcontext()


class WholeBatchNorm(TorchFunctionMode):
    """Takes the place of F.batch_norm, so that any module that calls it is meant and none is changed."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """As called, but for F.batch_norm in training."""
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

    Moves the running statistics, if there are any, as torch does: by the unbiased variance.
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
