"""Table 5: training classes with relabel suggestions, by the labels that are suggested."""

from deconfuse.runs.finished import Run
from deconfuse.runs.section import Section, spread
from deconfuse.runs.settings import frame
from deconfuse.runs.takes import GIVEN, by_seed, grouped, usual

LABELS = GIVEN

KINDS = ("centralized", "diversified", "individual", "others")
RULES = (("entropy", "kind", "harmful"), ("0.9", "kind_by_share", "harmful_by_share"))  # name, kinds, merges
NOTE = (
    "The number of classes with relabel suggestions, which are harmful samples whose neighbours vote for "
    "another label. The labels are as they are. Mean ± standard deviation over the seeds. Rule entropy: "
    "centralized below 0.35 nats, as in the paper's text. Rule 0.9: centralized where nine tenths of the "
    "suggestions agree, as in the authors' scripts. Merges: the pairs of classes that centralized "
    "suggestions join, compared with the pairs that the data set knows to look alike: precision and "
    "recall. The paper: CUB200 41 of 100 classes (2 centralized, 3 diversified, 28 individual, 8 "
    "others)."
)


def sections(runs: list[Run]) -> list[Section]:
    """A row for each data set, loss, detector and rule."""
    chosen = [run for run in runs if not run.report["loop"]]
    chosen = [run for run in chosen if (run.choice("target"), run.choice("influence")) == ("all", "eif")]
    rows = []
    for (dataset, loss, detector, _), alike in grouped(usual(chosen, "influence"), _key).items():
        models = by_seed(alike).values()
        for rule, key, suggested in RULES:
            counts = [run.report["classes"][key] for run in models]
            row = {"dataset": dataset, "loss": loss, "labels by": detector, "rule": rule}
            row |= {"models": len(models), "classes": spread([sum(each.values()) for each in counts], 1)}
            row |= {kind: spread([each[kind] for each in counts], 1) for kind in KINDS}
            row["merges: precision"] = _merge(models, suggested, "precision")
            rows.append((alike[0], {**row, "recall": _merge(models, suggested, "recall")}))
    title = "Table 5: training classes with relabel suggestions"
    return [Section("table5", title, frame(rows), NOTE)] if rows else []


def _merge(runs: list[Run], suggested: str, name: str) -> str:
    merges = [run.report["merge"] for run in runs]
    if not any(merges):  # the data set knows no classes to look alike
        return "-"
    return spread([each and each[suggested][name] for each in merges], 2)


def _key(run: Run) -> tuple[str, str, str, str]:
    return run.choice("dataset"), run.choice("loss"), run.choice("detector"), run.setting()
