"""What a run found, and its tables: confusions, groups, training samples, relabels and classes."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from deconfuse.attribution.scores import Acting, acting
from deconfuse.attribution.trajectory import Trajectory
from deconfuse.data.noise import NoisyLabels
from deconfuse.data.split import Split
from deconfuse.duplicates.search import Duplicates
from deconfuse.labels import copies
from deconfuse.labels.relabel import Votes
from deconfuse.labels.taxonomy import taxonomy
from deconfuse.labels.wrong import Doubt
from deconfuse.retraining.reweight import Changes
from deconfuse.retrieval.confusion import Explained, Pairs, groups
from deconfuse.runs.columns import COLUMNS


@dataclass(frozen=True)
class Findings:
    """Everything a run has found, before it is written.

    influence (e, n): score of each training sample on each explanation, > 0 harmful.
    suspicion (n,): higher = more likely mislabelled; doubt: P(wrong) of each label.
    lds (e,): how well the scores predict retraining without random subsets, in [-1, 1]; None: not measured.
    retrained: d before and after retraining by the scores; None: not measured.
    trajectory: the scores at earlier epochs; None: only the last epoch was explained.
    duplicates: groups of near-identical pictures; None: not looked for.
    """

    split: Split
    noisy: NoisyLabels
    confusions: Pairs
    explained: Explained
    influence: Float[Tensor, "e n"]
    suspicion: Float[Tensor, " n"]
    votes: Votes
    doubt: Doubt
    lds: Float[np.ndarray, " e"] | None = None
    retrained: Changes | None = None
    trajectory: Trajectory | None = None
    duplicates: Duplicates | None = None

    @cached_property
    def acting(self) -> Acting:
        """How each training sample acts on the explanations on average."""
        return acting(self.influence)

    @cached_property
    def recommended(self) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
        """(label, its vote): the largest vote's; of a label that is probably wrong, the likeliest other."""
        (label, share), other = self.votes.best, self.doubt.label
        vote = self.votes.share.masked_fill(self.votes.classes != other[:, None], 0).amax(1)
        listed = self.doubt.listed
        return torch.where(listed, other, label), torch.where(listed, vote, share)


def confusion_table(found: Findings) -> pd.DataFrame:
    """One row per confusion pair, closest first."""
    split, pairs = found.split, found.confusions
    query, neighbour = pairs.query.numpy(), pairs.neighbour.numpy()
    classes = split.query.labels[query], split.gallery.labels[neighbour]
    alike = {(a, b) for group in split.same_things for a in group for b in group}
    return pd.DataFrame(
        {
            "confusion": np.arange(len(pairs)),
            "query": [split.query.names[i] for i in query],
            "query_class": [split.class_names[c] for c in classes[0]],
            "neighbour": [split.gallery.names[i] for i in neighbour],
            "neighbour_class": [split.class_names[c] for c in classes[1]],
            "distance": pairs.distance.numpy(),
            "same_thing": [pair in alike for pair in zip(*classes, strict=True)],
        },
        columns=list(COLUMNS["confusions.csv"]),
    )


def group_table(found: Findings) -> pd.DataFrame:
    """One row per confusion group: all confusions whose query is of one test class; largest first."""
    split, pairs = found.split, found.confusions
    labels, near = torch.from_numpy(split.query.labels), split.gallery.labels[pairs.neighbour.numpy()]
    rows = []
    for i, (c, members) in enumerate(groups(pairs, labels)):
        with_whom = np.bincount(near[members.numpy()]).argmax()
        distance = pairs.distance[members].mean().item()
        sizes = len(members), int((split.query.labels == c).sum())
        rows.append((i, split.class_names[c], *sizes, split.class_names[with_whom], distance))
    return pd.DataFrame(rows, columns=list(COLUMNS["groups.csv"]))


def mis_similar_table(found: Findings) -> pd.DataFrame:
    """One row per explained mis-similar pair, farthest first."""
    split, pairs = found.split, found.explained.pairs
    query, neighbour = pairs.query.numpy(), pairs.neighbour.numpy()
    return pd.DataFrame(
        {
            "pair": np.arange(len(pairs)),
            "query": [split.query.names[i] for i in query],
            "neighbour": [split.gallery.names[i] for i in neighbour],
            "class": [split.class_names[c] for c in split.query.labels[query]],
            "distance": pairs.distance.numpy(),
        }
    )


def retrained_table(changes: Changes) -> pd.DataFrame:
    """One row per explanation: d before and after retraining by its scores."""
    before, after, change = (each.numpy() for each in (changes.before, changes.after, changes.change))
    return pd.DataFrame(
        {"row": np.arange(len(before)), "d_before": before, "d_after": after, "change": change}
    )


def sample_table(found: Findings) -> pd.DataFrame:
    """One row per training sample, in the training set's order."""
    names, noisy = found.split.class_names, found.noisy
    label, share = found.recommended
    table = pd.DataFrame(
        {
            "sample": np.arange(len(noisy.labels)),
            "path": found.split.train.names,
            "class": [names[c] for c in noisy.labels],
            "influence_mean": found.acting.mean.numpy(),
            "influence_abs_mean": found.acting.absolute.numpy(),
            "harmful_share": found.acting.harmful.numpy(),
            **(found.trajectory.columns() if found.trajectory else {}),
            "suspicion": found.suspicion.numpy(),
            "p_wrong": found.doubt.wrong.numpy(),
            "vote_current": found.votes.own.numpy(),
            "recommended": [names[c] for c in label],
            "vote_recommended": share.numpy(),
        }
    )
    if noisy.flipped.any():
        table["flipped"] = noisy.flipped
        table["true_class"] = [names[c] for c in noisy.clean]
    return table


def relabel_table(samples: pd.DataFrame) -> pd.DataFrame:
    """The samples whose label is more likely wrong than right, most likely first."""
    chosen = samples[samples["p_wrong"] > 0.5]
    chosen = chosen.sort_values(["p_wrong", "sample"], ascending=[False, True], kind="stable")
    chosen = chosen.assign(rank=np.arange(len(chosen)))
    return chosen[[column for column in COLUMNS["relabels.csv"] if column in chosen]]


def suggestions(found: Findings, harmful_only: bool = True) -> pd.DataFrame:
    """`taxonomy` of the samples that are recommended another label: the harmful ones, or all."""
    label, current = found.votes.best[0].numpy(), found.noisy.labels
    suggested = label != current
    if harmful_only:
        suggested &= (found.acting.mean > 0).numpy()
    return taxonomy(current, label, suggested)


def class_table(found: Findings) -> pd.DataFrame:
    """One row per training class with relabel suggestions: most first, ties by name."""
    names, table = np.array(found.split.class_names, dtype=object), suggestions(found)
    merged = (table[["kind", "kind_by_share"]] == "centralized").any(axis=1)
    leans_to = pd.Series(names[table["leans_to"].to_numpy(np.int64)], dtype=object, index=table.index)
    table = table.assign(**{"class": names[table["class"].to_numpy(np.int64)]}, leans_to=leans_to)
    table = table.assign(merge_with=leans_to.where(merged, ""))
    return table.sort_values(["suggestions", "class"], ascending=[False, True], ignore_index=True)


def tables_of(found: Findings) -> dict[str, pd.DataFrame]:
    """The tables of what a run found, by file name."""
    samples = sample_table(found)
    tables = {
        "confusions.csv": confusion_table(found),
        "groups.csv": group_table(found),
        "samples.csv": samples,
        "relabels.csv": relabel_table(samples[found.doubt.used.numpy()]),
        "classes.csv": class_table(found),
    }
    if found.duplicates is not None:
        tables["duplicates.csv"] = copies.table(found.duplicates, found.split, found.noisy.labels)
    if found.explained.table == "mis_similar.csv":
        tables["mis_similar.csv"] = mis_similar_table(found)
    if found.lds is not None:
        tables["counterfactual.csv"] = pd.DataFrame({"row": np.arange(len(found.lds)), "lds": found.lds})
    if found.retrained is not None:
        tables["retrained.csv"] = retrained_table(found.retrained)
    if found.trajectory is not None:
        tables["influence_epochs.csv"] = found.trajectory.table(found.noisy.flipped)
        tables["explained_epochs.csv"] = found.trajectory.explained_table(found.split)
    return tables
