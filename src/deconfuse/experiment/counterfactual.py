"""Which method predicts what happens when training samples are left out."""

from deconfuse.runs.finished import Run
from deconfuse.runs.section import Section, spread
from deconfuse.runs.settings import frame
from deconfuse.runs.takes import by_seed, grouped

NOTE = (
    "LDS, linear datamodeling score: the rank correlation of predicted and real changes of d when the "
    "head is trained without random subsets; 1 = predicted right, 0 = chance. Mean ± standard deviation "
    "over the seeds. Each model's 95 % interval over its explanations is in its metrics.json."
)


def sections(runs: list[Run]) -> list[Section]:
    """A row for each data set, noise, loss, target and method with its settings."""
    chosen = [run for run in runs if run.report["counterfactual"]]
    rows = []
    for alike in grouped(chosen, _key).values():
        models, first = by_seed(alike).values(), alike[0]
        row = dict(zip(("dataset", "noise", "loss", "target", "influence"), _key(first)[:-1], strict=True))
        damping = first.settings["influence"].get("damping", "-")  # not every method has one
        found = [run.report["counterfactual"]["mean"] for run in models]
        row |= {"damping": str(damping), "models": len(models), "LDS": spread(found)}
        rows.append((first, row))
    title = "Which method predicts retraining without random subsets"
    return [Section("counterfactual", title, frame(rows), NOTE)] if rows else []


def _key(run: Run) -> tuple[str, ...]:
    named = (run.choice(group) for group in ("loss", "target", "influence"))
    return run.choice("dataset"), run.noise, *named, run.setting()
