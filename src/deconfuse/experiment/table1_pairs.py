"""Table 1, upper half: the change of d after retraining (Eq. 7), method against method, paired t-test."""

from deconfuse.runs.comparison import changes, improvements, middle, retrained
from deconfuse.runs.finished import Run
from deconfuse.runs.section import Section, median_of

# Table 1 of Liu et al. (NeurIPS 2022), CUB200: K -> improvement of EIF over IF, p.
PAPER = {
    30: "2.29e-02, 3.5e-12",
    50: "2.12e-02, 1.4e-15",
    70: "1.99e-02, 4.0e-19",
    90: "1.98e-02, 1.9e-24",
    100: "1.96e-02, 5.3e-27",
}
NOTE = (
    "d: squared distance of the normalised embeddings. Improvement: the change of d by the first method "
    "minus that by the second, mean over the K closest pairs, then mean ± standard deviation over the "
    "models (one per seed). p: one-sided paired t-test within each model, median (largest). Effect size: "
    "mean difference / standard deviation of the differences, of the model with the median effect, with "
    "its 95 % interval. Not normal: models in which Shapiro and Wilk's test rejects normal differences "
    "(p < 0.05). The pairs of a model share its training set and often their images, so p says nothing "
    "of other models; the standard deviation over the models does."
)


def sections(runs: list[Run]) -> list[Section]:
    """The table of methods against each other, and of each method's own change of d."""
    chosen = retrained(runs, "confusions.csv")
    table = improvements(chosen, "pairs", PAPER, _cells)
    title = "Table 1, confusion pairs: does retraining by EIF move them further apart?"
    return [
        *([Section("table1_pairs", title, table, NOTE)] if len(table) else []),
        *changes(chosen, "table1_pairs_methods", "Change of d of the confusion pairs after retraining"),
    ]


def _cells(tests: list[dict]) -> dict[str, str]:
    known = [each["p_normal"] for each in tests if each["p_normal"] == each["p_normal"]]
    return {
        "p": median_of([each["p_t"] for each in tests]),
        "effect size": middle(tests),
        "not normal": f"{sum(p < 0.05 for p in known)} of {len(known)}" if known else "-",
    }
