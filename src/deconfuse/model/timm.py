"""Any timm backbone by name, pooled and normalised as Proxy-NCA++ does (Teh et al., ECCV 2020).

Where it is not trained, average pooling and the square root of the features serve better (FROZEN).
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from jaxtyping import Float
from torch import Tensor, nn

from deconfuse.system.errors import UserError, at_least, did_you_mean, one_of
from deconfuse.system.files import file_hash
from deconfuse.system.progress import console
from deconfuse.training import weights as weights_file

TRAINED = {"pool": "max", "power": 1.0}  # what model.pool=auto and model.power=auto are
TINY = 1e-12  # added to |x|, as the derivative of a root is infinite at 0
FROZEN = {"pool": "avg", "power": 0.5}  # the same with recipe.frozen=true


class TimmBackbone(nn.Module):
    """timm's network without its classifier, global pooling, LayerNorm without parameters.

    images (B, in_channels, H, W) -> features (B, D), D from timm.
    weights: imagenet (timm's pretrained ones, downloaded from the hub), none, or a .pth, .pt or .safetensors
    file with weights of this network; the input is normalised as for timm's pretrained weights.
    power: a feature x becomes sign(x) |x|^power before the LayerNorm; 0.5 keeps a few large features from
    deciding every comparison (Perronnin et al., ECCV 2010, "Improving the Fisher kernel").
    fingerprint: SHA-256 of that file, "" without one; a checkpoint depends on it.
    Raises UserError for an unknown name, or weights that cannot be downloaded or read.
    """

    def __init__(
        self,
        name: str,
        in_channels: int = 3,
        weights: str = "imagenet",
        pool: str = "max",
        power: float = 1.0,
    ):
        super().__init__()
        self.power = at_least("model.power", power, 0.01)
        from_file = weights_file.is_file_name(weights)
        if not from_file:
            files = [f"FILE{suffix}" for suffix in weights_file.SUFFIXES]
            one_of("model.weights", weights, ("imagenet", "none", *files))
        if not timm.is_model(name):
            raise UserError(f"model.name={name} is no timm model; {did_you_mean(name, _similar(name))}")
        if weights == "imagenet":
            logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
            console.print(f"loading the ImageNet weights of {name} (from the hub, the first time)")
        try:
            self.network = timm.create_model(
                name,
                pretrained=weights == "imagenet",
                num_classes=0,
                in_chans=in_channels,
                global_pool=pool,
            )
        except (OSError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0][:120]
            raise UserError(
                f"model.name={name}: timm could not fetch the ImageNet weights ({reason}); "
                "connect to the network once, give a file with model.weights=FILE.pth, take "
                "model=efficientnet_lite0, or train from scratch with model.weights=none"
            ) from None
        # Some networks (MobileNetV3, VGG) have another layer behind num_features.
        self.num_features = getattr(self.network, "head_hidden_size", None) or self.network.num_features
        self.norm = nn.LayerNorm(self.num_features, elementwise_affine=False)
        data = timm.data.resolve_model_data_config(self.network)
        self.mean, self.std = data["mean"][:in_channels], data["std"][:in_channels]
        self.fingerprint = ""
        if from_file:
            file = Path(weights).expanduser()
            self.start_from(weights_file.read(file), file, in_channels)

    def start_from(self, tensors: dict[str, Tensor], file: Path, in_channels: int) -> None:
        """Load the tensors that were read from a file; UserError if they do not fit the network."""
        self.network.load_state_dict(weights_file.fit(tensors, self.network, in_channels, file))
        self.fingerprint = file_hash(file)

    @property
    def last_block(self) -> list[str]:
        """Names of the parameters of the last block and of all that is defined after it.

        The last block is found from the top. Among a network's children it is the last list (plain
        nn.Sequential or nn.ModuleList) that has a weight matrix or kernel and at least a hundredth of the
        network's parameters, or, without such a list, the last child with a matrix. Among a list's elements
        it is the last one with a matrix. The search continues inside it as long as it is a list, or a stage
        with a list named `blocks`.
        resnet18: layer4.1. vit_tiny_patch16_224: blocks.11 and norm. Parameters that belong to no child
        (class token, position embedding) and parameters shared with an earlier block are not included.
        """
        last = set(_last_block(self.network, "network."))
        return [name for name, _ in self.named_parameters() if name in last]

    def extra_repr(self) -> str:
        """What the printed structure does not show."""
        return f"power={self.power:g}"

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        """Features before the linear head; UserError if the network takes only another image size."""
        try:
            features = self.network(images)
        except AssertionError as error:
            size = self.network.pretrained_cfg["input_size"][-1]
            raise UserError(
                f"model.name={self.network.pretrained_cfg['architecture']}: "
                f"{str(error).splitlines()[0].rstrip('.')}; set dataset.image_size={size}"
            ) from None
        if self.power != 1:
            features = features.sign() * (features.abs() + TINY).pow(self.power)
        return self.norm(features)


def meant(settings: Mapping[str, Any], frozen: bool) -> dict[str, Any]:
    """The values of the keys that are auto, by whether the backbone is trained."""
    values = FROZEN if frozen else TRAINED
    return {key: value for key, value in values.items() if settings.get(key) == "auto"}


def _last_block(module: nn.Module, prefix: str) -> list[str]:
    """The names of the parameters in a module's last block and after it, with the prefix."""
    children = [(name, child) for name, child in module.named_children() if list(child.parameters())]
    heavy = [i for i, (_, child) in enumerate(children) if any(p.ndim > 1 for p in child.parameters())]
    lists = [i for i in heavy if _is_list(children[i][1]) and 100 * _numel(children[i][1]) >= _numel(module)]
    start = heavy[-1] if _is_list(module) or not lists else lists[-1]
    name, block = children[start]
    if _is_list(block) or _is_list(getattr(block, "blocks", None)):
        names = _last_block(block, f"{prefix}{name}.")
    else:
        names = [f"{prefix}{name}.{own}" for own, _ in block.named_parameters()]
    return names + [f"{prefix}{n}.{own}" for n, c in children[start + 1 :] for own, _ in c.named_parameters()]


def _numel(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _is_list(module: nn.Module | None) -> bool:
    return type(module) in (nn.Sequential, nn.ModuleList)


def _similar(name: str) -> list[str]:
    """Up to 30 timm names with the first four letters of the given one."""
    start = name[:4].lower()
    return [model for model in timm.list_models() if model.startswith(start)][:30] or ["resnet50", "resnet18"]
