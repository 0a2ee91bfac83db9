"""What is asked of a model: the words of `explain` and their defaults, which are the command line's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypedDict

import torch

from deconfuse.adapt.options import name_of, option
from deconfuse.attribution import attribute
from deconfuse.system.errors import UserError, count, did_you_mean, flag, within

Option = str | Mapping[str, Any]


class Asked(TypedDict, total=False):
    """The further keyword arguments of `explain`; `Questions` says what each of them means."""

    params: str
    target: Option
    influence: Option
    detector: Option
    neighbours: int | None
    candidates: int | None
    classes: Sequence[str] | Mapping | None
    images: Mapping[str, Sequence] | None
    batch_size: int
    num_workers: int
    device: str | torch.device | None
    seed: int
    duplicates: bool
    mirrored: bool
    progress: bool


@dataclass(frozen=True)
class Questions:
    """The further arguments of `explain`, checked.

    params: the parameters that are attributed, head, last_block or all. target, influence, detector: options
    of conf/, by name or as {"name": NAME, KEY: VALUE}. neighbours: K of the vote on labels; None: the median
    class size. candidates: vote only on so many of the most harmful samples; None: on all. classes: class
    names by label. images: pictures to show, as {"train": [...], "test": [...]}: files, Pillow's images or
    arrays. batch_size: inputs that pass the model at once; num_workers: processes that read them. device:
    None: where the model is. seed: of all random numbers. duplicates: whether to look for near-identical
    pictures, or equal embeddings where there are none; mirrored: also for mirrored pictures. progress: bars
    and messages.
    """

    params: str = "head"
    target: Option = "all"
    influence: Option = "eif"
    detector: Option = "knn"
    neighbours: int | None = None
    candidates: int | None = None
    classes: Sequence[str] | Mapping | None = None
    images: Mapping[str, Sequence] | None = None
    batch_size: int = 64
    num_workers: int = 0
    device: str | torch.device | None = None
    seed: int = 0
    duplicates: bool = True
    mirrored: bool = False
    progress: bool = True

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> "Questions":
        """The questions of some keyword arguments; UserError for one that does not exist."""
        known = [field.name for field in fields(cls)]
        for key in asked:
            if key not in known:
                raise UserError(f"explain has no argument {key}; {did_you_mean(key, known)}")
        return cls(**asked)

    def __post_init__(self):
        count("batch_size", self.batch_size, 1)
        count("num_workers", self.num_workers, 0)
        within("seed", count("seed", self.seed, 0), 0, 2**32 - 1)
        for name in ("progress", "duplicates", "mirrored"):
            flag(name, getattr(self, name))
        if self.neighbours is not None:
            count("neighbours", self.neighbours, 1)
        for side in self.images or {}:
            if side not in ("train", "test", "gallery"):
                raise UserError(f'images: {side!r} is no side; give {{"train": [...], "test": [...]}}')
        attribute.check(self.explainer, name_of(self.influence), self.params)

    @property
    def explainer(self):
        """The influence method, which still needs the training side and the targets."""
        return option("influence", self.influence, self.seed)

    @property
    def choices(self) -> dict[str, str]:
        """The name of the option chosen in each group."""
        groups = ("target", "influence", "detector")
        return {group: name_of(getattr(self, group)) for group in groups}
