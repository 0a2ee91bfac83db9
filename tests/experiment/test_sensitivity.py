import numpy as np

from src.experiment import sensitivity
from tests.finished import finish


def found(ap, right=0.8):
    detector = {"auroc": ap, "average_precision": ap, "recall": ap}
    return {"detector": detector, "absolute_influence": detector, "recommended_right": right}


def turned(folder, method, seed, knob, rate, epochs=1, **choices):
    name = {"eif": "radius", "if": "damping"}[method]
    return finish(
        folder,
        f"{method}{seed}-{knob}-{rate}-{epochs}",
        seed,
        choices={"influence": method, "target": "pairs", **choices},
        settings={"influence": {name: knob}, "retrain": {"epochs": epochs, "optimizer": {"lr": rate}}},
        tables={"retrained.csv": {"d_before": [0.1] * 4, "change": [knob or 1, -rate, rate, rate]}},
        retrain={"lr": rate, "mean": knob},
        noise=found(0.9),
    )


def test_a_row_for_each_knob_and_rate(tmp_path):
    runs = [
        turned(tmp_path, "eif", seed, knob, rate)
        for seed in (0, 1)
        for knob in (0.02, 0.0025)
        for rate in (1e-5, 4e-5)
    ]
    odd = [
        turned(tmp_path, "if", 0, 0.1, 1e-5),
        turned(tmp_path, "eif", 0, None, 1e-5),
        turned(tmp_path, "eif", 0, 0.02, 1e-5, epochs=9),
    ]
    without = finish(tmp_path, "bare", choices={"target": "pairs"}, retrain={"lr": 1e-5, "mean": 0.1})
    (part,) = sensitivity.parts([*runs, *odd, without])
    assert part.table[["knob", "rate"]].values.tolist() == [
        ["radius 0.0025", "1e-05"],
        ["radius 0.0025", "4e-05"],
        ["radius 0.02", "1e-05"],
        ["radius 0.02", "4e-05"],
    ]
    assert part.table["change of d"].tolist() == ["0.0025 ± 0.0000"] * 2 + ["0.0200 ± 0.0000"] * 2
    assert set(part.table["share > 0"]) == {"0.75 ± 0.00"}
    assert part.table["models"].tolist() == [2] * 4
    assert sensitivity.parts([*runs[:2], without]) == []


def test_the_picture_has_a_line_for_each_rate(tmp_path):
    runs = [
        turned(tmp_path, "eif", s, knob, rate)
        for s in (0, 1)
        for knob in (0.02, 0.04)
        for rate in (1e-5, 4e-5)
    ]
    (part,) = sensitivity.parts(runs)
    upper, lower = part.picture.axes
    assert [line.get_label() for line in upper.lines] == ["rate 1e-05", "rate 4e-05"]
    for line in upper.lines:
        np.testing.assert_allclose(line.get_xdata(), [0.02, 0.04])
        np.testing.assert_allclose(line.get_ydata(), [0.02, 0.04])  # turned() moves d by the knob
    np.testing.assert_allclose(lower.lines[0].get_ydata(), [0.9, 0.9])
    assert lower.get_xlabel() == "radius of eif"
