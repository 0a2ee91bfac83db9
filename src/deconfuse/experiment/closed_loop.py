"""The closed loop: how much relabelling and training again wins back."""

import numpy as np
from matplotlib.figure import Figure

from deconfuse.retrieval.metrics import MEASURES
from deconfuse.runs import panels
from deconfuse.runs.finished import Run
from deconfuse.runs.section import Section, spread
from deconfuse.runs.settings import frame
from deconfuse.runs.takes import grouped

SCORES = False  # the table does not depend on scores

NOTE = (
    "Round 0 is trained on the labels given. Each round relabels samples, leaves out those whose label "
    "the evidence speaks against without being sure of another one, and trains from scratch. Wrong: "
    "samples trained with a wrong label. Broken: those of them whose given label was right. Won back: "
    "what a round gained on round 0, as a share of what the model of the clean labels gained on it, both "
    "summed over the models, because each model's own gains are small and their share would be noise. "
    "Mean ± standard deviation over the seeds. A loop ends early where a round would change no label or "
    "leave fewer than two classes; its last round then counts for the rounds that it did not make. In "
    "the picture, the mean goes as far as all seeds were asked to go. Where a data set has several "
    "settings, the one with most models is shown."
)
COLUMNS = {"R@1": 3, "MAP@R": 3, "relabelled": 0, "left_out": 0, "wrong": 0, "broken": 0}
CELLS = ("models", *COLUMNS, *(f"{name} won back" for name in MEASURES))


def sections(runs: list[Run]) -> list[Section]:
    """A row for each data set, noise, loss and round, and one for clean labels; with its picture."""
    rows, pictured = [], []
    chosen = [run for run in runs if run.report["loop"]]
    for (dataset, noise, loss, *_), alike in grouped(chosen, _key).items():
        seeds = grouped(alike, lambda run: run.seed).values()
        models = [max(some, key=_asked) for some in seeds]
        where = {"dataset": dataset, "noise": noise, "loss": loss}
        for i in range(max(_asked(run) for run in models) + 1):
            here = [run.report["loop"] for run in models if _asked(run) >= i]
            clean = [each["clean"] for each in here]
            lines = [_round(each, i) for each in here]
            known = [name for name in COLUMNS if any(line[name] is not None for line in lines)]
            cells = {name: spread([line[name] for line in lines], COLUMNS[name]) for name in known}
            first = [each["rounds"][0] for each in here]
            back = {f"{name} won back": _back(first, lines, clean, name) for name in MEASURES if i}
            rows.append((models[0], {**where, "round": str(i), "models": len(here), **cells, **back}))
        pictured.append((*models[0].panel("loop.rounds"), models))
        clean = [run.report["loop"]["clean"] for run in models]
        if all(clean):
            cells = {name: spread([each[name] for each in clean]) for name in MEASURES}
            rows.append((models[0], {**where, "round": "clean labels", "models": len(models), **cells}))
    if not rows:
        return []
    found = frame(rows, without=("loop.rounds",))
    found = found.reindex(columns=[*(name for name in found if name not in CELLS), *CELLS])
    title, shown = "Closed loop: what relabelling wins back", panels.of_one_setting(pictured, len)
    return [Section("closed_loop", title, found.astype(object).fillna("-"), NOTE, _draw(shown))]


def _key(run: Run) -> tuple[str, str, str, str, str]:
    where = run.choice("dataset"), run.noise, run.choice("loss"), run.choice("detector")
    return *where, run.setting("loop.rounds")


def _asked(run: Run) -> int:
    """How many rounds were asked for; fewer were made where the loop ended early."""
    return run.settings["loop"]["rounds"]


def _round(loop: dict, i: int) -> dict:
    """Round i, or the last round of a loop that ended before it."""
    return loop["rounds"][min(i, len(loop["rounds"]) - 1)]


def _back(first: list[dict], lines: list[dict], clean: list[dict | None], name: str) -> str:
    if not all(clean):
        return "-"
    lost = sum(best[name] - each[name] for best, each in zip(clean, first, strict=True))
    won = sum(line[name] - each[name] for line, each in zip(lines, first, strict=True))
    return f"{won / lost:.0%}" if lost > 0 else "nothing was lost"


def _draw(pictured: dict[tuple[str, str, str], list[Run]]) -> Figure:
    """R@1 and MAP@R at each round, a thin line per seed; dashed: the mean of the models of clean labels."""
    figure, axes = panels.grid(len(pictured), len(MEASURES), 4, 2.2)
    blue, orange, *_ = panels.COLOURS
    for row, (where, models) in zip(axes, pictured.items(), strict=True):
        loops, common = [run.report["loop"] for run in models], min(map(_asked, models))
        for axis, name in zip(row, MEASURES, strict=True):
            lines = [[each[name] for each in loop["rounds"]] for loop in loops]
            for line in lines:
                axis.plot(line, color=blue, alpha=0.35, linewidth=1, marker=".", label="one seed")
            mean = [np.mean([_round(loop, i)[name] for loop in loops]) for i in range(common + 1)]
            axis.plot(mean, color=blue, linewidth=2, marker="o", label="mean of the seeds")
            if all(loop["clean"] for loop in loops):
                clean = np.mean([loop["clean"][name] for loop in loops])
                axis.axhline(clean, color=orange, linestyle="--", label="clean labels, mean")
            axis.set_xticks(range(max(map(len, [*lines, mean]))))
            axis.set_ylabel(name)
            panels.entitle(axis, *where)
    for axis in axes[-1]:
        axis.set_xlabel("round")
    panels.legend(figure)
    return figure
