from src.experiment import table5
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

    quality = {"harmful": {"precision": 0.5, "recall": 0.25}}
    runs = [
        made(0, 3, quality),
        made(1, 5, quality),
        made(2, 4, {"harmful": {"precision": None, "recall": 0.25}}),
    ]
    (part,) = table5.parts(runs)
    assert part.table["rule"].tolist() == ["entropy", "0.9"]
    assert part.table["classes"].tolist() == ["12.0 ± 1.0", "8.0 ± 0.0"]
    assert part.table["centralized"].tolist() == ["4.0 ± 1.0", "0.0 ± 0.0"]
    assert set(part.table["merges: precision"]) == {"0.50 ± 0.00 (2 of 3)"}
    assert set(part.table["recall"]) == {"0.25 ± 0.00"}
    (part,) = table5.parts([made(7, 1, None)])
    assert set(part.table["merges: precision"]) == {"-"}
