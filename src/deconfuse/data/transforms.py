"""TODO"""

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode, v2

from deconfuse.data.pixels import as_mode
from deconfuse.data.split import ImageSpec, Part

BILINEAR = InterpolationMode.BILINEAR


def transforms(spec: ImageSpec, mean, std) -> tuple[v2.Transform, v2.Transform]:
    """(training, evaluation) transforms: PIL image -> normalised (channels, size, size) float32."""
    size = spec.size
    tensor = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    whole = [v2.Resize((size, size), BILINEAR)]
    larger = [v2.Resize(spec.resize or round(size * 8 / 7), BILINEAR), v2.CenterCrop(size)]  # 224 of 256
    if spec.augment == "drawing":  # strokes: move and turn a little, never mirror
        moved = v2.RandomAffine(8, translate=(0.06, 0.06), scale=(0.9, 1.1), shear=6, interpolation=BILINEAR)
        return v2.Compose([*whole, moved, *tensor]), v2.Compose([*whole, *tensor])
    if spec.augment == "photo":
        crop = v2.RandomResizedCrop(size, scale=(0.2, 1.0), interpolation=BILINEAR)
        return v2.Compose([crop, v2.RandomHorizontalFlip(), *tensor]), v2.Compose([*larger, *tensor])
    return v2.Compose([*whole, *tensor]), v2.Compose([*whole, *tensor])


class Images(Dataset):
    """Item i, or (i, seed) -> (image, label, i); the seed alone decides a random transform's draw.

    So what a sample looks like depends on no worker's state, and on no other sample.
    """

    def __init__(self, part: Part, labels: np.ndarray, transform: v2.Transform, channels: int):
        self.part, self.labels, self.transform = part, labels, transform
        self.mode = "L" if channels == 1 else "RGB"

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[torch.Tensor, int, int]:
        i, seed = key if isinstance(key, tuple) else (key, 0)
        image = as_mode(self.part.image(i), self.mode)
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            return self.transform(image), int(self.labels[i]), i


class Rows(Dataset):
    """Item i, or (i, seed) -> (row of features, label, i); nothing about it is random."""

    def __init__(self, part: Part, labels: np.ndarray):
        self.part, self.labels = part, labels

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[torch.Tensor, int, int]:
        i = key[0] if isinstance(key, tuple) else key
        return torch.from_numpy(self.part.image(i)), int(self.labels[i]), i
