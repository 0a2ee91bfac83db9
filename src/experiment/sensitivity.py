"""How far the answer depends on EIF's radius, IF's damping and the rate of retraining."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from src.comparison import share_apart
from src.part import COLOURS, Part, spread
from src.runs import Run, by_seed, grouped

NOTE = (
    "Change of d of the confusion pairs after retraining by the scores; share > 0: of the pairs that "
    "moved apart. Found by size: AP of ranking flipped samples by mean |score|. Mean ± standard deviation "
    "over the seeds."
)
KNOBS = {"eif": "radius", "if": "damping"}
TURNED = ("influence.radius", "influence.damping", "retrain.optimizer.lr")


def parts(runs: list[Run]) -> list[Part]:
    """A row for each data set, noise, loss, method, knob and rate, with its picture, where one was turned."""
    chosen = [run for run in runs if run.report.get("retrain") and run.choice("influence") in KNOBS]
    chosen = [run for run in chosen if run.choice("target") == "pairs" and _knob(run) is not None]
    chosen = [run for run in chosen if run.report["retrain"]["lr"] is not None]
    rows, points = [], []
    for key, alike in grouped(chosen, _key).items():
        kinds = grouped(alike, lambda run: (_knob(run), run.report["retrain"]["lr"]))
        if len(kinds) < 3:
            continue
        for (knob, rate), some in sorted(kinds.items(), key=lambda item: item[0]):
            models = by_seed(some).values()
            found = [(run.report["noise"] or {}).get("absolute_influence") or {} for run in models]
            change = [run.report["retrain"]["mean"] for run in models]
            by_size = [each.get("average_precision") for each in found]
            points.append((key, rate, knob, change, by_size))
            rows.append(
                {
                    **some[0].where,
                    "method": _method(some[0]),
                    "knob": f"{KNOBS[_method(some[0])]} {knob:g}",
                    "rate": f"{rate:g}",
                    "models": len(models),
                    "change of d": spread(change, 4),
                    "share > 0": spread([share_apart(run) for run in models], 2),
                    "found by size, AP": spread(by_size),
                }
            )
    title = "How the answer depends on EIF's radius, IF's damping and the rate of retraining"
    return [Part("sensitivity", title, pd.DataFrame(rows), NOTE, _draw(points))] if rows else []


def _key(run: Run) -> tuple[str, ...]:
    return *run.where.values(), run.setting(*TURNED), _method(run)


def _method(run: Run) -> str:
    return run.choice("influence")


def _knob(run: Run) -> float | None:
    """None with radius=null, and without settings."""
    return (run.settings.get("influence") or {}).get(KNOBS[_method(run)])


def _draw(points: list[tuple]) -> Figure:
    """Change of d, a line for each rate, and AP, at each value of the knob; a column for each method."""
    columns = sorted({key for key, *_ in points})
    figure = Figure((3 * len(columns) + 0.6, 5.2), layout="constrained")
    axes = figure.subplots(2, len(columns), squeeze=False)
    for (upper, lower), key in zip(axes.T, columns, strict=True):
        here = [point[1:] for point in points if point[0] == key]
        for i, rate in enumerate(sorted({rate for rate, *_ in here})):
            x, change, by_size = zip(*(point[1:] for point in here if point[0] == rate), strict=True)
            colour = COLOURS[i % len(COLOURS)]
            upper.plot(x, [np.mean(each) for each in change], "o-", color=colour, label=f"rate {rate:g}")
        # What is found does not hang on the rate of retraining, which comes after: one line.
        lower.plot(x, [np.nan if None in each else np.mean(each) for each in by_size], "o-", color="#555555")
        upper.set(xscale="log", yscale="log")
        lower.set(xscale="log", ylim=(0, 1.02), xlabel=f"{KNOBS[key[-1]]} of {key[-1]}")
        upper.set_title(", ".join(key[:3]), fontsize=9)
        for axis in (upper, lower):
            axis.grid(color="#dddddd")
    axes[0, 0].set_ylabel("change of d by retraining")
    axes[1, 0].set_ylabel("AP of flipped labels by size")
    axes[0, 0].legend(fontsize=7)
    return figure
