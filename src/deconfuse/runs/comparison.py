"""Compare methods by what retraining with their scores did to the same explanations (Eq. 7 and 8)."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deconfuse.retrieval.statistics import paired
from deconfuse.runs import panels
from deconfuse.runs.finished import Run
from deconfuse.runs.section import Section, spread
from deconfuse.runs.settings import frame
from deconfuse.runs.takes import by_seed, grouped, usual

CHANGED = ("d_before", "change")
CHANGES_NOTE = (
    "Mean over the explanations, ± standard deviation over the models; share > 0: share of the "
    "explanations that moved apart. The picture shows each model. Where a data set has several settings, "
    "all of its panels show the one with most models."
)
# Methods whose name ends so are those of the authors' scripts; the others follow the paper's text.
SCRIPTS = "_code"


def retrained(runs: list[Run], explained: str) -> list[Run]:
    """The runs that explained this table, and then trained the head again by their scores."""
    chosen = [run for run in runs if run.report["retrain"] and run.choice("target") != "all"]
    chosen = [run for run in chosen if run.report["explained"]["table"] == explained]
    for group in ("influence", "retrain", "target"):  # settings that a sweep adds make no further rows
        chosen = usual(chosen, group)
    return chosen


def compared(runs: list[Run], sizes: tuple[int, ...]) -> Iterator[tuple[Run, str, int, list[dict]]]:
    """(one of the runs, the two methods, how many explanations are tested, one test per model)."""
    for alike in _settings(runs):
        methods = {name: by_seed(some) for name, some in grouped(alike, _method).items()}
        for first, second in versus(methods):
            both = sorted(methods.get(first, {}).keys() & methods.get(second, {}).keys())
            pairs = [_changes(*(methods[name][seed] for name in (first, second))) for seed in both]
            for most in sizes:
                tests = [paired(one[:most], other[:most]) for one, other in pairs if len(one) >= most]
                if tests:
                    yield alike[0], f"{first} > {second}", most, tests


def versus(methods: Iterable[str]) -> list[tuple[str, str]]:
    """The pairs of methods that are compared: EIF with every other method, then every other with random.

    Methods of the authors' scripts (eif_code, if_code) are compared with each other only.
    """
    text = sorted(
        (name for name in methods if not name.endswith(SCRIPTS)), key=lambda name: (name == "random", name)
    )
    scripts = sorted(name for name in methods if name.endswith(SCRIPTS))
    pairs = [("eif", name) for name in text] + [("eif" + SCRIPTS, name) for name in scripts]
    pairs += [(name, "random") for name in text if name != "eif"]
    return [pair for pair in pairs if pair[0] != pair[1] and {*pair} <= {*methods}]


def _settings(runs: list[Run]) -> list[list[Run]]:
    """The runs in groups that differ in their method alone."""
    return list(grouped(runs, lambda run: (*run.where.values(), run.setting("influence"))).values())


def improvements(
    runs: list[Run], unit: str, paper: dict[int, str], cells: Callable[[list[dict]], dict[str, str]]
) -> pd.DataFrame:
    """A row for each data set, noise, loss, pair of methods, and number of first explanations.

    unit: the name of what is explained; paper: the paper's cell for each number of them; cells: makes the
    further cells from the tests of all models.
    """
    rows = []
    for run, methods, most, tests in compared(runs, tuple(paper)):
        row = {**run.where, "methods": methods, unit: most, "models": len(tests)}
        row["improvement"] = spread([each["improvement"] for each in tests], 4, small=True)
        of_paper = paper[most] if methods == "eif > if" else "-"
        rows.append((run, {**row, **cells(tests), "paper, CUB200": of_paper}))
    return frame(rows, without=("influence",))


def _changes(first: Run, second: Run) -> tuple[np.ndarray, np.ndarray]:
    """Both runs' changes of d; both empty where they do not explain the same pairs of the same model."""
    tables = [run.table("retrained.csv", *CHANGED) for run in (first, second)]
    models = {run.report["checkpoint"]["sha256"] for run in (first, second)}
    before = [table["d_before"].to_numpy(float) for table in tables]
    alike = len(models) == 1 and len(before[0]) == len(before[1]) and np.allclose(*before, rtol=0, atol=1e-4)
    one, other = (table["change"].to_numpy(float)[: None if alike else 0] for table in tables)
    return one, other


def changes(runs: list[Run], name: str, title: str) -> list[Section]:
    """A table of how far each method alone changes d, with its picture; [] without runs."""
    rows, pictured = [], []
    for alike in _settings(runs):
        drawn = {}
        for method, some in grouped(alike, _method).items():
            models = by_seed(some).values()
            drawn[method] = [run.report["retrain"]["mean"] for run in models]
            row = {**some[0].where, "method": method, "models": len(models)}
            row["change of d"] = spread(drawn[method], 4, small=True)
            row["share > 0"] = spread([share_apart(run) for run in models], 2)
            rows.append((some[0], row))
        pictured.append((*alike[0].panel("influence"), drawn))
    shown = panels.of_one_setting(pictured, panels.drawn_in)
    return [Section(name, title, frame(rows), CHANGES_NOTE, _draw(shown))] if rows else []


def share_apart(run: Run) -> float:
    """The share of the explanations whose d grew, in [0, 1]."""
    return float((run.table("retrained.csv", "change")["change"] > 0).mean())


def _method(run: Run) -> str:
    return run.choice("influence")


def middle(tests: list[dict]) -> str:
    """The effect size of the model with the median effect, with its interval."""
    known = sorted(
        (each for each in tests if each["effect"] == each["effect"]), key=lambda each: each["effect"]
    )
    if not known:
        return "-"
    each = known[(len(known) - 1) // 2]
    return f"{each['effect']:.2f} [{each['low']:.2f}, {each['high']:.2f}]"


def _draw(pictured: dict[tuple[str, str, str], dict[str, list[float]]]) -> Figure:
    """Each model's mean change of d by each method, a panel for each data set, noise and loss."""
    figure, axes = panels.tiles(len(pictured), 3, 3.6, 2.3)
    for axis, (where, methods) in zip(axes, pictured.items(), strict=True):
        for row, found in enumerate(methods.values()):
            dots = {"color": panels.COLOURS[0], "alpha": 0.5, "markersize": 5}
            axis.plot(found, [row] * len(found), "o", label="a model", **dots)
            axis.plot(np.mean(found), row, "|", color="#000000", markersize=14, label="their mean")
        axis.set_yticks(range(len(methods)), methods)
        axis.set_ylim(len(methods) - 0.5, -0.5)
        axis.axvline(0, color="#888888", linewidth=0.8)
        axis.set_xlabel("change of d by retraining")
        panels.entitle(axis, *where)
    panels.legend(figure)
    return figure
