import pytest

from src.experiment import closed_loop, counterfactual, detection, sensitivity, table2, table3, table5
from src.part import MISSING
from tests.finished import finish

FLIPPED = {"choices": {"noise": "flip_10"}, "settings": {"noise": {"ratio": 0.1, "kind": "symmetric"}}}


def found(ap, right=0.8):
    detector = {"auroc": ap, "average_precision": ap, "recall": ap}
    return {"detector": detector, "absolute_influence": detector, "recommended_right": right}


def test_detectors_are_sorted_by_what_they_find(tmp_path):
    runs = []
    for detector, aps in {
        "knn": (0.7, 0.75),
        "evidence": (0.9, 0.95),
        "loss": (0.8, 0.8),
        "margin": (None, None),
    }.items():
        for seed, ap in enumerate(aps):
            choices = {"noise": "flip_10", "detector": detector}
            settings = {"noise": {"ratio": 0.1, "kind": "symmetric"}, "detector": {"_target_": detector}}
            runs.append(finish(tmp_path, f"{detector}{seed}", seed, choices=choices, settings=settings,
                               noise={**found(ap), "recommended_right_all": ap}))  # fmt: skip
    (part,) = detection.parts(runs)
    assert part.table["detector"].tolist() == ["evidence", "loss", "knn", "margin"]
    assert part.table["AP"].tolist() == ["0.925 ± 0.035", "0.800 ± 0.000", "0.725 ± 0.035", MISSING]
    assert set(part.table["noise"]) == {"10 % symmetric"}
    assert detection.parts(runs[:2]) == []  # one detector is nothing to compare


def test_table2_is_by_ratio_and_says_what_is_missing(tmp_path):
    def made(name, seed, right, ratio=0.1, theta=1):
        settings = {"noise": {"ratio": ratio, "kind": "shift"}, "influence": {"n_theta": theta}}
        return finish(tmp_path, name, seed, choices={"noise": "flip_10"}, settings=settings,
                      noise={**found(0.9, right), "recommended_right_all": None if seed else 0.7})  # fmt: skip

    runs = [made("a", 0, 0.8), made("b", 1, 0.9), made("c", 0, 0.1, theta=4), made("d", 0, 0.5, 0.3),
            made("e", 0, 0.6, 0.05)]  # fmt: skip
    (part,) = table2.parts(runs)
    rows = part.table.set_index("noise")
    assert list(rows.index) == ["1 % shift", "5 % shift", "10 % shift"]
    assert rows["recommended right"].tolist() == [MISSING, "60.0", "85.0 ± 7.1"]
    assert rows["of all flipped"].tolist() == [MISSING, "70.0", "70.0 (1 of 2)"]
    assert rows["models"].tolist() == [MISSING, 1, 2]
    assert rows.loc["10 % shift", "paper, CUB200, CARS196, InShop"] == "83.3, 91.7, 88.4 %"


def test_table2_of_runs_without_settings(tmp_path):
    (part,) = table2.parts([finish(tmp_path, "a", choices={"noise": "flip_5"}, noise=found(0.9))])
    assert part.table["noise"].tolist() == ["1 %", "5 %", "10 %"]
    assert part.table["recommended right"].tolist() == [MISSING, "80.0", MISSING]


def test_table3_is_of_one_machine_and_one_loss_each(tmp_path):
    def made(name, seed, seconds, method="eif", loss="proxynca", **report):
        return finish(tmp_path, name, seed, choices={"experiment": "table3", "influence": method, "loss": loss},
                      seconds={"influence": seconds, "relabelling": 0.5}, explained={"rows": 90}, **report)  # fmt: skip

    machine = {"machine": {"cores": 2, "threads": 1, "device": "cpu"}}
    (part,) = table3.parts([
        made("a", 0, 1.0, **machine), made("b", 1, 3.0, **machine), made("c", 0, 9.0),
        made("d", 0, 7.0, loss="softtriple", **machine), made("e", 0, 5.0, "if", **machine),
    ])  # fmt: skip
    found = part.table[["loss", "method", "device, cores, threads", "models", "detection"]].values.tolist()
    assert found == [
        ["proxynca", "eif", "-, -, -", 1, "9.00"],
        ["proxynca", "eif", "cpu, 2, 1", 2, "2.00 ± 1.41"],
        ["proxynca", "if", "cpu, 2, 1", 1, "5.00"],
        ["softtriple", "eif", "cpu, 2, 1", 1, "7.00"],
    ]
    assert part.table["paper, CUB200"].tolist()[2] == "375.56 ± 68.06, -"


def test_table5_counts_kinds_by_both_rules(tmp_path):
    def made(seed, centralized, merge):
        kinds = {"centralized": centralized, "diversified": 2, "individual": 5, "others": 1}
        return finish(tmp_path, str(seed), seed, merge=merge,
                      classes={"kind": kinds, "kind_by_share": {**kinds, "centralized": 0}})  # fmt: skip

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


def looped(folder, seed, recalls, clean=None, wrong=9):
    rounds = [{"round": i, "R@1": r, "MAP@R": r / 2, "relabelled": i, "left_out": 0, "wrong": wrong, "broken": wrong}
              for i, r in enumerate(recalls)]  # fmt: skip
    clean = clean and {"R@1": clean, "MAP@R": clean / 2}
    return finish(
        folder, f"loop{seed}", seed, **FLIPPED, noise=found(0.9), loop={"rounds": rounds, "clean": clean}
    )


def test_the_loop_wins_back_a_share_of_the_mean_loss(tmp_path):
    # Lost: 0.3 and 0.1; won after one round: 0.2 and 0.1; the second loop ended there.
    (part,) = closed_loop.parts(
        [looped(tmp_path, 0, (0.5, 0.7, 0.74), 0.8), looped(tmp_path, 1, (0.6, 0.7), 0.7)]
    )
    table = part.table.set_index("round")
    assert list(table.index) == ["0", "1", "2", "clean labels"]
    assert table["R@1 won back"].tolist() == ["-", "75%", "85%", "-"]
    assert table.loc["2", "R@1"] == "0.720 ± 0.028"
    assert table.loc["clean labels", "R@1"] == "0.750 ± 0.071"
    assert table.loc["clean labels", "relabelled"] == "-"
    assert set(table["noise"]) == {"10 % symmetric"}


@pytest.mark.parametrize(
    ("clean", "cell"), [(None, "-"), (0.4, "nothing was lost"), (0.5, "nothing was lost")]
)
def test_without_a_loss_nothing_is_won_back(tmp_path, clean, cell):
    (part,) = closed_loop.parts([looped(tmp_path, 0, (0.5, 0.7), clean, wrong=None)])
    table = part.table.set_index("round")
    assert table.loc["1", "MAP@R won back"] == cell
    assert table.loc["1", "wrong"] == "-"


def test_methods_by_how_well_they_predict(tmp_path):
    def made(method, seed, mean, **influence):
        return finish(tmp_path, f"{method}{seed}{influence}", seed, choices={"influence": method, "target": "pairs"},
                      settings={"influence": influence}, counterfactual={"mean": mean})  # fmt: skip

    (part,) = counterfactual.parts([made("if", 0, 0.8, damping=0.01), made("if", 1, 0.9, damping=0.01),
                                    made("if", 0, 0.5, damping=1.0), made("eif", 0, None)])  # fmt: skip
    found = sorted(part.table[["influence", "damping", "models", "LDS"]].values.tolist())
    assert found == [["eif", "-", 1, MISSING], ["if", "0.01", 2, "0.850 ± 0.071"], ["if", "1.0", 1, "0.500"]]


def turned(folder, method, seed, knob, rate, epochs=1, **choices):
    name = {"eif": "radius", "if": "damping"}[method]
    return finish(
        folder, f"{method}{seed}-{knob}-{rate}-{epochs}", seed,
        choices={"influence": method, "target": "pairs", **choices},
        settings={"influence": {name: knob}, "retrain": {"epochs": epochs, "optimizer": {"lr": rate}}},
        tables={"retrained.csv": {"d_before": [0.1] * 4, "change": [knob or 1, -rate, rate, rate]}},
        retrain={"lr": rate, "mean": knob}, noise=found(0.9),
    )  # fmt: skip


def test_a_row_for_each_knob_and_rate(tmp_path):
    runs = [
        turned(tmp_path, "eif", seed, knob, rate)
        for seed in (0, 1)
        for knob in (0.02, 0.0025)
        for rate in (1e-5, 4e-5)
    ]
    odd = [turned(tmp_path, "if", 0, 0.1, 1e-5), turned(tmp_path, "eif", 0, None, 1e-5),
           turned(tmp_path, "eif", 0, 0.02, 1e-5, epochs=9)]  # fmt: skip
    without = finish(tmp_path, "bare", choices={"target": "pairs"}, retrain={"lr": 1e-5, "mean": 0.1})
    (part,) = sensitivity.parts([*runs, *odd, without])
    assert part.table[["knob", "rate"]].values.tolist() == [
        ["radius 0.0025", "1e-05"], ["radius 0.0025", "4e-05"], ["radius 0.02", "1e-05"], ["radius 0.02", "4e-05"],
    ]  # fmt: skip
    assert part.table["change of d"].tolist() == ["0.0025 ± 0.0000"] * 2 + ["0.0200 ± 0.0000"] * 2
    assert set(part.table["share > 0"]) == {"0.75 ± 0.00"}
    assert part.table["models"].tolist() == [2] * 4
    assert sensitivity.parts([*runs[:2], without]) == []
