"""The closed loop: what relabelling and training again wins back."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from src.artifacts import short_hash
from src.part import COLOURS, Part, spread
from src.runs import Run, grouped

NOTE = (
    "Round 0 is trained on the labels given. Each round relabels, leaves out what stays in doubt and "
    "trains from scratch. Wrong: samples trained with a wrong label; broken: those whose given label was "
    "right. Won back: share of the difference to the model of the clean labels, over the mean of all "
    "models (a share of each model's small difference would be noise). Mean ± standard deviation over the "
    "seeds. A loop that ended early, as a round would have changed no label, stays at its last round."
)
COLUMNS = {"R@1": 3, "MAP@R": 3, "relabelled": 0, "left_out": 0, "wrong": 0, "broken": 0}


def parts(runs: list[Run]) -> list[Part]:
    """A row for each data set, noise, loss and round, and one for clean labels; with its picture."""
    rows, panels = [], []
    chosen = [run for run in runs if run.report.get("loop")]
    for (dataset, noise, loss, *_), alike in grouped(chosen, _key).items():
        models = [max(some, key=_asked) for some in grouped(alike, lambda run: run.seed).values()]
        where = {"dataset": dataset, "noise": noise, "loss": loss}
        means: dict[str, list[float]] = {"R@1": [], "MAP@R": []}
        for i in range(max(_asked(run) for run in models) + 1):
            here = [run.report["loop"] for run in models if _asked(run) >= i]
            clean = [each["clean"] for each in here]
            lines = [each["rounds"][min(i, len(each["rounds"]) - 1)] for each in here]
            known = [name for name in COLUMNS if any(line[name] is not None for line in lines)]
            cells = {name: spread([line[name] for line in lines], COLUMNS[name]) for name in known}
            for name, mean in means.items():
                mean.append(np.mean([line[name] for line in lines]))
            first = [each["rounds"][0] for each in here]
            back = {f"{name} won back": _back(first, lines, clean, name) for name in ("R@1", "MAP@R") if i}
            rows.append({**where, "models": len(here), "round": str(i), **cells, **back})
        panels.append((where.copy(), [run.report["loop"] for run in models], means))
        clean = [run.report["loop"]["clean"] for run in models]
        where["models"] = len(models)
        if all(clean):
            cells = {name: spread([each[name] for each in clean]) for name in ("R@1", "MAP@R")}
            rows.append({**where, "round": "clean labels", **cells})
    columns = ["dataset", "noise", "loss", "models", "round", *COLUMNS, "R@1 won back", "MAP@R won back"]
    table = pd.DataFrame(rows, columns=columns).astype(object).fillna("-")
    title = "Closed loop: what relabelling wins back"
    return [Part("closed_loop", title, table, NOTE, _draw(panels))] if rows else []


def _key(run: Run) -> tuple[str, str, str, str, str]:
    where = run.choice("dataset"), run.noise, run.choice("loss"), run.choice("detector")
    loop = {key: value for key, value in run.settings.get("loop", {}).items() if key != "rounds"}
    return *where, short_hash([run.setting("loop"), loop])


def _asked(run: Run) -> int:
    """How many rounds were asked for; fewer are there where one would have changed no label."""
    return run.settings.get("loop", {}).get("rounds", len(run.report["loop"]["rounds"]) - 1)


def _back(first: list[dict], lines: list[dict], clean: list[dict | None], name: str) -> str:
    if not all(clean):
        return "-"
    lost = sum(best[name] - each[name] for best, each in zip(clean, first, strict=True))
    won = sum(line[name] - each[name] for line, each in zip(lines, first, strict=True))
    return f"{won / lost:.0%}" if lost > 0 else "nothing was lost"


def _draw(panels: list[tuple[dict[str, str], list[dict], dict[str, list[float]]]]) -> Figure:
    """R@1 and MAP@R round by round, a thin line for each seed; dashed: clean labels, mean over the seeds."""
    figure = Figure((2.6 * len(panels) + 1, 5.2), layout="constrained")
    axes = figure.subplots(2, len(panels), squeeze=False, sharex="col")
    for column, (where, loops, means) in enumerate(panels):
        for axis, (name, mean) in zip(axes[:, column], means.items(), strict=True):
            for loop in loops:
                line = [each[name] for each in loop["rounds"]]
                axis.plot(line, color=COLOURS[0], alpha=0.35, linewidth=1, marker=".")
            axis.plot(mean, color=COLOURS[0], linewidth=2, marker="o", label="mean of the seeds")
            if all(loop["clean"] for loop in loops):
                clean = np.mean([loop["clean"][name] for loop in loops])
                axis.axhline(clean, color=COLOURS[1], linestyle="--", label="clean labels")
            axis.grid(axis="y", color="#dddddd")
            axis.set_xticks(range(len(mean)))
            axes[-1, column].set_xlabel("round")
            if not column:
                axis.set_ylabel(name)
        title = f"{where['dataset']}, {where['loss']}\n{where['noise']}"
        axes[0, column].set_title(title, fontsize=9)
    axes[0, 0].legend(fontsize=7)
    return figure
