from deconfuse.experiment import table5
from tests.finished import finish


def test_table5_counts_kinds_by_both_rules(tmp_path):
    def made(seed, centralized, merge):
        kinds = {"centralized": centralized, "diversified": 2, "individual": 5, "others": 1}
        return finish(
            tmp_path,
            str(seed),
            seed,
            merge=merge,
            classes={"kind": kinds, "kind_by_share": {**kinds, "centralized": 0}},
        )

    def quality(precision, by_share):
        return {
            "harmful": {"precision": precision, "recall": 0.25},
            "harmful_by_share": {"precision": by_share, "recall": 0.75},
        }

    runs = [made(0, 3, quality(0.5, 0.1)), made(1, 5, quality(0.5, 0.2)), made(2, 4, quality(None, 0.3))]
    (section,) = table5.sections(runs)
    assert section.table["rule"].tolist() == ["entropy", "0.9"]
    assert section.table["classes"].tolist() == ["12.0 ± 1.0", "8.0 ± 0.0"]
    assert section.table["centralized"].tolist() == ["4.0 ± 1.0", "0.0 ± 0.0"]
    assert section.table["merges: precision"].tolist() == ["0.50 ± 0.00 (2 of 3)", "0.20 ± 0.10"]
    assert section.table["recall"].tolist() == ["0.25 ± 0.00", "0.75 ± 0.00"]
    (section,) = table5.sections([made(7, 1, None)])
    assert set(section.table["merges: precision"]) == {"-"}
