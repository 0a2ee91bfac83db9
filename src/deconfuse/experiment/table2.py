"""Table 2: how often flipped samples are recommended their true label."""

from deconfuse.runs.finished import Run
from deconfuse.runs.section import MISSING, Section, spread
from deconfuse.runs.settings import frame
from deconfuse.runs.takes import FLIPPED, by_seed, grouped, usual

LABELS = FLIPPED

RATIOS = ("1 %", "5 %", "10 %")
# Table 2 of Liu et al. (NeurIPS 2022): CUB200, CARS196, InShop.
PAPER = {
    ("1 %", "proxynca"): "75.7, 84.1, 89.7 %",
    ("1 %", "softtriple"): "75.0, 79.5, 90.0 %",
    ("5 %", "proxynca"): "82.5, 86.8, 90.3 %",
    ("5 %", "softtriple"): "86.1, 90.1, 87.0 %",
    ("10 %", "proxynca"): "83.3, 91.7, 88.4 %",
    ("10 %", "softtriple"): "89.9, 90.0, 86.3 %",
}
NOTE = (
    "Recommended right: of the flipped samples that score harmful by EIF, the share (in %) whose "
    "recommendation (Algorithm 1) is the true label; where the recommendation is the current label, the "
    "second choice counts. Of all flipped: the share of all flipped samples, harmful or not, whose "
    "likeliest other label is the true one. Mean ± standard deviation over the seeds."
)


def sections(runs: list[Run]) -> list[Section]:
    """A row for each data set, noise and loss."""
    chosen = [run for run in runs if run.choice("influence") == "eif" and run.choice("detector") == "knn"]
    chosen = [run for run in chosen if run.choice("target") == "all" and not run.report["loop"]]
    chosen = [run for run in chosen if _ratio(run) in RATIOS]
    rows = []
    for (dataset, kind), here in grouped(usual(chosen, "influence"), _data).items():
        for noise in RATIOS:
            for loss in sorted({run.choice("loss") for run in here}):
                alike = [run for run in here if (_ratio(run), run.choice("loss")) == (noise, loss)]
                for some in grouped(alike, Run.setting).values() or [[]]:
                    found = by_seed(some).values()
                    row = {"dataset": dataset, "noise": f"{noise} {kind}", "loss": loss}
                    row["models"] = len(found) or MISSING
                    row["recommended right"] = _percent(found, "recommended_right")
                    row["of all flipped"] = _percent(found, "recommended_right_all")
                    row["paper, CUB200, CARS196, InShop"] = PAPER.get((noise, loss), "-")
                    rows.append(((some or here)[0], row))
    title = "Table 2: recommended labels that are right"
    return [Section("table2", title, frame(rows), NOTE)] if rows else []


def _ratio(run: Run) -> str:
    """The share of flipped labels as in `RATIOS`, such as "10 %"."""
    return run.noise.rpartition(" ")[0]


def _data(run: Run) -> tuple[str, str]:
    """The data set, and the kind of noise."""
    return run.choice("dataset"), run.noise.rpartition(" ")[2]


def _percent(runs: list[Run], name: str) -> str:
    values = [run.report["noise"][name] for run in runs]
    return spread([None if value is None else 100 * value for value in values], 1)
