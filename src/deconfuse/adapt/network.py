"""A caller's model, split into the backbone, which stays as it is, and the linear head that is attributed."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from deconfuse.system.errors import UserError, did_you_mean

OUTPUTS = ("sentence_embedding", "embeddings", "image_embeds", "text_embeds", "pooler_output", "logits")
PARALLEL = 1e-4  # 1 - cos of an output and the head's, up to which one is the other at another length


class _Reached(Exception):
    """Carries the head's input out of the model, whose later layers are not run."""

    def __init__(self, features: Tensor):
        super().__init__()
        self.features = features


class _Stop(nn.Module):
    """Takes the head's place."""

    def forward(self, features: Tensor) -> Tensor:
        """Leave the model with the features."""
        raise _Reached(features)


class Backbone(nn.Module):
    """inputs -> phi (B, D): the model up to its head, or, without a head, its output.

    texts: the model reads texts; the inputs are then numbers of texts. last_block: parameter names.
    """

    def __init__(self, model: nn.Module, head: str | None, texts: list[str] | None):
        super().__init__()
        self.model, self.ends, self.texts = model, head is not None, texts
        self.num_features = 0
        self.last_block: list[str] | None = None
        if head is not None:
            self.last_block = [f"model.{name}" for name in _last_block(model, head)]
            parent, _, name = head.rpartition(".")
            setattr(model.get_submodule(parent), name, _Stop())

    def forward(self, inputs: Tensor) -> Float[Tensor, "B D"]:
        """The features before the head."""
        given = inputs if self.texts is None else [self.texts[i] for i in inputs.tolist()]
        if not self.ends:
            return output_of(self.model, given).float()
        try:
            run(self.model, given)
        except _Reached as reached:
            return reached.features.float()
        raise UserError("the model does not pass its head every time; name another layer as head=")


@dataclass(frozen=True)
class Opened:
    """A copy of the caller's model, in eval mode and on the CPU. head: its last linear layer, or None where
    the output is phi; device: where the caller's model is."""

    backbone: Backbone
    head: nn.Linear | None
    name: str
    device: torch.device


def opened(model: Any, batch: Any, head: str | nn.Module | None, texts: list[str] | None) -> Opened:
    """Find the head of a model by running one batch; the model itself is not changed.

    model: a module, or trunk and embedder as a tuple or a mapping (pytorch-metric-learning). head: the
    layer's name, or the layer; None: the last linear layer whose output is the model's output, up to its
    length. Raises UserError where there is no such layer, or where the model cannot read the batch.
    """
    whole = _one_module(model)
    name = _name_of(whole, head)
    device = next((each.device for each in whole.parameters()), torch.device("cpu"))
    own = copy.deepcopy(whole).cpu().float().eval().requires_grad_(False)
    given = batch if texts is None else [texts[i] for i in batch.tolist()]
    layers, output = _passed(own, given)
    if name is None:
        name = next((key for key, _, out in reversed(layers) if _is_output(out, output)), None)
    elif name not in {key for key, _, _ in layers}:
        raise UserError(
            f"head={name}: the model does not pass this layer once for each input; name another one"
        )
    found = None if name is None else own.get_submodule(name)
    if found is None:
        _check_rows(output, len(batch), "the model's output")
    else:
        (inputs,) = (given for key, given, _ in layers if key == name)
        _check_rows(inputs, len(batch), f"the input of head={name}")
    backbone = Backbone(own, name, texts)
    backbone.num_features = output.shape[1] if found is None else found.in_features
    return Opened(backbone, found, name or "output", device)


def _one_module(model: Any) -> nn.Module:
    if isinstance(model, Mapping) and {"trunk", "embedder"} <= model.keys():
        model = (model["trunk"], model["embedder"])
    if isinstance(model, (tuple, list)) and all(isinstance(part, nn.Module) for part in model):
        return nn.Sequential(*map(_bare, model))
    if not isinstance(model, nn.Module):
        raise UserError(
            f"model: a {type(model).__name__}; give a torch.nn.Module, a LightningModule, or (trunk, "
            "embedder)"
        )
    return _bare(model)


def _bare(model: nn.Module) -> nn.Module:
    """The module inside DataParallel or DistributedDataParallel, or before torch.compile."""
    wrapped = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    model = model.module if isinstance(model, wrapped) else model
    return getattr(model, "_orig_mod", model)


def _name_of(model: nn.Module, head: str | nn.Module | None) -> str | None:
    """The head's name; UserError, with the linear layers that there are, where it is none of them."""
    linear = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and name}
    if head is None:
        return None
    if isinstance(head, nn.Module):
        name = next((name for name, layer in linear.items() if layer is head), None)
        if name is None:
            raise UserError("head: this layer is no linear layer of the model; give one, or its name")
        return name
    if head not in linear:
        if not linear:
            raise UserError(
                f"head={head}: the model has no linear layer; leave head out, and its output is taken"
            )
        raise UserError(f"head={head} is no linear layer of the model; {did_you_mean(str(head), linear)}")
    return head


def run(model: nn.Module, given: Any) -> Any:
    """The model's answer to a batch of tensors, or of texts."""
    if not isinstance(given, list):
        return model(given)
    read = getattr(model, "preprocess", None) or getattr(model, "tokenize", None)  # sentence-transformers
    if read is not None:
        device = next(model.parameters()).device
        read = read(given).items()
        return model({key: value.to(device) if isinstance(value, Tensor) else value for key, value in read})
    return model(given)


def output_of(model: nn.Module, given: Any) -> Float[Tensor, "B m"]:
    """The embeddings in a model's answer: a tensor, the first of a tuple, or by their name."""
    found = run(model, given)
    if isinstance(found, (tuple, list)) and found:
        found = found[0]
    if isinstance(found, Mapping):
        found = next((found[key] for key in OUTPUTS if isinstance(found.get(key), Tensor)), found)
    if not isinstance(found, Tensor):
        raise UserError(
            f"the model returns a {type(found).__name__}; wrap it in a module that returns embeddings (B, m)"
        )
    return found


def _passed(model: nn.Module, given: Any) -> tuple[list[tuple[str, Tensor, Tensor]], Tensor]:
    """((name, input, output) of each linear layer that was passed once, in order; the model's output)."""
    layers: list[tuple[str, Tensor, Tensor]] = []

    def hook(name: str):
        return lambda layer, inputs, output: layers.append((name, inputs[0], output))

    hooks = [
        layer.register_forward_hook(hook(name))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and name
    ]
    try:
        with torch.no_grad():
            output = output_of(model, given)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"the model cannot read a batch of train: {reason}") from error
    finally:
        for each in hooks:
            each.remove()
    names = [name for name, _, _ in layers]
    return [layer for layer in layers if names.count(layer[0]) == 1], output


def _is_output(out: Tensor, output: Tensor) -> bool:
    """True where each row of one is the same row of the other, up to a positive factor."""
    if out.shape != output.shape or out.ndim != 2:
        return False
    cosine = F.cosine_similarity(out.double(), output.double(), dim=1)
    return bool((1 - cosine < PARALLEL).all())


def _check_rows(values: Tensor, n: int, what: str) -> None:
    if values.ndim != 2 or len(values) != n:
        raise UserError(
            f"{what} has shape {tuple(values.shape)} for {n} samples; it must be (samples, numbers)"
        )


def _last_block(model: nn.Module, head: str) -> list[str]:
    """The parameter names of the last block before the head: of the sibling before it that has any, and, step
    by step down through lists of layers, of that one's last; where no sibling has any, of those of its
    parent."""
    *parents, own = head.split(".")
    while True:
        prefix = "".join(f"{name}." for name in parents)
        before: list[tuple[str, nn.Module]] = []
        for name, child in model.get_submodule(".".join(parents)).named_children():
            if name == own:
                break
            before += [(f"{prefix}{name}", child)] if any(True for _ in child.parameters()) else []
        if before:
            break
        if not parents:
            return []
        *parents, own = parents
    name, block = before[-1]
    while isinstance(block, (nn.Sequential, nn.ModuleList)):
        inner = [each for each in block.named_children() if any(True for _ in each[1].parameters())]
        name, block = f"{name}.{inner[-1][0]}", inner[-1][1]
    return [f"{name}.{key}" for key, _ in block.named_parameters()]
