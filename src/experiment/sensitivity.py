"""How far the answer depends on EIF's radius, IF's damping and the rate of retraining."""

import pandas as pd

from src.comparison import share_apart
from src.part import Part, spread
from src.runs import Run, by_seed, grouped

NOTE = (
    "Change of d of the confusion pairs after retraining by the scores; share > 0: of the pairs that "
    "moved apart. Found by size: AP of ranking flipped samples by mean |score|. Mean ± standard deviation "
    "over the seeds."
)
KNOBS = {"eif": "radius", "if": "damping"}
TURNED = ("influence.radius", "influence.damping", "retrain.optimizer.lr")


def parts(runs: list[Run]) -> list[Part]:
    """A row for each data set, noise, loss, method, knob and rate; where a sweep turned one of them."""
    chosen = [run for run in runs if run.report.get("retrain") and run.choice("influence") in KNOBS]
    chosen = [run for run in chosen if run.choice("target") == "pairs" and _knob(run) is not None]
    chosen = [run for run in chosen if run.report["retrain"]["lr"] is not None]
    rows = []
    for _, alike in grouped(
        chosen, lambda run: (*run.where.values(), run.setting(*TURNED), _method(run))
    ).items():
        kinds = grouped(alike, lambda run: (_knob(run), run.report["retrain"]["lr"]))
        if len(kinds) < 3:
            continue
        for (knob, rate), some in sorted(kinds.items(), key=lambda item: item[0]):
            models = by_seed(some).values()
            found = [(run.report["noise"] or {}).get("absolute_influence") or {} for run in models]
            rows.append(
                {
                    **some[0].where,
                    "method": _method(some[0]),
                    "knob": f"{KNOBS[_method(some[0])]} {knob:g}",
                    "rate": f"{rate:g}",
                    "models": len(models),
                    "change of d": spread([run.report["retrain"]["mean"] for run in models], 4),
                    "share > 0": spread([share_apart(run) for run in models], 2),
                    "found by size, AP": spread([each.get("average_precision") for each in found]),
                }
            )
    title = "How the answer depends on EIF's radius, IF's damping and the rate of retraining"
    return [Part("sensitivity", title, pd.DataFrame(rows), NOTE)] if rows else []


def _key(run: Run) -> tuple[str, ...]:
    return *run.where.values(), run.setting(*TURNED), _method(run)


def _method(run: Run) -> str:
    return run.choice("influence")


def _knob(run: Run) -> float | None:
    """None with radius=null, and without settings."""
    return (run.settings.get("influence") or {}).get(KNOBS[_method(run)])
