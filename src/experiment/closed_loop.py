"""The closed loop: what relabelling and training again wins back."""

import pandas as pd

from src.part import Part, spread
from src.runs import Run, by_seed, grouped

NOTE = (
    "Round 0 is trained on the labels given. Each round relabels, leaves out what stays in doubt and "
    "trains from scratch. Wrong: samples trained with a wrong label; broken: those whose given label was "
    "right. Won back: share of the difference to the model of the clean labels, over the mean of all "
    "models (a share of each model's small difference would be noise). Mean ± standard deviation over the "
    "seeds. A loop that ended early, as a round would have changed no label, stays at its last round."
)
COLUMNS = {"R@1": 3, "MAP@R": 3, "relabelled": 0, "left_out": 0, "wrong": 0, "broken": 0}


def parts(runs: list[Run]) -> list[Part]:
    """A row for each data set, noise, loss and round, and one for clean labels."""
    rows = []
    chosen = [run for run in runs if run.report.get("loop")]
    for (dataset, noise, loss, *_), alike in grouped(chosen, _key).items():
        models = list(by_seed(alike).values())
        where = {"dataset": dataset, "noise": noise, "loss": loss, "models": len(models)}
        clean = [run.report["loop"]["clean"] for run in models]
        rounds = [run.report["loop"]["rounds"] for run in models]
        most = max(len(each) for each in rounds)
        rounds = [each + each[-1:] * (most - len(each)) for each in rounds]
        for i in range(most):
            known = [name for name in COLUMNS if any(each[i][name] is not None for each in rounds)]
            cells = {name: spread([each[i][name] for each in rounds], COLUMNS[name]) for name in known}
            back = {f"{name} won back": _back(rounds, clean, i, name) for name in ("R@1", "MAP@R")}
            rows.append({**where, "round": str(i), **cells, **back})
        if all(clean):
            cells = {name: spread([each[name] for each in clean]) for name in ("R@1", "MAP@R")}
            rows.append({**where, "round": "clean labels", **cells})
    columns = ["dataset", "noise", "loss", "models", "round", *COLUMNS, "R@1 won back", "MAP@R won back"]
    table = pd.DataFrame(rows, columns=columns).astype(object).fillna("-")
    title = "Closed loop: what relabelling wins back"
    return [Part("closed_loop", title, table, NOTE)] if rows else []


def _key(run: Run) -> tuple[str, str, str, str, str]:
    where = run.choice("dataset"), run.noise, run.choice("loss"), run.choice("detector")
    return *where, run.setting()


def _back(rounds: list[list[dict]], clean: list[dict | None], i: int, name: str) -> str:
    if i == 0 or not all(clean):
        return "-"
    lost = sum(best[name] - each[0][name] for best, each in zip(clean, rounds, strict=True))
    won = sum(each[i][name] - each[0][name] for each in rounds)
    return f"{won / lost:.0%}" if lost > 0 else "nothing was lost"
