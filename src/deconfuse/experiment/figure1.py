"""Figure 1: do models of other losses and seeds make the same confusions?"""

from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deconfuse.runs import panels
from deconfuse.runs.finished import Run
from deconfuse.runs.section import MISSING, Section, spread
from deconfuse.runs.settings import frame
from deconfuse.runs.takes import GIVEN, by_seed, grouped, usual
from deconfuse.system.files import short_hash

LABELS = GIVEN
SCORES = False  # the table does not depend on scores

NOTE = (
    "Two models of the same data set, network and recipe, trained on labels as they are. Same queries: "
    "of the queries that either model confuses, the share that both confuse (Jaccard). Same wrong class: "
    "of the queries that both confuse, the share that both take for the same class. By chance: what is "
    "expected if each model drew its confused queries and its wrong classes at random, as many and as "
    "often as it does; for the class this is a little low, because a query's own class cannot be the "
    "wrong one. Mean ± standard deviation over pairs of models, which are not independent, as pairs have "
    "models in common."
)


def sections(runs: list[Run]) -> list[Section]:
    """A row for each data set and pair of losses, with its picture."""
    chosen = [run for run in runs if not run.report["loop"]]
    rows = []
    for (dataset, model, _), here in grouped(usual(chosen, "loss"), _data).items():
        models = {run.report["checkpoint"]["sha256"]: run for run in here}.values()
        kinds = grouped(models, lambda run: run.choice("loss"))
        found = {(loss, seed): run for loss, some in kinds.items() for seed, run in by_seed(some).items()}
        wrong = {key: _wrong(run) for key, run in found.items()}
        pairs: dict[str, list[dict[str, float]]] = {}
        for a, b in combinations(sorted(found), 2):
            name = f"{a[0]}, other seeds" if a[0] == b[0] else f"{a[0]} and {b[0]}"
            queries = found[a].report["queries"]
            pairs.setdefault(name, []).append(overlap(wrong[a], wrong[b], queries))
        for name, each in pairs.items():
            columns = {key: spread([one[key] for one in each]) for key in each[0]}
            row = {"dataset": dataset, "network": model, "models": name}
            rows.append((here[0], {**row, "pairs of models": len(each), **columns}))
    if not rows:
        return []
    found = frame(rows, before="pairs of models", only=("dataset", "model", "recipe"))
    return [
        Section("figure1", "Figure 1: do other models make the same confusions?", found, NOTE, _draw(found))
    ]


def overlap(first: dict[str, str], second: dict[str, str], queries: int) -> dict[str, float]:
    """Shares in [0, 1] of two models' confusions (query -> wrong class), and what chance would give."""
    both = first.keys() & second.keys()
    a, b = len(first), len(second)
    expected = a * b / queries
    one, other = (pd.Series(list(each.values()), dtype=object).value_counts() for each in (first, second))
    by_chance = float((one / a).mul(other / b, fill_value=0).sum()) if a and b else np.nan
    return {
        "same queries": len(both) / len(first.keys() | second.keys()) if a or b else np.nan,
        "by chance": expected / (a + b - expected) if a or b else np.nan,
        "same wrong class": sum(first[q] == second[q] for q in both) / len(both) if both else np.nan,
        "same class by chance": by_chance,
    }


def _data(run: Run) -> tuple[str, str, str]:
    """What two models must have in common: the queries, the network and the recipe."""
    settings = {group: run.settings[group] for group in ("dataset", "model", "recipe")}
    return run.choice("dataset"), run.choice("model"), short_hash(settings)


def _wrong(run: Run) -> dict[str, str]:
    table = run.table("confusions.csv", "query", "neighbour_class")
    return dict(zip(table["query"], table["neighbour_class"], strict=True))


def _draw(table: pd.DataFrame) -> Figure:
    figure = Figure((8, 0.5 * len(table) + 1.4), layout="constrained")
    axis = figure.subplots()
    y = np.arange(len(table))
    for name, offset, alpha in (("same queries", -0.2, 1.0), ("by chance", 0.2, 0.35)):
        values = [0.0 if cell == MISSING else float(cell.split()[0]) for cell in table[name]]
        axis.barh(y + offset, values, 0.38, color=panels.COLOURS[0], alpha=alpha, label=name)
    columns = [name for name in ("dataset", "models", "setting") if name in table]
    names = [": ".join(filter(None, row)) for row in table[columns].itertuples(index=False, name=None)]
    axis.set_yticks(y, names)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xlabel("confused by both, of those that either confuses")
    axis.legend(loc="lower right")
    return figure
