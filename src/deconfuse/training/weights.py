"""Read a file of trained weights as tensors with the names and shapes of a timm network."""

import sys
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from deconfuse.system.errors import UserError, shorten

PICKLED = (".pth", ".pt")
SUFFIXES = (*PICKLED, ".safetensors")
# Prefixes that training scripts put before every name, beyond those that timm removes.
PREFIXES = ("model.", "module.", "backbone.", "network.")
# Prefixes of the weights of classifiers, which a backbone does not have.
CLASSIFIERS = ("fc.", "classifier.", "head.fc.")


def is_file_name(word: object) -> bool:
    """True if a word ends like a file of weights; timm knows .safetensors only in lower case."""
    suffix = Path(str(word)).suffix
    return suffix in SUFFIXES or suffix.lower() in PICKLED


def read(path: Path) -> dict[str, Tensor]:
    """The state dict of a file, plain or under `state_dict`, `model` or their averaged (EMA) twins.

    Only tensors and plain values are unpickled. Raises UserError if the file is missing, damaged, or no
    state dict.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file of weights; give model.weights=FILE, imagenet or none")
    try:
        tensors = timm.models.load_state_dict(str(path), weights_only=True)
    except Exception as error:  # torch, zip, pickle and safetensors each have their own
        raise _unreadable(path, error) from None
    others = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
    if others or not tensors:
        found = f"{shorten(others, 3)} is no tensor" if others else "it is empty"
        raise UserError(
            f"{path}: not a state dict ({found}); save one with torch.save(network.state_dict(), FILE)"
        )
    return tensors


def _unreadable(path: Path, error: Exception) -> UserError:
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # the file is damaged
        foreign = []
    if foreign:
        return UserError(
            f"{path}: holds Python objects ({shorten(foreign, 3)}), which are not loaded as they could run "
            "code; save the tensors alone with torch.save(network.state_dict(), FILE)"
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].split(". ")[0][:120]
    if reason.startswith("weights_only"):  # timm's message for a file that is no archive
        reason = "it does not begin as PyTorch's files do"
    return UserError(f"{path}: not a whole file of weights ({reason}); fetch or save it again")


def fit(tensors: dict[str, Tensor], network: nn.Module, in_channels: int, file: Path) -> dict[str, Tensor]:
    """The tensors as the network's state dict: timm's names, its input channels, no classifier.

    If in_channels is not 3, the weights of the first convolution are summed or repeated as timm does it for
    its own weights. Raises UserError naming the first tensors that are missing, unused or of another shape.
    """
    own = network.state_dict()
    tensors = _with_input_channels(_in_timm_names(tensors, network, file), network, in_channels)
    tensors = {name: tensor for name, tensor in tensors.items() if name in own or not _of_classifier(name)}
    wrong = [
        f"{name} is {_size(tensor)} in the file, {_size(own[name])} in the network"
        for name, tensor in tensors.items()
        if name in own and tensor.shape != own[name].shape
    ]
    # Files older than PyTorch 0.4.1 lack this count of batches, which nothing here reads.
    missing = [name for name in own if name not in tensors and not name.endswith("num_batches_tracked")]
    wrong += [f"{name} {_size(own[name])} is not in the file" for name in missing]
    wrong += [f"{name} {_size(tensors[name])} is not in the network" for name in tensors if name not in own]
    if wrong:
        raise UserError(
            f"{file}: not the weights of {network.pretrained_cfg['architecture']}: {shorten(wrong, 3)}; "
            "give the file that belongs to model.name"
        )
    return {name: tensors.get(name, tensor) for name, tensor in own.items()}


def _in_timm_names(tensors: dict[str, Tensor], network: nn.Module, file: Path) -> dict[str, Tensor]:
    """The tensors without prefixes, under timm's names if timm can translate them."""
    own = network.state_dict().keys()
    while tensors and not own & tensors.keys():
        prefix = next((word for word in PREFIXES if all(name.startswith(word) for name in tensors)), None)
        if prefix is None:
            break
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    translate = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    try:
        return translate(tensors, network) if translate else tensors
    except Exception as error:  # timm's translators fail each in their own way on another network's file
        architecture = network.pretrained_cfg["architecture"]
        raise UserError(
            f"{file}: not the weights of {architecture} (timm's translation of its names failed: "
            f"{type(error).__name__} {str(error).splitlines()[0] if str(error) else ''}); "
            "give the file that belongs to model.name"
        ) from None


def _with_input_channels(
    tensors: dict[str, Tensor], network: nn.Module, in_channels: int
) -> dict[str, Tensor]:
    """A copy whose first convolutions take in_channels channels instead of 3, if timm can convert them."""
    own, adapted = network.state_dict(), dict(tensors)
    stems = network.pretrained_cfg.get("first_conv") or ()
    for stem in (stems,) if isinstance(stems, str) else stems:
        name = f"{stem}.weight"
        if name in own and name in tensors and tensors[name].shape != own[name].shape and in_channels != 3:
            try:
                adapted[name] = timm.models.adapt_input_conv(in_channels, tensors[name])
            except (NotImplementedError, AssertionError):
                continue  # `fit` reports the shapes
    return adapted


def _of_classifier(name: str) -> bool:
    return name.startswith(CLASSIFIERS) or name in ("head.weight", "head.bias")


def _size(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
