"""Corrected labels: the model before and after them, over seeds."""

from deconfuse.runs.finished import Run
from deconfuse.runs.section import Section, spread
from deconfuse.runs.settings import frame
from deconfuse.runs.takes import by_seed, grouped

SCORES = False  # the table does not depend on scores
CORRECTED = True  # the table takes runs with corrected labels

NOTE = (
    "Each seed's model of the labels given (before) and of the labels corrected by relabels=FILE "
    "(after). Mean ± standard deviation over the seeds. Change: after - before of the same seed; a "
    "change that is smaller than its standard deviation may be chance."
)


def sections(runs: list[Run]) -> list[Section]:
    """A row for each setting and file, R@1 and MAP@R before and after, and what became of the confusions."""
    chosen = [run for run in runs if run.report["corrections"]]
    rows = []
    for _, alike in grouped(chosen, lambda run: (*run.where.values(), run.setting())).items():
        found = [run.report["corrections"] for run in by_seed(alike).values()]
        row = {**alike[0].where, "corrections": found[0]["file"], "models": len(found)}
        row["changed"] = spread([each["changed"] for each in found], 0)
        for name in ("R@1", "MAP@R"):
            before, after = ([each[moment][name] for each in found] for moment in ("before", "after"))
            row |= {f"{name} before": spread(before), f"{name} after": spread(after)}
            row[f"{name} change"] = spread([new - old for old, new in zip(before, after, strict=True)])
        for fate in ("vanished", "appeared", "moved"):
            row[fate] = spread([each[fate] for each in found], 1)
        rows.append((alike[0], row))
    return [Section("relabels", "Corrected labels, before and after", frame(rows), NOTE)] if rows else []
