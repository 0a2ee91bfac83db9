"""The closed loop: what relabelling and training again wins back."""

import pandas as pd

from src.part import Part, spread
from src.runs import Run, by_seed, grouped

NOTE = (
    "Round 0 is trained on the labels given. Each round relabels, leaves out what stays in doubt and "
    "trains from scratch. Wrong: samples trained with a wrong label; broken: those whose given label was "
    "right. Won back: share of the difference to the model of the clean labels, over the mean of all "
    "models (a share of each model's small difference would be noise). Mean ± standard deviation over the "
    "seeds."
)
COLUMNS = {"R@1": 3, "MAP@R": 3, "relabelled": 0, "left_out": 0, "wrong": 0, "broken": 0}


def parts(runs: list[Run]) -> list[Part]:
    """A row for each data set, noise, loss and round, and one for clean labels."""
    rows = []
    chosen = [run for run in runs if run.report.get("loop")]
    for alike in grouped(chosen, Run.setting).values():
        models, first = list(by_seed(alike).values()), alike[0]
        ratio = first.settings.get("noise", {}).get("ratio")
        where = {
            "dataset": first.choice("dataset"),
            "noise": first.choice("noise") if ratio is None else f"{ratio:.0%}",
            "loss": first.choice("loss"),
            "models": len(models),
        }
        clean = [run.report["loop"]["clean"] for run in models]
        rounds = [run.report["loop"]["rounds"] for run in models]
        for i in range(min(len(each) for each in rounds)):
            here = [each[i] for each in rounds]
            cells = {name: spread([each[name] for each in here], digits) for name, digits in COLUMNS.items()}
            back = {f"{name} won back": _back(rounds, clean, i, name) for name in ("R@1", "MAP@R")}
            rows.append({**where, "round": str(i), **cells, **back})
        if all(clean):
            cells = {name: spread([each[name] for each in clean]) for name in ("R@1", "MAP@R")}
            rows.append({**where, "round": "clean labels", **cells})
    table = pd.DataFrame(rows).fillna("-")
    title = "Closed loop: what relabelling wins back"
    return [Part("closed_loop", title, table, NOTE)] if rows else []


def _back(rounds: list[list[dict]], clean: list[dict | None], i: int, name: str) -> str:
    if i == 0 or not all(clean):
        return "-"
    lost = sum(best[name] - each[0][name] for best, each in zip(clean, rounds, strict=True))
    won = sum(each[i][name] - each[0][name] for each in rounds)
    return f"{won / lost:.0%}" if lost > 0 else "nothing was lost"
