import numpy as np

from src.experiment import detection
from src.part import MISSING
from tests.finished import finish


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
            runs.append(
                finish(
                    tmp_path,
                    f"{detector}{seed}",
                    seed,
                    choices=choices,
                    settings=settings,
                    noise={**found(ap), "recommended_right_all": ap},
                )
            )
    (part,) = detection.parts(runs)
    assert part.table["detector"].tolist() == ["evidence", "loss", "knn", "margin"]
    assert part.table["AP"].tolist() == ["0.925 ± 0.035", "0.800 ± 0.000", "0.725 ± 0.035", MISSING]
    assert set(part.table["noise"]) == {"10 % symmetric"}
    assert detection.parts(runs[:2]) == []  # one detector is nothing to compare


def test_the_picture_has_a_panel_for_each_data_set_and_loss_and_noise_from_little_to_much(tmp_path):
    ap = {("symmetric", 0.1): 0.5, ("symmetric", 0.05): 0.6, ("shift", 0.05): 0.7}
    runs = [
        finish(
            tmp_path,
            f"{dataset}-{kind}-{ratio}-{detector}-{seed}",
            seed,
            choices={"dataset": dataset, "noise": "flip_10", "detector": detector},
            settings={"noise": {"ratio": ratio, "kind": kind}, "detector": {"_target_": detector}},
            noise=found(value + 0.1 * seed + 0.1 * (detector == "evidence")),
        )
        for (kind, ratio), value in ap.items()
        for dataset in ("glyphs", "omniglot")
        for detector in ("knn", "evidence")
        for seed in (0, 1)
    ]
    (part,) = detection.parts(runs)
    upper, lower = part.picture.axes
    assert (upper.get_title(), lower.get_title()) == ("glyphs, proxynca", "omniglot, proxynca")
    assert [tick.get_text() for tick in upper.get_xticklabels()] == [
        "5 %\nsymmetric",
        "10 %\nsymmetric",
        "5 %\nshift",
    ]
    best, other = upper.containers  # best first
    assert (best.get_label(), other.get_label()) == ("evidence", "knn")
    np.testing.assert_allclose(best.lines[0].get_ydata(), [0.75, 0.65, 0.85])
    (bars,) = best.lines[2]
    np.testing.assert_allclose(
        [bar[:, 1] for bar in bars.get_segments()], [[0.7, 0.8], [0.6, 0.7], [0.8, 0.9]]
    )
    assert part.table["noise"].tolist()[::2] == ["5 % symmetric", "10 % symmetric", "5 % shift"] * 2
