"""Figure 2: the share of flipped samples found, against the share of samples checked."""

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure

from deconfuse.retrieval.statistics import detection_curve
from deconfuse.runs import panels
from deconfuse.runs.finished import Run
from deconfuse.runs.section import Section, spread
from deconfuse.runs.settings import frame
from deconfuse.runs.takes import FLIPPED, by_seed, grouped

LABELS = FLIPPED

CHECKED = (0.05, 0.1, 0.2, 0.5)
GRID = np.linspace(0, 1, 201)
RANKINGS = {"by size": "influence_abs_mean", "signed": "influence_mean"}
NOTE = (
    "Training samples are ranked by their EIF score over all confusion pairs: signed, by the mean score, "
    "most harmful first, as in the paper; by size, by the mean absolute score. N: number of theta. A "
    "random order finds as large a share as it checks. Mean ± standard deviation over the seeds. Lines "
    "are means; where N makes no difference, one line hides the others."
)


def sections(runs: list[Run]) -> list[Section]:
    """A row for each data set, noise, loss, N and ranking, with the curves."""
    chosen = [run for run in runs if run.report["noise"]["absolute_influence"] and not run.report["loop"]]
    chosen = [run for run in chosen if (run.choice("influence"), run.choice("target")) == ("eif", "all")]
    chosen = [run for run in chosen if run.choice("detector") == "knn"]
    rows, lines = [], []
    for where, here in grouped(chosen, _where).items():
        by_theta = grouped(here, _theta)
        if len(by_theta) < 2:
            continue
        for theta, alike in by_theta.items():
            tables = [
                run.table("samples.csv", "flipped", *RANKINGS.values()) for run in by_seed(alike).values()
            ]
            for ranking, column in RANKINGS.items():
                curves = [_curve(table[column], table["flipped"]) for table in tables]
                found = {
                    f"found at {share:.0%}": spread([np.interp(share, GRID, each) for each in curves])
                    for share in CHECKED
                }
                cells = {"N": theta, "ranking": ranking, "models": len(tables)}
                rows.append((alike[0], {**alike[0].where, **cells, **found}))
                lines.append((where, theta, ranking, np.mean(curves, 0)))
    if not rows:
        return []
    title = "Figure 2: flipped samples found by EIF"
    return [Section("figure2", title, frame(rows), NOTE, _draw(lines))]


def _curve(scores: pd.Series, flipped: pd.Series) -> Float[np.ndarray, " g"]:
    """The share found at each share checked, as listed in GRID."""
    checked, found = detection_curve(scores.to_numpy(float), flipped.to_numpy(bool))
    return np.interp(GRID, checked, found)


def _where(run: Run) -> tuple[str, str, str, str]:
    """The key of a panel: its curves differ in N alone."""
    return *run.where.values(), run.setting("influence.n_theta")


def _theta(run: Run) -> int:
    return run.settings["influence"]["n_theta"]


def _draw(lines: list[tuple]) -> Figure:
    wheres = list(dict.fromkeys(line[0] for line in lines))
    figure, axes = panels.tiles(len(wheres), 2, 4.4, 3)
    colours = dict(zip((1, 2, 4), panels.COLOURS, strict=False))
    for axis, where in zip(axes, wheres, strict=True):
        for here, theta, ranking, curve in lines:
            if here == where:
                style = "-" if ranking == "by size" else "--"
                colour = colours.get(theta, "#555555")
                axis.plot(GRID, curve, style, color=colour, label=f"N = {theta}, {ranking}", linewidth=1.4)
        axis.plot([0, 1], [0, 1], ":", color="#888888", label="random")
        panels.entitle(axis, *where[:3])
        axis.set_xlabel("share of training samples checked", fontsize=8)
        axis.set_ylabel("share of flipped samples found", fontsize=8)
    panels.legend(figure)
    return figure
