from scipy import stats

from deconfuse.experiment import table1_groups
from deconfuse.runs.section import median_of, spread
from tests.experiment.test_table1_pairs import CHANGE, SEEDS, runs
from tests.finished import finish


def test_the_lower_half_is_wilcoxons(tmp_path):
    table, _ = (section.table for section in table1_groups.sections(runs(tmp_path, "groups", "groups.csv")))
    assert table["classes"].tolist() == [10, 15, 20, 25, 30]
    for most, row in zip(table["classes"], table.to_dict("records"), strict=True):
        pairs = [(CHANGE["eif", s][:most], CHANGE["if", s][:most]) for s in SEEDS]
        assert row["improvement"] == spread([(a - b).mean() for a, b in pairs], 4)
        assert row["p"] == median_of([stats.wilcoxon(*each, alternative="greater").pvalue for each in pairs])


def test_runs_that_retrained_nothing_are_no_table(tmp_path):
    assert table1_groups.sections([finish(tmp_path, "a", choices={"target": "groups"})]) == []
