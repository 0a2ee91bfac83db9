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
