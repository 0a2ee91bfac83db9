"""The content of the report's pages as plain numbers and names: a run's findings, column by column."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from deconfuse.report.methods import Method
from deconfuse.report.suspects import Suspects
from deconfuse.retrieval.confusion import Pairs, groups
from deconfuse.retrieval.coordinates import pair_distances
from deconfuse.retrieval.statistics import detection_curve, evenly
from deconfuse.runs.columns import SIGNS
from deconfuse.runs.tables import Findings

MOST = 10  # training samples shown of an explanation on either side, and explanations of a sample
NEAR = 8  # neighbours shown of a training sample
EDGES = 40  # class pairs in the graph of confusions
POINTS = 200  # of a detection curve
SHOWN = 12  # queries shown of those whose confusion vanished, and of each other fate
# Suggestions of a class, their share of it, and how many of them agree, for which a merge is considered.
MERGE_COUNT, MERGE_SHARE, MERGE_LEAN = 4, 0.2, 0.75
BLOCK = 2**24  # scores held at once


def plain(values: Sequence[float] | np.ndarray | Tensor, digits: int = 7) -> list[float | None]:
    """Numbers rounded to significant digits, seven as in the tables; None for what is not finite."""
    return [float(f"{v:.{digits}g}") if math.isfinite(v) else None for v in np.asarray(values).tolist()]


def rows(values: Sequence, digits: int = 5) -> list[list[float | None]]:
    """`plain` of each row."""
    return [plain(row, digits) for row in values]


def pairs(pairs: Pairs, known: Sequence[bool] | None = None, same: bool = False) -> dict:
    """Pairs in the order of their table: row of the query and of the gallery, d, known to look alike.

    mirror: of a pair (a, b) the place of the pair (b, a), where query and gallery are the same and each is
    the other's nearest; -1 where there is none.
    """
    both = list(zip(pairs.query.tolist(), pairs.neighbour.tolist(), strict=True))
    at = {pair: i for i, pair in enumerate(both)} if same else {}
    return {
        "mirror": [at.get((b, a), -1) for a, b in both],
        "query": pairs.query.tolist(),
        "neighbour": pairs.neighbour.tolist(),
        "distance": plain(pairs.distance),
        "known": [int(one) for one in known] if known is not None else None,
    }


def edges(found: Findings) -> list[list[int]]:
    """A row for each unordered pair of classes that are confused; most confusions first, ties by class id.

    A row is [class, other class, how often the class is taken for the other, how often the other is taken for
    it, 1 where the data set knows the two to look alike]. The class that is taken for the other more often
    comes first.
    """
    split, confusions = found.split, found.confusions
    classes = (
        split.query.labels[confusions.query.numpy()].tolist(),
        split.gallery.labels[confusions.neighbour.numpy()].tolist(),
    )
    counts = Counter(zip(*classes, strict=True))
    alike = {(a, b) for group in split.same_things for a in group for b in group}
    unordered = {(min(pair), max(pair)) for pair in counts}
    table = [[a, b, counts[a, b], counts[b, a], int((a, b) in alike)] for a, b in unordered]
    # The class that is taken for the other more often comes first.
    table = [[a, b, n, m, k] if n >= m else [b, a, m, n, k] for a, b, n, m, k in table]
    return sorted(table, key=lambda row: (-row[2] - row[3], row[0], row[1]))


def curve(suspicion: Float[np.ndarray, " n"], flipped: np.ndarray) -> dict[str, list[float | None]]:
    """The detection curve at POINTS places: share checked and share found, both from 0 to 1."""
    checked, found = detection_curve(suspicion, flipped)
    some = evenly(len(suspicion), POINTS)
    return {"checked": plain(checked[some], 5), "found": plain(found[some], 5)}


def curves(found: Findings, detector: str) -> list[dict]:
    """The curves of the detector and of |influence|; [] where no label, or every label, was flipped."""
    flipped = found.noisy.flipped
    if flipped.all() or not flipped.any():
        return []
    named = [{"name": detector, **curve(found.suspicion.numpy(), flipped)}]
    if len(found.influence):
        named.append({"name": "|influence|", **curve(found.acting.absolute.numpy(), flipped)})
    return named


def training(
    found: Findings,
    samples: pd.DataFrame,
    suspect: Suspects,
    before: dict[int, int] | None,
    left_out: list[int],
) -> dict:
    """The columns of samples.csv with classes as ids, and which samples to look at (`suspects`).

    before: the earlier class of each row whose label was corrected; None without corrections. left_out: the
    rows that training left out.
    """
    columns = ("influence_mean", "influence_abs_mean", "harmful_share", "suspicion")
    table = {name: plain(samples[name]) for name in (*columns, "vote_current", "vote_recommended")}
    table |= {"names": list(found.split.train.names), "labels": found.noisy.labels.tolist()}
    table |= {"recommended": found.recommended[0].tolist(), "left_out": left_out}
    table |= {"suspects": suspect.order.tolist(), "wrong": suspect.wrong, "stop": suspect.stop}
    table["clean"] = found.noisy.clean.tolist() if found.noisy.flipped.any() else None
    table["before"] = before
    return table


def labels_before(found: Findings, clean_list: pd.DataFrame) -> dict[int, int]:
    """The class, before the correction, of each training row whose label relabels= has corrected."""
    ids = {name: i for i, name in enumerate(found.split.class_names)}
    given = dict(zip(clean_list["path"], clean_list["old_label"].map(ids).tolist(), strict=True))
    now = zip(found.split.train.names, found.noisy.labels.tolist(), strict=True)
    return {row: given[name] for row, (name, label) in enumerate(now) if given[name] != label}


def corrections(found: Findings, report: dict | None, changes: pd.DataFrame | None) -> dict | None:
    """The corrections in metrics.json, with the first SHOWN pairs of each kind of change in changes.csv.

    A pair is (row of the query, row of its neighbour): the neighbour before the correction, or, where the
    confusion appeared, after it. None without corrections.
    """
    if report is None or changes is None:
        return None
    split = found.split
    query, gallery = ({name: i for i, name in enumerate(side.names)} for side in (split.query, split.gallery))
    shown: dict[str, list[list[int]]] = {}
    for fate, some in changes.groupby("change", sort=False):
        end = "after" if fate == "appeared" else "before"
        some = some.head(SHOWN)
        shown[fate] = [
            [query[a], gallery[b]] for a, b in zip(some["query"], some[f"neighbour_{end}"], strict=True)
        ]
    return {**report, "shown": shown}


def tops(scores: Float[Tensor, "e n"]) -> dict[str, list]:
    """For each explanation, the at most MOST samples that score highest above 0 and lowest below 0.

    Returns the samples and their scores, the most harmful or most helpful first; ties are in any order.
    """
    found: dict[str, list] = {}
    for side, sign in (("harmful", 1), ("helpful", -1)):
        value, index = (sign * scores).topk(min(MOST, scores.shape[1]), dim=1)
        kept = (value > 0).sum(1).tolist()
        found[side] = [row[:k] for row, k in zip(index.tolist(), kept, strict=True)]
        found[f"{side}_scores"] = rows([row[:k] for row, k in zip(sign * value, kept, strict=True)])
    return found


def harmed(scores: Float[Tensor, "e n"] | np.ndarray) -> Iterator[tuple[list[int], list[float | None]]]:
    """For each training sample the at most MOST explanations with the largest scores > 0, and the scores."""
    e, n = scores.shape
    wide = max(1, BLOCK // max(e, 1))
    for start in range(0, n, wide):
        block = torch.as_tensor(np.asarray(scores[:, start : start + wide])).T
        value, index = block.topk(min(MOST, e), dim=1)
        kept = (value > 0).sum(1).tolist()
        for v, i, k in zip(value, index.tolist(), kept, strict=True):
            yield i[:k], plain(v[:k], 5)


def near(
    z: Float[Tensor, "n m"], index: Int[Tensor, "n k"] | None
) -> Iterator[tuple[list[int], list[float | None]]]:
    """For each training sample its NEAR nearest others, and their squared distances, as of all pairs.

    z: embeddings of any length; the distances are those of their directions, in float64. index: None where
    only some samples were voted on; then nobody's neighbours are known.
    """
    if index is None:
        yield from (([], []) for _ in range(len(z)))
        return
    for start in range(0, len(z), 256):
        some = index[start : start + 256, :NEAR]
        own = torch.arange(start, start + len(some), device=some.device)[:, None].expand_as(some)
        squared = pair_distances(z, z, own.flatten(), some.flatten())
        yield from zip(some.tolist(), rows(squared.view_as(some), 4), strict=True)


def group_rows(found: Findings) -> list[int]:
    """The class id of each row of groups.csv."""
    return [c for c, _ in groups(found.confusions, torch.from_numpy(found.split.query.labels))]


def duplicates(table: pd.DataFrame) -> list[dict]:
    """The groups of duplicates.csv: kind, and of each member [part, row, distance, bits]."""
    columns = ["part", "row", "distance", "bits"]
    return [
        {
            "kind": some["kind"].iloc[0],
            "members": [
                [part, int(row), *plain([distance], 4), int(bits)]
                for part, row, distance, bits in some[columns].itertuples(index=False, name=None)
            ],
        }
        for _, some in table.groupby("group", sort=True)
    ]


def worth_a_merge(row: dict) -> bool:
    """Whether a line of classes.csv is enough to propose a merge: MERGE_COUNT suggestions, which are
    MERGE_SHARE of the class, MERGE_LEAN of them for one label. Of a few, one may be mislabelled itself."""
    enough = row["suggestions"] >= MERGE_COUNT and row["share"] >= MERGE_SHARE
    return bool(enough and row["lean"] >= MERGE_LEAN)


def overview(found: Findings, metrics: dict, tables: dict[str, pd.DataFrame], taken: list[Method]) -> dict:
    """The content of the first page, and what every page needs to know of the run."""
    split = found.split
    keys = ("choices", "params", "seed", "command", "retrieval", "queries", "confusions", "noise", "relabels")
    parts = {name: len(part) for name, part in split.parts.items()}
    names = {name: i for i, name in enumerate(split.class_names[: split.num_classes])}
    classes = tables["classes.csv"].to_dict("records")
    taxonomy = [
        [
            *(names[row["class"]], row["samples"], row["suggestions"], names[row["leans_to"]]),
            *(plain([row["lean"], row["entropy"]], 4)),
            *(
                row["kind"],
                row["kind_by_share"],
                names[row["leans_to"]] if worth_a_merge(row) else None,
            ),
        ]
        for row in classes
    ]
    return {
        **{key: metrics[key] for key in keys},
        "duplicates": metrics["duplicates"],
        **{key: metrics[key] for key in ("explained", "seconds", "versions", "machine", "classes")},
        "parts": parts,
        "class_names": list(split.class_names),
        "training_classes": split.num_classes,
        "shared_gallery": split.shared_gallery,
        "lone_queries": int(split.lone.sum()),
        "trivial": split.trivial,
        "corrections": corrections(found, metrics["corrections"], tables.get("changes.csv")),
        "edges": edges(found),
        "most_edges": EDGES,
        "curves": curves(found, metrics["choices"]["detector"]),
        "sign": SIGNS[found.explained.sign],
        "groups": group_rows(found) if found.explained.table == "groups.csv" else None,
        "mis_similar": len(found.explained.pairs) if found.explained.table == "mis_similar.csv" else 0,
        "methods": [{"name": m.name, "run": m.run, "unit": m.unit, "rows": len(m.scores)} for m in taken],
        "taxonomy": taxonomy,
        "same_things": [list(group) for group in split.same_things],
    }
