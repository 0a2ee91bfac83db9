"""The DataLoaders of one data set, for training and for evaluation."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Subset

from deconfuse.data.images import FileImages
from deconfuse.data.split import ImageSpec, Part, RowSpec, Split
from deconfuse.data.transforms import ImageDataset, RowDataset, Transform, transforms
from deconfuse.system import distributed
from deconfuse.training import loader_workers
from deconfuse.training.recipe import Recipe

SMALL = 64  # pixels of the side of images up to which `num_workers=auto` loads them in the main process


def together(samples: list, shape: tuple[int, ...]) -> list[torch.Tensor]:
    """The batch (inputs, labels, sample numbers) that a data set made as a whole; one without samples for [],
    as there may be fewer of them than processes."""
    if samples:
        return samples
    none = torch.zeros(0, dtype=torch.long)
    return [torch.zeros(0, *shape), none, none]


class DataModule(pl.LightningDataModule):
    """The DataLoaders of one split; `labels` (n,) take the place of its training labels.

    left_out (n,) bool: samples that are in no training batch; None: no sample. They keep their place in
    everything but training. num_workers: as of `loader_workers.number`. pinned: whether batches go to a GPU,
    which the job sets.
    """

    def __init__(
        self,
        split: Split,
        labels: np.ndarray,
        backbone,
        recipe: Recipe,
        num_workers: int | str,
        seed: int,
        left_out: np.ndarray | None = None,
    ):
        super().__init__()
        self.split, self.labels, self.recipe = split, labels, recipe
        self.drawn = labels if left_out is None else np.where(left_out, -1, labels)
        self.seed, self.process = seed, (distributed.rank(), distributed.world())
        files = isinstance(split.train.images, FileImages) and split.image.size > SMALL
        self.num_workers = loader_workers.number(num_workers, not files, self.process[1])
        self.pinned = False
        self.training = self.evaluation = None  # transforms, which rows of features do not have
        if isinstance(split.image, ImageSpec):
            self.training, self.evaluation = transforms(split.image, backbone.mean, backbone.std)
        self.first_epoch = 0  # counted from 0; a resumed run starts later

    def train_dataloader(self) -> DataLoader:
        """Training batches of BalancedBatches from first_epoch on.

        Lightning 2.6 sets the epoch of a sampler only after worker processes have drawn their first batches
        (its issue 21938), so the sampler gets the first epoch when it is made.
        """
        batches = self.recipe.sampler(self.drawn, self.seed, self.first_epoch, self.process)
        return DataLoader(
            self._samples(self.split.train, self.labels, self.training),
            batch_sampler=batches,
            collate_fn=self._collate,
            **loader_workers.settings(self.num_workers, self.pinned),
        )

    def val_dataloader(self) -> list[DataLoader]:
        """The loader of the queries and, if the data set has its own gallery, that of the gallery.

        Each of several processes loads its own rows. A process that has none loads the last row, as
        Lightning needs a batch.
        """
        parts = self.split.test_parts.values()
        return [self.in_order(part, self.own(part) or range(len(part))[-1:]) for part in parts]

    def own(self, part: Part) -> range:
        """The rows of a part that this process passes through the network, possibly none."""
        return distributed.share(len(part), self.recipe.eval_batch_size)

    def item(self, part: Part, i: int) -> torch.Tensor:
        """Input i of a part, without augmentation."""
        return self._samples(part, part.labels, self.evaluation)[i][0]

    def in_order(self, part: Part, rows: range | None = None) -> DataLoader:
        """A loader of a part, or of some rows of it, in order and without augmentation."""
        samples = self._samples(part, part.labels, self.evaluation)
        return DataLoader(
            samples if rows in (None, range(len(part))) else Subset(samples, rows),
            batch_size=self.recipe.eval_batch_size,
            collate_fn=self._collate,
            **loader_workers.settings(self.num_workers, self.pinned),
        )

    @property
    def _collate(self) -> Callable[[list], list[torch.Tensor]]:
        return partial(together, shape=self.split.image.shape)

    def _samples(self, part: Part, labels: np.ndarray, transform: Transform | None) -> Dataset:
        if isinstance(self.split.image, RowSpec):
            return RowDataset(part, labels)
        return ImageDataset(part, labels, transform, self.split.image.channels)
