"""PIL images become the tensors that a network is fed with, augmented in training."""

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode, v2

from deconfuse.data.pixels import as_mode
from deconfuse.data.split import ImageSpec, Part

BILINEAR = InterpolationMode.BILINEAR


def transforms(spec: ImageSpec, mean, std) -> tuple[v2.Transform, v2.Transform]:
    """(training, evaluation) transforms of a PIL image to a normalised float32 tensor (channels, size, size).

    drawing: squeezed into the square; in training moved, scaled, sheared and turned a little, never mirrored.
    photo: the middle of the resized photo; in training a random part of it, mirrored half of the time.
    none: squeezed into the square, in training too. mean, std: one number for each channel.
    """
    size = spec.size
    tensor = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    whole = [v2.Resize((size, size), BILINEAR)]
    larger = [
        v2.Resize(spec.resize or round(size * 8 / 7), BILINEAR),
        v2.CenterCrop(size),
    ]  # 8/7: 256 for 224
    if spec.augment == "drawing":
        moved = v2.RandomAffine(8, translate=(0.06, 0.06), scale=(0.9, 1.1), shear=6, interpolation=BILINEAR)
        return v2.Compose([*whole, moved, *tensor]), v2.Compose([*whole, *tensor])
    if spec.augment == "photo":
        crop = v2.RandomResizedCrop(size, scale=(0.2, 1.0), interpolation=BILINEAR)
        return v2.Compose([crop, v2.RandomHorizontalFlip(), *tensor]), v2.Compose([*larger, *tensor])
    return v2.Compose([*whole, *tensor]), v2.Compose([*whole, *tensor])


class ImageDataset(Dataset):
    """Images for a DataLoader: the key i, or (i, seed), gives (image, label, i).

    The seed alone determines the random numbers of the transform, so an augmented image does not depend on
    the state of a worker process or on other samples.
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


class RowDataset(Dataset):
    """Features for a DataLoader: the key i, or (i, seed), gives (row of features, label, i)."""

    def __init__(self, part: Part, labels: np.ndarray):
        self.part, self.labels = part, labels

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[torch.Tensor, int, int]:
        i = key[0] if isinstance(key, tuple) else key
        return torch.from_numpy(self.part.image(i)), int(self.labels[i]), i
