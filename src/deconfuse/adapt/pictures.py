"""Pictures of samples to look at, made of what a caller has: files, Pillow's images, arrays or inputs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deconfuse.data.pixels import as_mode
from deconfuse.data.split import SMALLEST, ImageSpec
from deconfuse.system.errors import UserError


class Pictures(Sequence):
    """Item i is a picture (Pillow, L or RGB) of sample i.

    get: i -> a path, an image, or an array or tensor of shape (H, W), (C, H, W) or (H, W, C). Floats from 0
    to 1 are scaled by 255; other floats, such as normalised inputs, from the smallest to the largest of the
    picture.
    """

    USES = ()

    def __init__(self, get: Callable[[int], Any], n: int):
        self.get, self.n = get, n

    @classmethod
    def of(cls, images: Sequence, n: int, where: str) -> "Pictures":
        """The pictures of a sequence; UserError if it has another length, or its first is no picture."""
        if len(images) != n:
            raise UserError(f"images of {where}: {len(images)} for {n} samples; give one for each")
        found = cls(images.__getitem__, n)
        try:
            found[0]
        except (OSError, TypeError, ValueError) as error:
            raise UserError(
                f"images of {where}: the first is no picture ({str(error).splitlines()[0]})"
            ) from None
        return found

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Image.Image:
        found = self.get(int(i))
        if isinstance(found, (str, Path)):
            try:
                with Image.open(found) as image:
                    return as_mode(image, "L" if image.mode in ("1", "L") else "RGB")
            except OSError as error:
                raise UserError(
                    f"{found}: not a readable image ({str(error).splitlines()[0]}); replace it"
                ) from None
        if isinstance(found, Image.Image):
            return as_mode(found, "L" if found.mode in ("1", "L") else "RGB")
        return of_numbers(found)

    def path(self, i: int) -> Path | None:
        """The file of picture i; None where it is none."""
        found = self.get(int(i))
        return Path(found) if isinstance(found, (str, Path)) else None

    def content(self, i: int) -> bytes:
        """The pixels."""
        return self[i].tobytes()

    @property
    def spec(self) -> ImageSpec:
        """How large the pictures are, judged by the first, and whether they are grey."""
        first = self[0]
        return ImageSpec(max(SMALLEST, *first.size), 1 if first.mode == "L" else 3, "none")


def of_numbers(values: Tensor | np.ndarray) -> Image.Image:
    """The picture of an array of shape (H, W), (C, H, W) or (H, W, C) with 1, 3 or 4 channels.

    Raises ValueError for other shapes.
    """
    found = values.detach().cpu() if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    if found.ndim == 3 and found.shape[0] in (1, 3, 4):
        found = found.permute(1, 2, 0)
    if found.ndim == 3 and found.shape[2] == 1:
        found = found[..., 0]
    if found.ndim not in (2, 3) or (found.ndim == 3 and found.shape[2] not in (3, 4)):
        raise ValueError(f"shape {tuple(found.shape)}, not (H, W), (C, H, W) or (H, W, C)")
    if found.dtype != torch.uint8:
        found = found.double()
        low, high = found.min(), found.max()
        if low < 0 or high > 1:
            found = (found - low) / (high - low).clamp_min(1e-12)
        found = (255 * found).round().to(torch.uint8)
    return Image.fromarray(found.numpy()[..., :3] if found.ndim == 3 else found.numpy())


def pictured(item: Callable[[int], Any], n: int) -> Pictures | None:
    """Pictures of a model's inputs; None where the first input is no picture."""
    first = item(0)
    if not isinstance(first, Tensor) or first.ndim not in (2, 3) or min(first.shape[-2:]) < SMALLEST:
        return None
    if first.ndim == 3 and first.shape[0] not in (1, 3, 4):
        return None
    return Pictures(item, n)
