"""How each training sample's influence changed during training: the explained epochs, side by side.

An epoch's explanations are of the pairs that that epoch's model confuses, so two epochs have the same n
training samples but not the same explanations. What is compared is a sample's mean score over an epoch's
explanations; > 0 is harmful.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata
from torch import Tensor

from deconfuse.data.split import Split
from deconfuse.retrieval.confusion import Explained
from deconfuse.retrieval.statistics import detection
from deconfuse.system.errors import UserError, count, one_of
from deconfuse.system.words import many

KEYS = ("when", "every")  # the keys below influence= that are not the method's own


def method(influence: Mapping) -> dict:
    """The method's own settings among those below influence=."""
    return {key: value for key, value in influence.items() if key not in KEYS}


@dataclass(frozen=True)
class When:
    """Which epochs are explained beside the last one.

    when: last (no other epoch), best (the first epoch with the largest measured R@1) or every_n_epochs.
    every: the n of every_n_epochs; None: the epochs that recipe.checkpoints keeps.
    """

    when: str = "last"
    every: int | None = None

    def __post_init__(self):
        one_of("influence.when", self.when, ("last", "best", "every_n_epochs"))
        if self.every is not None:
            count("influence.every", self.every, 1)

    @classmethod
    def of(cls, influence: Mapping) -> "When":
        """From the settings below influence=."""
        return cls(**{key: influence[key] for key in KEYS if key in influence})

    @property
    def asked(self) -> dict:
        """The keys that change what a run writes, with their values."""
        return {
            "last": {},
            "best": {"when": self.when},
            "every_n_epochs": {"when": self.when, "every": self.every},
        }[self.when]

    def check(self, epochs: int) -> None:
        """Raise UserError if no multiple of `every` is before the last of `epochs`."""
        if self.when == "every_n_epochs" and self.every is not None and self.every >= epochs:
            raise UserError(
                f"influence.every={self.every} names no epoch before the last of recipe.epochs={epochs}; "
                "give a smaller number, or influence.when=last"
            )

    def due(self, until: int, kept: set[int], history: Iterable[Mapping]) -> set[int]:
        """The epochs up to `until` that are to be explained, as far as `history` shows; counted from 1.

        kept: the epochs of recipe.checkpoints; history: the rows of history.csv.
        """
        if self.when == "every_n_epochs":
            epochs = kept if self.every is None else range(self.every, until + 1, self.every)
            return {epoch for epoch in epochs if epoch <= until}
        rows = [row for row in history if row["epoch"] <= until]
        if self.when == "last" or not rows:
            return set()
        return {int(max(rows, key=lambda row: row["R@1"])["epoch"])}


@dataclass(frozen=True)
class Moment:
    """One epoch's explanations, reduced to what is compared with other epochs.

    recall: R@1; confusions: their number; pairs (t, 2): the explained pairs as (query row, gallery row), with
    distance (t,) and group (t,), the row of the scores that a pair belongs to. mean and abs_mean (n,): of the
    scores and of |score| over the e explanations, NaN if e = 0; worst (e,): the sample with the highest score
    of each explanation, and worst_score (e,): that score.
    """

    epoch: int
    recall: float
    confusions: int
    group: Int[Tensor, " t"]
    pairs: Int[Tensor, "t 2"]
    distance: Float[Tensor, " t"]
    mean: Float[Tensor, " n"]
    abs_mean: Float[Tensor, " n"]
    worst: Int[Tensor, " e"]
    worst_score: Float[Tensor, " e"]

    @classmethod
    def of(
        cls,
        epoch: int,
        recall: float,
        confusions: int,
        listed: tuple[Int[Tensor, " t"], Int[Tensor, "t 2"], Float[Tensor, " t"]],
        scores: Float[Tensor, "e n"],
    ) -> "Moment":
        """From an epoch's scores; listed: (group, pairs, distance), from the function `listed`."""
        score, sample = scores.max(1)
        return cls(epoch, recall, confusions, *listed, scores.mean(0), scores.abs().mean(0), sample, score)

    @property
    def harmful(self) -> Bool[Tensor, " n"]:
        """True for training samples whose mean score is > 0."""
        return self.mean > 0

    def line(self) -> str:
        """The line that is printed when the epoch was explained."""
        return (
            f"epoch {self.epoch}: R@1 {self.recall:.3f}, {many(self.confusions, 'confusion')}, "
            f"{many(len(self.worst), 'explanation')}, {int(self.harmful.sum())} of "
            f"{many(len(self.mean), 'sample')} harmful"
        )


def listed(explained: Explained) -> tuple[Int[Tensor, " t"], Int[Tensor, "t 2"], Float[Tensor, " t"]]:
    """(group, pairs, distance) of the explained pairs, group by group."""
    of_pair = dict(
        zip(map(tuple, explained.pairs.pairs.tolist()), explained.pairs.distance.tolist(), strict=True)
    )
    pairs = torch.cat([*explained.groups, torch.empty(0, 2, dtype=torch.int64)])
    sizes = torch.tensor([len(group) for group in explained.groups], dtype=torch.int64)
    group = torch.arange(len(sizes)).repeat_interleave(sizes)
    distance = torch.tensor([of_pair[tuple(pair)] for pair in pairs.tolist()], dtype=torch.float32)
    return group, pairs, distance


@dataclass(frozen=True)
class Trajectory:
    """The explained epochs in order, two or more, of which the last is the last of training."""

    when: When
    moments: tuple[Moment, ...]

    @property
    def epochs(self) -> list[int]:
        """The epochs' numbers, counted from 1."""
        return [moment.epoch for moment in self.moments]

    @property
    def means(self) -> Float[Tensor, "E n"]:
        """Each sample's mean score at each epoch; NaN for an epoch without explanations."""
        return torch.stack([moment.mean for moment in self.moments])

    def columns(self) -> dict[str, np.ndarray | pd.api.extensions.ExtensionArray]:
        """The columns of samples.csv: mean and standard deviation (E - 1) over the epochs, first epoch > 0.

        Only epochs with explanations count; NaN, or no epoch, if there are too few of them.
        """
        means = self.means
        said = ~means.isnan().all(1)
        epochs, means = torch.tensor(self.epochs)[said], means[said].double()
        harmful = means > 0
        first = pd.array([pd.NA] * means.shape[1], dtype="Int64")
        if len(means):
            some = harmful.any(0).numpy()
            first[some] = epochs[harmful.int().argmax(0)].numpy()[some]
        spread = means.std(0) if len(means) > 1 else torch.full_like(means.sum(0), torch.nan)
        return {
            "influence_epochs_mean": means.mean(0).numpy(),
            "influence_epochs_std": spread.numpy(),
            "first_harmful_epoch": first,
        }

    def table(self, flipped: Bool[np.ndarray, " n"]) -> pd.DataFrame:
        """influence_epochs.csv, a row per epoch; flipped: True for labels that noise= changed."""
        last, rows = self.moments[-1], []
        for moment in self.moments:
            row = {
                "epoch": moment.epoch,
                "R@1": moment.recall,
                "confusions": moment.confusions,
                "explained": len(moment.worst),
                "harmful": int(moment.harmful.sum()),
                "agreement": agreement(moment.mean.numpy(), last.mean.numpy()),
            }
            if flipped.any():
                found = detection(moment.abs_mean.numpy(), flipped) if len(moment.worst) else None
                row["harmful_flipped"] = int(moment.harmful.numpy()[flipped].sum())
                row["AUROC"] = found["auroc"] if found else np.nan
                row["AP"] = found["average_precision"] if found else np.nan
            rows.append(row)
        return pd.DataFrame(rows)

    def explained_table(self, split: Split) -> pd.DataFrame:
        """explained_epochs.csv, a row per explained pair, epoch by epoch."""
        parts = []
        for moment in self.moments:
            query, neighbour = moment.pairs.T.numpy()
            group = moment.group.numpy()
            labels = split.query.labels[query], split.gallery.labels[neighbour]
            part = {
                "epoch": np.full(len(group), moment.epoch),
                "row": group,
                "query": [split.query.names[i] for i in query],
                "query_class": [split.class_names[c] for c in labels[0]],
                "neighbour": [split.gallery.names[i] for i in neighbour],
                "neighbour_class": [split.class_names[c] for c in labels[1]],
                "distance": moment.distance.numpy(),
                "most_harmful": [split.train.names[i] for i in moment.worst.numpy()[group]],
                "score": moment.worst_score.numpy()[group],
            }
            parts.append(pd.DataFrame(part))
        return pd.concat(parts, ignore_index=True)


def agreement(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"]) -> float:
    """Spearman's rank correlation, in [-1, 1]; NaN if a side has a NaN or is constant."""
    if np.isnan(one).any() or np.isnan(other).any() or not (np.ptp(one) and np.ptp(other)):
        return np.nan
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def report(trajectory: Trajectory | None, flipped: Bool[np.ndarray, " n"]) -> dict | None:
    """The entry of metrics.json about epochs; None if only the last epoch was explained.

    first_harmful: the median of the samples' first harmful epoch, None without such samples, and the share of
    samples that never were harmful; for flipped samples and for the others.
    """
    if trajectory is None:
        return None
    table = trajectory.table(flipped)
    first = trajectory.columns()["first_harmful_epoch"]

    def first_epoch(which: Bool[np.ndarray, " n"]) -> dict:
        some, never = first[which].dropna(), first[which].isna()
        return {
            "median": float(np.median(some.astype(np.int64))) if len(some) else None,
            "never": float(never.mean()) if which.any() else None,
        }

    kinds = {"flipped": flipped, "others": ~flipped} if flipped.any() else {"all": ~flipped}
    return {
        "when": trajectory.when.when,
        **{name: table[column].tolist() for name, column in (("epochs", "epoch"), ("R@1", "R@1"))},
        "harmful": table["harmful"].tolist(),
        "first_harmful": {name: first_epoch(which) for name, which in kinds.items()},
    }
