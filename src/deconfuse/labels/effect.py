"""Compare the model trained on corrected labels with the one trained on the labels before."""

from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from deconfuse.attribution.look import Seen, Subject, look
from deconfuse.corrections.corrections import Corrections, Tested
from deconfuse.data.split import Split
from deconfuse.retrieval.confusion import distance
from deconfuse.retrieval.metrics import MEASURES
from deconfuse.retrieval.queries import Queries
from deconfuse.system.progress import console
from deconfuse.training.train import Start, another

FATES = ("vanished", "appeared", "moved")
TABLE = (  # the columns of changes.csv
    *("change", "query", "query_class", "neighbour_before", "class_before", "neighbour_after", "class_after"),
    *("distance_before", "distance_after"),
)


@dataclass(frozen=True)
class CorrectionEffect:
    """The corrections, the models trained on the labels before and after them, and the table changes.csv."""

    corrections: Corrections
    before: Seen
    after: Seen
    changes: pd.DataFrame


def before(
    corrections: Corrections | None,
    start: Start,
    subject: Subject,
    folder: Path,
    settings: dict | None = None,
) -> Seen | None:
    """Find or train the model of the labels before, from the same initial weights, and measure it.

    None without corrections. folder: its own. settings: what its weights depend on, as in a run without
    corrections (see find_or_train).
    """
    if corrections is None:
        return None
    model, data, checkpoint, reused = another(start, folder, corrections.given.labels, settings=settings)
    console.print(f"before the corrections: {'reusing' if reused else 'trained'} {checkpoint}")
    return look(replace(subject, model=model, data=data), checkpoint)


def changes(before: Seen, after: Seen, split: Split) -> pd.DataFrame:
    """changes.csv: the queries whose confusion differs between the models, by change, then by distance.

    vanished: confused only before; appeared: confused only after; moved: confused with different classes.

        R@1 after - R@1 before = (vanished - appeared) / queries

    over the queries that count in R@1. The distances are those of one pair in both models: of the pair
    before, or of the pair after if the query was not confused before.
    """
    old, new = (
        dict(zip(seen.confusions.query.tolist(), seen.confusions.neighbour.tolist(), strict=True))
        for seen in (before, after)
    )
    rows = []
    for query in old.keys() | new.keys():
        neighbours = [where.get(query) for where in (old, new)]
        taken_for = [None if n is None else int(split.gallery.labels[n]) for n in neighbours]
        if taken_for[0] != taken_for[1]:
            fate = "appeared" if taken_for[0] is None else "vanished" if taken_for[1] is None else "moved"
            pair = query, next(n for n in neighbours if n is not None)
            rows.append(
                {
                    "change": fate,
                    "query": split.query.names[query],
                    "query_class": split.class_names[split.query.labels[query]],
                    "neighbour_before": _name(split.gallery.names, neighbours[0]),
                    "class_before": _name(split.class_names, taken_for[0]),
                    "neighbour_after": _name(split.gallery.names, neighbours[1]),
                    "class_after": _name(split.class_names, taken_for[1]),
                    "distance_before": _between(before.test, *pair),
                    "distance_after": _between(after.test, *pair),
                }
            )
    rows.sort(
        key=lambda row: (
            FATES.index(row["change"]),
            row["distance_after" if row["change"] == "appeared" else "distance_before"],
            row["query"],
        )
    )
    return pd.DataFrame(rows, columns=list(TABLE))


def _name(names: tuple[str, ...], i: int | None) -> str:
    return "" if i is None else names[i]


def _between(test: Queries, query: int, neighbour: int) -> float:
    return float(distance(test.query[query].double(), test.gallery[neighbour].double()))


def compare(
    corrections: Corrections | None, before: Seen | None, after: Seen, split: Split
) -> CorrectionEffect | None:
    """The changes on the test side; None without corrections."""
    if corrections is None:
        return None
    return CorrectionEffect(corrections, before, after, changes(before, after, split))


def tables(comparison: CorrectionEffect | None) -> dict[str, pd.DataFrame]:
    """The table changes.csv by its name; no table without corrections."""
    return {} if comparison is None else {"changes.csv": comparison.changes}


def report(comparison: CorrectionEffect | None, tested: Tested | None = None) -> dict | None:
    """The entry of metrics.json: how many labels were changed, how many rightly, and both models' measures.

    right and wrong are None without noise=; test: what the file decides on the test side, and whether both
    models are measured on it. The whole entry is None without corrections.
    """
    if comparison is None:
        return None
    corrections, table = comparison.corrections, comparison.changes
    given, new, changed = corrections.given, corrections.noisy, corrections.changed
    right = int((changed & (new.labels == new.clean)).sum()) if given.flipped.any() else None
    fates = Counter(table["change"])
    return {
        "file": corrections.file,
        "changed": int(changed.sum()),
        "already": corrections.already,
        "left_out": int(corrections.left_out.sum()),
        "classes": [list(pair) for pair in corrections.classes],
        "test": asdict(tested) if tested and tested.decided else None,
        "right": right,
        "wrong": None if right is None else int(changed.sum()) - right,
        "before": _measures(comparison.before),
        "after": _measures(comparison.after),
        **{fate: fates[fate] for fate in FATES},
        "vanished_most": _class_pairs(table[table["change"] == "vanished"], "before"),
        "appeared_most": _class_pairs(table[table["change"] == "appeared"], "after"),
    }


def _measures(seen: Seen) -> dict[str, float]:
    return {**{name: seen.retrieval[name] for name in MEASURES}, "confusions": len(seen.confusions)}


def _class_pairs(rows: pd.DataFrame, end: str, most: int = 3) -> list[dict]:
    """The `most` frequent unordered class pairs with their number of confusions; ties by name."""
    both = zip(rows["query_class"], rows[f"class_{end}"], strict=True)
    counts = Counter(tuple(sorted(pair)) for pair in both)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
    return [{"classes": list(pair), "confusions": n} for pair, n in ranked]
