"""A device that is pretended: tensors that compute on the processor and say that they lie elsewhere.

Mixing them with tensors of the processor raises an error, as on a GPU, and each number that is read back is
counted. It is called meta, which torch can name without hardware; nothing here uses torch's own meta tensors.
"""

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}
# An index may lie on the processor; its rows are then copied to the device.
INDEXED = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default}


class There(torch.Tensor):
    """A tensor that says it lies on DEVICE; `held` computes for it."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
            requires_grad=False,
        )

    def __init__(self, held):
        self.held = held

    def __repr__(self):
        return f"There({self.held})"

    def numpy(self, *_, **__):
        raise TypeError("can't convert a tensor of the device to numpy; use .cpu() first")

    __array__ = numpy

    def tolist(self):
        return self.cpu().tolist()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


class Pretending(TorchDispatchMode):
    """While it is on, tensors can be made on DEVICE; reads: how often numbers were read back from it."""

    def __init__(self):
        super().__init__()
        self.reads = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in READS and any(isinstance(one, There) for one in tree_flatten(args)[0]):
            self.reads[str(func)] += 1
        return computed(func, args, kwargs or {})


def computed(func, args, kwargs):
    """The result of an operation, on the device of its tensors; RuntimeError if they lie on both."""
    given = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.Tensor)]
    there = any(isinstance(each, There) for each in given)
    wanted = kwargs.get("device")
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if func not in MOVES:
        checked = given[:1] if func in INDEXED else given
        here = [each for each in checked if not isinstance(each, There) and each.ndim > 0]
        if there and here:
            raise RuntimeError(f"{func}: tensors of two devices, one of them {tuple(here[0].shape)}")
    held = tree_map(lambda each: each.held if isinstance(each, There) else each, (args, kwargs))
    result = func(*held[0], **held[1])
    if func is torch.ops.aten.copy_.default:
        return args[0]
    on_device = there if wanted is None else torch.device(wanted).type == DEVICE.type
    if func is torch.ops.aten._to_copy.default and wanted is None:
        on_device = there
    if func._schema.is_mutable and not func._schema.name.endswith("_out"):
        changed = args[0] if isinstance(args[0], torch.Tensor) else None
        if changed is not None and isinstance(result, torch.Tensor) and result is held[0][0]:
            return changed
    if "out" in kwargs:
        return kwargs["out"]
    return tree_map(
        lambda each: There(each) if on_device and isinstance(each, torch.Tensor) else each, result
    )
