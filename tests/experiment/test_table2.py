from deconfuse.experiment import table2
from deconfuse.runs.section import MISSING
from tests.finished import finish, noise_report


def test_table2_is_by_ratio_and_says_what_is_missing(tmp_path):
    def made(name, seed, right, ratio=0.1, theta=1):
        settings = {"noise": {"ratio": ratio, "kind": "shift"}, "influence": {"n_theta": theta}}
        return finish(
            tmp_path,
            name,
            seed,
            choices={"noise": "flip_10"},
            settings=settings,
            noise={**noise_report(0.9, right), "recommended_right_all": None if seed else 0.7},
        )

    runs = [
        made("a", 0, 0.8),
        made("b", 1, 0.9),
        made("c", 0, 0.1, theta=4),
        made("d", 0, 0.5, 0.3),
        made("e", 0, 0.6, 0.05),
    ]
    (section,) = table2.sections(runs)
    rows = section.table.set_index("noise")
    assert list(rows.index) == ["1 % shift", "5 % shift", "10 % shift"]
    assert rows["recommended right"].tolist() == [MISSING, "60.0", "85.0 ± 7.1"]
    assert rows["of all flipped"].tolist() == [MISSING, "70.0", "70.0 (1 of 2)"]
    assert rows["models"].tolist() == [MISSING, 1, 2]
    assert rows.loc["10 % shift", "paper, CUB200, CARS196, InShop"] == "83.3, 91.7, 88.4 %"
