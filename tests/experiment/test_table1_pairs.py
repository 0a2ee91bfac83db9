import numpy as np
from scipy import stats

from deconfuse.experiment import table1_pairs
from deconfuse.retrieval.statistics import paired
from deconfuse.runs.section import median_of, spread
from tests.finished import finish

RANDOM = np.random.default_rng(2)
SEEDS = (0, 1, 2)
CHANGE = {(m, s): RANDOM.normal(x, 0.02, 31) for m, x in (("eif", 0.02), ("if", 0.01)) for s in SEEDS}


def runs(folder, target, table):
    found = []
    for (method, seed), change in CHANGE.items():
        found.append(
            finish(
                folder, f"{method}{seed}", seed,
                choices={"target": target, "influence": method},
                tables={"retrained.csv": {"d_before": np.arange(31) / 31, "change": change}},
                retrain={"mean": change.mean(), "lr": 4e-5},
                explained={"table": table},
            )
        )  # fmt: skip
    return found


def test_the_upper_half_is_the_t_test(tmp_path):
    table, methods = (
        section.table for section in table1_pairs.sections(runs(tmp_path, "pairs", "confusions.csv"))
    )
    assert table["pairs"].tolist() == [30]  # of 31 pairs no 50 can be taken
    (row,) = table.to_dict("records")
    x = np.array([CHANGE["eif", s][:30] - CHANGE["if", s][:30] for s in SEEDS])
    p = [stats.ttest_1samp(each, 0, alternative="greater").pvalue for each in x]
    assert row["methods"] == "eif > if"
    assert row["models"] == 3
    assert row["improvement"] == spread(x.mean(1), 4)
    assert row["p"] == median_of(p)
    effect = np.sort(x.mean(1) / x.std(1, ddof=1))[1]
    assert row["effect size"].split()[0] == f"{effect:.2f}"
    assert row["not normal"] == f"{sum(stats.shapiro(each).pvalue < 0.05 for each in x)} of 3"
    assert row["paper, CUB200"] == "2.29e-02, 3.5e-12"
    assert methods["method"].tolist() == ["eif", "if"]


def test_normality_that_nothing_can_be_said_of_is_not_counted(tmp_path, monkeypatch):
    shapiro = iter([0.01, float("nan"), 0.5])
    monkeypatch.setattr(
        "deconfuse.runs.comparison.paired",
        lambda one, other: {**paired(one, other), "p_normal": next(shapiro)},
    )
    table, _ = (section.table for section in table1_pairs.sections(runs(tmp_path, "pairs", "confusions.csv")))
    assert table["not normal"].tolist() == ["1 of 2"]


def test_runs_that_retrained_nothing_are_no_table(tmp_path):
    assert table1_pairs.sections([finish(tmp_path, "a", choices={"target": "pairs"})]) == []
