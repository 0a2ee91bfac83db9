"""Table 1, lower half: the change of d of test classes after retraining (Eq. 8), by Wilcoxon's test."""

from deconfuse.runs.comparison import changes, improvements, retrained
from deconfuse.runs.finished import Run
from deconfuse.runs.section import Section, median_of

# Table 1 of Liu et al. (NeurIPS 2022), CUB200: M -> improvement of EIF over IF, p.
PAPER = {
    10: "2.23e-02, 9.8e-04",
    15: "2.34e-02, 3.1e-05",
    20: "2.43e-02, 9.5e-07",
    25: "2.44e-02, 3.0e-08",
    30: "2.44e-02, 9.3e-10",
}
NOTE = (
    "Improvement: the change of mean d by the first method minus that by the second, mean over the M "
    "test classes with most confusions, then mean ± standard deviation over the models. p: one-sided "
    "Wilcoxon signed-rank test within each model, median (largest); it assumes that the differences are "
    "symmetric about their median. M classes that all improve have p = 2^-M."
)


def sections(runs: list[Run]) -> list[Section]:
    """The table of methods against each other, and of each method's own change of d."""
    chosen = retrained(runs, "groups.csv")
    table = improvements(chosen, "classes", PAPER, _cells)
    title = "Table 1, groups: does retraining by EIF move whole classes' confusions further apart?"
    return [
        *([Section("table1_groups", title, table, NOTE)] if len(table) else []),
        *changes(chosen, "table1_groups_methods", "Change of d of the confusion groups after retraining"),
    ]


def _cells(tests: list[dict]) -> dict[str, str]:
    return {
        "p": median_of([each["p_wilcoxon"] for each in tests]),
    }
