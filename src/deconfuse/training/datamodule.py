"""Split + transforms + class-balanced sampler -> loaders."""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, default_collate
from torchvision.transforms import InterpolationMode, v2

from deconfuse.data.pixels import as_mode
from deconfuse.data.split import ImageSpec, Part, RowSpec, Split
from deconfuse.system import distributed
from deconfuse.system.errors import count
from deconfuse.training import loader_workers
from deconfuse.training.recipe import CLASS_BALANCED, Recipe

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


def sizes(total: int, classes: int) -> list[int]:
    """The most shares, of per_class samples each, that each batch of an epoch has; total: of all classes."""
    batches = math.ceil(total / classes)
    last = total - (batches - 1) * classes
    if 2 * last >= classes:
        return [classes] * batches
    return [total // batches + (i < total % batches) for i in range(batches)]


class BalancedBatches(Sampler[list[tuple[int, int]]]):
    """Batches of up to `classes` times `per_class` samples, of as many classes; every sample occurs.

    The batches of an epoch are a function of (seed, epoch). A class is drawn in shares of per_class samples,
    the last one filled with samples drawn again. Label -1: never drawn.
    Where batches filled one after the other would leave fewer than half of the classes for the last, all
    share them evenly: a step on one class alone undoes what others have learnt (R@1 0.77 instead of 0.82
    on glyphs). A class with more shares than there are batches is several times in each, as evenly as can be;
    many small batches instead cost as much and more (docs/runs.md).
    class_balanced: an epoch of as many batches, but with as many shares of each class, or one more of some,
    other ones in each epoch. A small class's samples occur several times; of a large one's only some.
    process (i, w): each batch's i-th part of w, one after the other and equal to a sample.
    """

    def __init__(
        self,
        labels: np.ndarray,
        classes: int,
        per_class: int,
        seed: int,
        epoch: int = 0,
        process: tuple[int, int] = (0, 1),
        class_balanced: bool = False,
    ):
        self.members = [np.flatnonzero(labels == c) for c in np.unique(labels) if c >= 0]
        self.per_class, self.seed, self.epoch, self.process = per_class, seed, epoch, process
        self.class_balanced = class_balanced
        self.shares = np.array([math.ceil(len(rows) / per_class) for rows in self.members])
        self.sizes = sizes(int(self.shares.sum()), min(classes, len(self.members)))

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def sampler(self) -> "BalancedBatches":
        """Where Lightning looks for set_epoch: it asks a batch sampler's sampler, never itself."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        random = np.random.default_rng([self.seed, self.epoch])
        left = self._evened(random) if self.class_balanced else self.shares.copy()
        shares = [self._drawn(*each, random) for each in zip(self.members, left.tolist(), strict=True)]
        for remaining, size in zip(range(len(self), 0, -1), self.sizes, strict=True):
            # The fullest classes go first, ties at random: so no batch repeats a class that need not be.
            order = np.lexsort((random.random(len(left)), -left))
            due = -(-left[order] // remaining)  # one, and none of a class that is used up
            taken = np.diff(np.minimum(due.cumsum(), size), prepend=0)
            parts = [shares[c][left[c] - k : left[c]] for c, k in zip(order, taken, strict=True)]
            batch = np.concatenate(parts).ravel()
            left[order] -= taken
            drawn = list(zip(batch.tolist(), random.integers(2**62, size=len(batch)).tolist(), strict=True))
            i, w = self.process
            yield drawn[len(drawn) * i // w : len(drawn) * (i + 1) // w]

    def _evened(self, random: np.random.Generator) -> np.ndarray:
        """As many shares in all, as many of each class, and the rest one each of classes drawn at random."""
        each, rest = divmod(int(self.shares.sum()), len(self.shares))
        return each + (random.permutation(len(self.shares)) < rest)

    def _drawn(self, rows: np.ndarray, shares: int, random: np.random.Generator) -> np.ndarray:
        """A class's samples, shuffled, again and again where they do not suffice, as (shares, per_class)."""
        again, rest = divmod(shares * self.per_class, len(rows))
        extra = random.choice(rows, rest, replace=False)
        whole = [random.permutation(rows) for _ in range(again)]
        return np.concatenate([*whole, extra]).reshape(-1, self.per_class)


def together(samples: list, shape: tuple[int, ...]) -> list[torch.Tensor]:
    """A batch (inputs, labels, numbers); of no samples where there are more processes than samples."""
    if samples:
        return default_collate(samples)
    none = torch.zeros(0, dtype=torch.long)
    return [torch.zeros(0, *shape), none, none]


class DataModule(pl.LightningDataModule):
    """Loaders of one split, with the labels that training is to believe.

    left_out (n,): samples that no training batch holds (none); they keep their place everywhere else.
    """

    def __init__(
        self,
        split: Split,
        labels: np.ndarray,
        backbone,
        recipe: Recipe,
        num_workers: int,
        seed: int,
        left_out: np.ndarray | None = None,
    ):
        super().__init__()
        self.split, self.labels, self.recipe = split, labels, recipe
        self.drawn = labels if left_out is None else np.where(left_out, -1, labels)
        self.num_workers, self.seed = count("num_workers", num_workers, 0), seed
        self.training = self.evaluation = None  # rows of features are fed as they are
        if isinstance(split.image, ImageSpec):
            self.training, self.evaluation = transforms(split.image, backbone.mean, backbone.std)
        self.first_epoch = 0  # where a resumed run goes on
        self.process = distributed.rank(), distributed.world()

    def train_dataloader(self) -> DataLoader:
        """Balanced batches; on resume they start at first_epoch.

        Lightning 2.6 sets a sampler's epoch only after worker processes have drawn their first
        batches (its issue 21938), so the sampler is born with the right one.
        """
        sizes = self.recipe.classes_per_batch, self.recipe.per_class
        balanced = self.recipe.sampling == CLASS_BALANCED
        batches = BalancedBatches(self.drawn, *sizes, self.seed, self.first_epoch, self.process, balanced)
        return DataLoader(
            self._samples(self.split.train, self.labels, self.training),
            batch_sampler=batches,
            collate_fn=partial(together, shape=self.split.image.shape),
            **loader_workers.settings(self.num_workers),
        )

    def val_dataloader(self) -> list[DataLoader]:
        """[query] or, where the data set has its own gallery, [query, gallery]; of several processes each has
        its own rows, or the last one where it has none, as Lightning wants a batch."""
        parts = [self.split.query] if self.split.shared_gallery else [self.split.query, self.split.gallery]
        return [self.in_order(part, self.own(part) or range(len(part))[-1:]) for part in parts]

    def own(self, part: Part) -> range:
        """The rows of a part that this process is to pass through the network; there may be none."""
        return distributed.share(len(part), self.recipe.eval_batch_size)

    def item(self, part: Part, i: int) -> torch.Tensor:
        """The i-th input of a part, without augmentation."""
        return self._samples(part, part.labels, self.evaluation)[i][0]

    def in_order(self, part: Part, rows: range | None = None) -> DataLoader:
        """A part, or some rows of it, without augmentation, in its own order."""
        samples = self._samples(part, part.labels, self.evaluation)
        return DataLoader(
            samples if rows in (None, range(len(part))) else Subset(samples, rows),
            batch_size=self.recipe.eval_batch_size,
            **loader_workers.settings(self.num_workers),
        )

    def _samples(self, part: Part, labels: np.ndarray, transform: v2.Transform | None) -> Dataset:
        if isinstance(self.split.image, RowSpec):
            return Rows(part, labels)
        return Images(part, labels, transform, self.split.image.channels)
