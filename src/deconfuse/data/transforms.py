"""PIL images become the tensors that a network is fed with, augmented in training."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode, v2

from deconfuse.data.pixels import as_mode
from deconfuse.data.split import ImageSpec, Part

BILINEAR = InterpolationMode.BILINEAR
# How much a drawing is moved: degrees, share of the side, factors, degrees.
TURN, SHIFT, SCALE, SHEAR = 8.0, 0.06, (0.9, 1.1), 6.0

Key = int | tuple[int, int]  # a sample, or a sample and the seed of its augmentation


@dataclass(frozen=True)
class Transform:
    """An image to a normalised float32 tensor (channels, size, size): `shape` alone draws random numbers.

    shape: an image to an image of the size that the network is fed with, by torch's default generator.
    numbers: images (B, channels, size, size) of 8 bits to normalised float32, a batch at a time.
    """

    shape: Callable[[Image.Image], Image.Image]
    numbers: Callable[[Tensor], Tensor]

    def __call__(self, image: Image.Image) -> Float[Tensor, "C H W"]:
        """One image alone."""
        return self.numbers(batched([self.shape(image)]))[0]


def batched(images: Sequence[Image.Image]) -> Tensor:
    """Images of one size and mode, L or RGB, as one tensor (B, channels, H, W) of 8 bits."""
    values = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return values[:, None] if values.ndim == 3 else values.permute(0, 3, 1, 2).contiguous()


def transforms(spec: ImageSpec, mean, std) -> tuple[Transform, Transform]:
    """(training, evaluation) transforms of a PIL image to a normalised float32 tensor (channels, size, size).

    drawing: squeezed into the square; in training moved, scaled, sheared and turned a little, never mirrored.
    photo: the middle of the resized photo; in training a random part of it, mirrored half of the time.
    none: squeezed into the square, in training too. mean, std: one number for each channel.
    """
    size = spec.size
    numbers = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
    whole = partial(squeezed, side=size)
    if spec.augment == "drawing":
        return Transform(partial(moved, side=size), numbers), Transform(whole, numbers)
    if spec.augment == "photo":
        crop = v2.RandomResizedCrop(size, scale=(0.2, 1.0), interpolation=BILINEAR)
        larger = v2.Resize(spec.resize or round(size * 8 / 7), BILINEAR)  # 8/7: 256 for 224
        middle = v2.Compose([larger, v2.CenterCrop(size)])
        return Transform(v2.Compose([crop, v2.RandomHorizontalFlip()]), numbers), Transform(middle, numbers)
    return Transform(whole, numbers), Transform(whole, numbers)


def squeezed(image: Image.Image, side: int) -> Image.Image:
    """The image as a square, whatever its proportions are."""
    return image if image.size == (side, side) else v2.functional.resize(image, [side, side], BILINEAR)


def moved(image: Image.Image, side: int) -> Image.Image:
    """A squeezed drawing, turned, shifted, scaled and sheared at random about its middle, on black.

    The pixels and the random numbers are those of torchvision's v2.RandomAffine, which takes several times
    as long for a small image.
    """
    draw = torch.empty(1)

    def uniform(low: float, high: float) -> float:
        return draw.uniform_(low, high).item()

    turn = math.radians(uniform(-TURN, TURN))
    shift = round(uniform(-SHIFT * side, SHIFT * side)), round(uniform(-SHIFT * side, SHIFT * side))
    scale, shear = uniform(*SCALE), math.radians(uniform(-SHEAR, SHEAR))
    matrix = pulled_back(side / 2, turn, shift, scale, shear)
    affine, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    return squeezed(image, side).transform((side, side), affine, matrix, bilinear)


def pulled_back(
    middle: float, turn: float, shift: tuple[int, int], scale: float, shear: float
) -> tuple[float, ...]:
    """(a, b, c, d, e, f): the pixel (x, y) of the result is the pixel (a x + b y + c, d x + e y + f) of the
    image, which is moved by  p -> m + shift + scale R(turn) [[1, -tan shear], [0, 1]] (p - m).

    m = (middle, middle) and shift: pixels; turn, shear: radians; R(t): a turn by the angle t.
    """
    across, down = math.cos(turn), math.sin(turn)
    d, b = (-down * math.tan(shear) + across) / scale, (across * math.tan(shear) + down) / scale
    c, a = -down / scale, across / scale
    x, y = middle + shift[0], middle + shift[1]
    return (
        d,
        b,
        middle - d * x - b * y,
        c,
        a,
        middle - c * x - a * y,
    )  # in the order of torchvision's rounding


class ImageDataset(Dataset):
    """Images for a DataLoader: the key i, or (i, seed), gives (image, label, i).

    The seed alone determines the random numbers of the transform, so an augmented image does not depend on
    the state of a worker process or on other samples.
    """

    def __init__(self, part: Part, labels: np.ndarray, transform: Transform, channels: int):
        self.part, self.labels, self.transform = part, labels, transform
        self.mode = "L" if channels == 1 else "RGB"

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, key: Key) -> tuple[Tensor, int, int]:
        images, labels, rows = self.__getitems__([key])
        return images[0], int(labels), int(rows)

    def __getitems__(self, keys: Sequence[Key]) -> list[Tensor]:
        """A batch (images, labels, rows), which a DataLoader asks for as a whole; [] of no keys."""
        if not keys:
            return []
        pairs = [key if isinstance(key, tuple) else (key, 0) for key in keys]
        with torch.random.fork_rng(devices=[]):
            images = [self._shaped(*pair) for pair in pairs]
        return [self.transform.numbers(batched(images)), *_labelled(self.labels, [i for i, _ in pairs])]

    def _shaped(self, i: int, seed: int) -> Image.Image:
        image = as_mode(self.part.image(i), self.mode)
        torch.random.default_generator.manual_seed(seed)
        return self.transform.shape(image)


class RowDataset(Dataset):
    """Features for a DataLoader: the key i, or (i, seed), gives (row of features, label, i)."""

    def __init__(self, part: Part, labels: np.ndarray):
        self.part, self.labels = part, labels

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, key: Key) -> tuple[Tensor, int, int]:
        rows, labels, numbers = self.__getitems__([key])
        return rows[0], int(labels), int(numbers)

    def __getitems__(self, keys: Sequence[Key]) -> list[Tensor]:
        """A batch (rows of features, labels, rows), which a DataLoader asks for as a whole; [] of no keys."""
        if not keys:
            return []
        rows = [key[0] if isinstance(key, tuple) else key for key in keys]
        features = np.stack([self.part.image(i) for i in rows])
        return [torch.from_numpy(features), *_labelled(self.labels, rows)]


def _labelled(labels: np.ndarray, rows: list[int]) -> tuple[Tensor, Tensor]:
    """(labels, rows) of a batch."""
    return torch.tensor([int(labels[i]) for i in rows]), torch.tensor(rows)
