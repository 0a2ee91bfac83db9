"""Table 3: seconds of detection and of recommendation."""

from deconfuse.runs.finished import Run
from deconfuse.runs.section import Section, spread
from deconfuse.runs.settings import frame
from deconfuse.runs.takes import by_seed, grouped, usual

SCORES = False  # the table does not depend on scores

# Table 3 of Liu et al. (NeurIPS 2022), CUB200: seconds of detection and of recommendation.
PAPER = {"eif": "260.20 ± 29.28, 1.85 ± 0.01", "if": "375.56 ± 68.06, -"}
NOTE = (
    "Seconds. Detection: scoring all training samples on all confusion pairs, from cached features; the "
    "pass that makes the features is not counted. Recommendation: the neighbours' vote for all training "
    "samples. The paper's numbers are of ResNet-50 on CUB200 on its authors' machine; it does not say "
    "for how many pairs."
)


def sections(runs: list[Run]) -> list[Section]:
    """A row for each data set and method, of runs with experiment=table3."""
    chosen = [run for run in runs if run.choice("experiment") == "table3" and run.choice("target") == "all"]
    rows = []
    for (dataset, noise, loss, method, *machine, _), alike in grouped(
        usual(chosen, "influence"), _key
    ).items():
        models = by_seed(alike).values()
        times = [run.report["seconds"] for run in models]
        row = {"dataset": dataset, "noise": noise, "loss": loss, "method": method}
        row |= {"device, cores, threads": ", ".join(machine), "models": len(models)}
        row["pairs"] = spread([run.report["explained"]["rows"] for run in models], 0)
        row["detection"] = spread([each["influence"] for each in times], 2)
        row["recommendation"] = spread([each["relabelling"] for each in times], 2)
        rows.append((alike[0], {**row, "paper, CUB200": PAPER.get(method, "-")}))
    title = "Table 3: seconds of detection and of recommendation"
    return [Section("table3", title, frame(rows), NOTE)] if rows else []


def _key(run: Run) -> tuple[str, ...]:
    where = run.choice("dataset"), run.noise, run.choice("loss"), run.choice("influence")
    machine = [str(run.report["machine"][name]) for name in ("device", "cores", "threads")]
    return *where, *machine, run.setting("influence")
