"""What near-identical pictures say: which labels contradict each other, and which queries have a copy."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from deconfuse.data.split import Split
from deconfuse.duplicates.search import Duplicates
from deconfuse.labels.relabel import Judgement, Votes
from deconfuse.retrieval.confusion import Pairs

KINDS = ("two labels", "both sides", "copies")


def kinds(found: Duplicates, split: Split, labels: Int[np.ndarray, " n"]) -> np.ndarray:
    """Of each sample of a group what the group is, one of KINDS. labels (n,): of the training samples.

    two labels: on one side of the split with more than one label, so at least one is wrong; both sides: in
    training and in test; copies: of one class on one side. A group of the first two kinds is of the first.
    """
    label = labels_of(found, split, labels)
    test = found.part != "train"
    kind = np.full(len(found.row), "copies", object)
    for g in range(int(found.group.max()) + 1 if len(found.group) else 0):
        mine = found.group == g
        several = any(len(np.unique(label[mine & side])) > 1 for side in (test, ~test))
        kind[mine] = KINDS[0] if several else KINDS[1] if len(np.unique(test[mine])) > 1 else KINDS[2]
    return kind


def labels_of(found: Duplicates, split: Split, labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " k"]:
    """The class id of each sample of a group."""
    of = {"train": labels, "query": split.query.labels, "gallery": split.gallery.labels}
    return np.array([of[part][row] for part, row in zip(found.part, found.row, strict=True)], np.int64)


def table(found: Duplicates, split: Split, labels: Int[np.ndarray, " n"]) -> pd.DataFrame:
    """duplicates.csv: a row per sample that is in a group."""
    names = {"train": split.train.names, "query": split.query.names, "gallery": split.gallery.names}
    return pd.DataFrame(
        {
            "group": found.group,
            "kind": kinds(found, split, labels),
            "part": found.part,
            "row": found.row,
            "path": [names[part][row] for part, row in zip(found.part, found.row, strict=True)],
            "class": [split.class_names[c] for c in labels_of(found, split, labels)],
            "distance": found.distance,
            "bits": found.bits,
        }
    )


def copied(found: Duplicates, split: Split) -> Bool[np.ndarray, " q"]:
    """The queries that have a copy in training or among the gallery's samples."""
    query = np.zeros(len(split.query), bool)
    searched = ("query",) if split.shared_gallery else ("gallery",)
    for g in np.unique(found.group):
        mine = found.group == g
        rows = found.row[mine & (found.part == "query")]
        others = int(np.isin(found.part[mine], searched).sum()) - int(split.shared_gallery)
        if len(rows) and (others > 0 or (found.part[mine] == "train").any()):
            query[rows] = True
    return query


def recall_without(found: Duplicates, split: Split, confusions: Pairs) -> dict[str, float | int | None]:
    """R@1 over the queries without a copy, and how many have one.

    R@1 = 1 - confusions / queries, both counted without copied and without lone queries; None where none is
    left.
    """
    out = copied(found, split)
    counted = ~out & ~split.lone
    wrong = int(counted[confusions.query.cpu().numpy()].sum())
    return {"copied": int(out.sum()), "R@1": 1 - wrong / int(counted.sum()) if counted.any() else None}


def report(
    found: Duplicates | None, split: Split, labels: Int[np.ndarray, " n"], confusions: Pairs
) -> dict | None:
    """What metrics.json says: how many groups of each kind, and R@1 without copies; None without a search."""
    if found is None:
        return None
    first = np.unique(found.group, return_index=True)[1]
    kind = kinds(found, split, labels)[first]
    counts = {name: int((kind == name).sum()) for name in KINDS}
    return {"groups": len(first), **counts, **recall_without(found, split, confusions)}


def with_copies(judgement: Judgement, found: Duplicates | None, labels: Int[Tensor, " n"]) -> Judgement:
    """The evidence, with what the labels of copies say: P'(l) = 1/2 (P(l) + share of its copies with l).

    For training samples whose copies have more than one label; all other samples stay as they are. Copies are
    as much evidence as all else together. The least likely label kept gives way to a copy's that is not kept.
    suspicion = log P'(likeliest other label) - log P'(label), nats.
    """
    if found is None:
        return judgement
    votes, suspicion = judgement.votes, judgement.suspicion.clone()
    classes, share, own = votes.classes.clone(), votes.share.clone(), votes.own.clone()
    for rows in _two_labels(found, labels):
        for i in rows:
            others = [int(labels[j]) for j in rows if j != i]
            said = {c: others.count(c) / len(others) for c in set(others)}
            share[i], own[i] = share[i] / 2, own[i] / 2 + said.get(int(labels[i]), 0.0) / 2
            for c, more in said.items():
                at = (classes[i] == c).nonzero()[:, 0]
                if not len(at):
                    at = share[i].argmin()[None]
                    classes[i, at], share[i, at] = c, 0.0
                share[i, at] += more / 2
    new = Votes(classes, share, own, votes.index)
    changed = torch.tensor(sorted(i for rows in _two_labels(found, labels) for i in rows), dtype=torch.long)
    tiny = torch.finfo(share.dtype).tiny
    if len(changed):
        other = new.best_but(labels)[1][changed].clamp_min(tiny).log()
        suspicion[changed] = other - own[changed].clamp_min(tiny).log()
    return Judgement(suspicion, new)


def _two_labels(found: Duplicates, labels: Int[Tensor, " n"]) -> Iterable[list[int]]:
    """The training rows of each group whose training samples have more than one label."""
    for g in np.unique(found.group):
        rows = found.row[(found.group == g) & (found.part == "train")].tolist()
        if len({int(labels[i]) for i in rows}) > 1:
            yield rows
