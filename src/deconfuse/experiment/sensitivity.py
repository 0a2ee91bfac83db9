"""How far the result depends on EIF's radius, IF's damping and the rate of retraining."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import SymmetricalLogLocator

from deconfuse.runs import panels
from deconfuse.runs.comparison import share_apart
from deconfuse.runs.finished import Run
from deconfuse.runs.section import Section, spread
from deconfuse.runs.settings import frame
from deconfuse.runs.takes import by_seed, grouped, natural

NOTE = (
    "Change of d: of the confusion pairs, after retraining by the scores. Share > 0: share of the pairs "
    "that moved apart. Found by size: AP of ranking flipped samples by mean |score|. Mean ± standard "
    "deviation over the seeds. In the picture, both axes of the change are logarithmic, and knobs of 0 "
    "are left out. Where a data set has several settings, the one with most points is shown."
)
KNOBS = {"eif": "path.radius", "if": "damping"}  # below influence=
TURNED = ("influence.path.radius", "influence.damping", "retrain.optimizer.lr")


@dataclass(frozen=True)
class Point:
    """A method's result at one rate and one value of its knob; aps: AP by seed, where labels were flipped."""

    rate: float
    knob: float
    change: float
    aps: dict[int, float]


def sections(runs: list[Run]) -> list[Section]:
    """A row for each data set, noise, loss, method, knob and rate, with its picture, where one was turned."""
    chosen = [run for run in runs if run.report["retrain"] and run.choice("influence") in KNOBS]
    chosen = [run for run in chosen if run.choice("target") == "pairs" and _knob(run) is not None]
    chosen = [run for run in chosen if run.report["retrain"]["lr"] is not None]
    rows, pictured = [], []
    for _, alike in grouped(chosen, _key).items():
        kinds = grouped(alike, lambda run: (_knob(run), run.report["retrain"]["lr"]))
        if len(kinds) < 3:
            continue
        points = []
        for (knob, rate), some in sorted(kinds.items(), key=lambda item: item[0]):
            models = by_seed(some)
            change = [run.report["retrain"]["mean"] for run in models.values()]
            by_size = {seed: _by_size(run) for seed, run in models.items()}
            known = {seed: ap for seed, ap in by_size.items() if ap is not None}
            points.append(Point(rate, knob, np.mean(change), known))
            row = {**some[0].where, "method": _method(some[0])}
            row |= {
                "knob": f"{KNOBS[_method(some[0])].split('.')[-1]} {knob:g}",
                "rate": f"{rate:g}",
                "models": len(models),
            }
            row["change of d"] = spread(change, 4, small=True)
            row["share > 0"] = spread([share_apart(run) for run in models.values()], 2)
            rows.append((some[0], {**row, "found by size, AP": spread(by_size.values())}))
        setting, where = alike[0].panel("influence", "retrain.optimizer.lr")
        pictured.append((setting, (*where, _method(alike[0])), [each for each in points if each.knob]))
    title = "How the answer depends on EIF's radius, IF's damping and the rate of retraining"
    shown = panels.of_one_setting(pictured, len)
    shown = dict(sorted(shown.items(), key=lambda item: natural(str(item[0]))))
    return [Section("sensitivity", title, frame(rows), NOTE, _draw(shown))] if rows else []


def _by_size(run: Run) -> float | None:
    """AP of ranking flipped samples by mean |score|; None where no label was flipped."""
    ranked = run.report["noise"] and run.report["noise"]["absolute_influence"]
    return ranked["average_precision"] if ranked else None


def _key(run: Run) -> tuple[str, ...]:
    return *run.where.values(), _method(run), run.setting(*TURNED)


def _method(run: Run) -> str:
    return run.choice("influence")


def _knob(run: Run) -> float | None:
    """The value that the knob was set to; None where the run's settings do not have it."""
    found = run.settings["influence"]
    for key in KNOBS[_method(run)].split("."):
        found = found.get(key) if found else None
    return found


def _draw(pictured: dict[tuple[str, str, str, str], list[Point]]) -> Figure:
    """Change of d (a line for each rate) and AP against the knob; a row of panels for each method."""
    rates = sorted({point.rate for points in pictured.values() for point in points})
    figure, axes = panels.grid(len(pictured), 2, 4, 2.3)
    for (left, right), ((*where, method), points) in zip(axes, pictured.items(), strict=True):
        for i, rate in enumerate(rates):
            line = sorted((point.knob, point.change) for point in points if point.rate == rate)
            if line:
                left.plot(*zip(*line, strict=True), label=f"rate {rate:g}", **panels.style(i))
        # A change may be of either sign, and grows with the rate.
        smallest = min((abs(point.change) for point in points if point.change), default=1.0)
        left.set_yscale("symlog", linthresh=smallest)
        left.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=smallest, subs=(1, 2, 5)))
        left.yaxis.set_major_formatter("{x:g}")
        # Retraining comes after the scores, so its rate does not change what is found: each seed counts once.
        aps: dict[float, dict[int, float]] = {}
        for point in points:
            aps.setdefault(point.knob, {}).update(point.aps)
        known = sorted((knob, np.mean([*each.values()])) for knob, each in aps.items() if each)
        for axis, what in ((left, "change of d"), (right, "AP by size")):
            axis.set(xscale="log", xlabel=f"{KNOBS[method]} of {method}", ylabel=what)
            panels.entitle(axis, *where)
        if known:
            right.plot(*zip(*known, strict=True), "o-", color="#555555", markersize=4)
            right.set_ylim(0, 1.02)
        else:
            right.remove()
    panels.legend(figure)
    return figure
