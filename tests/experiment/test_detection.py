import numpy as np
import pytest

from deconfuse.experiment import detection
from tests.finished import finish, noise_report


def test_detectors_are_sorted_by_what_they_find(tmp_path):
    runs = []
    for detector, aps in {
        "knn": (0.7, 0.75),
        "evidence": (0.9, 0.95),
        "loss": (0.8, 0.8),
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
                    noise={**noise_report(ap), "recommended_right_all": ap},
                )
            )
    (section,) = detection.sections(runs)
    assert section.table["detector"].tolist() == ["evidence", "loss", "knn"]
    assert section.table["AP"].tolist() == ["0.925 ± 0.035", "0.800 ± 0.000", "0.725 ± 0.035"]
    assert set(section.table["noise"]) == {"10 % symmetric"}
    assert detection.sections(runs[:2]) == []  # one detector is nothing to compare


def made(folder, detector, ap, *, seed=0, dataset="glyphs", loss="proxynca", noise=(0.1, "symmetric"), n=1):
    ratio, kind = noise
    return finish(
        folder,
        f"{dataset}-{loss}-{kind}-{ratio}-{detector}-{seed}-{n}",
        seed,
        choices={"dataset": dataset, "loss": loss, "noise": "flip_10", "detector": detector},
        settings={
            "noise": {"ratio": ratio, "kind": kind},
            "detector": {"_target_": detector},
            "recipe": {"epochs": n},
        },
        noise=noise_report(ap),
    )


def drawn(axis):
    """Label -> (means, (low, high) of each bar) of a panel."""
    lines = {each.get_label(): each for each in axis.containers}
    bars = {label: [bar[:, 1] for bar in each.lines[2][0].get_segments()] for label, each in lines.items()}
    return {label: (each.lines[0].get_ydata(), bars[label]) for label, each in lines.items()}


def test_the_picture_has_a_panel_for_each_data_set_and_loss_and_noise_from_little_to_much(tmp_path):
    ap = {(0.1, "symmetric"): 0.5, (0.05, "symmetric"): 0.6, (0.05, "shift"): 0.7}
    runs = [
        made(tmp_path, detector, value + 0.1 * s + more, seed=s, dataset=dataset, loss=loss, noise=noise)
        for noise, value in ap.items()
        for dataset, loss in (("glyphs", "proxynca"), ("glyphs", "softtriple"), ("omniglot", "softtriple"))
        for detector, more in (("knn", 0.0), ("evidence", 0.1), ("random", -0.4))
        for s in (0, 1)
    ]
    (section,) = detection.sections(runs)
    titles = [axis.get_title() for axis in section.picture.axes]  # none for what nobody ran
    assert titles == ["glyphs, proxynca", "glyphs, softtriple", "omniglot, softtriple"]
    for axis in section.picture.axes:
        ticks = [tick.get_text() for tick in axis.get_xticklabels()]
        assert ticks == ["5 %\nsymmetric", "10 %\nsymmetric", "5 %\nshift"]
        lines = drawn(axis)
        assert list(lines) == ["evidence", "knn"]  # best first, without random
        means, bars = lines["evidence"]
        np.testing.assert_allclose(means, [0.75, 0.65, 0.85])
        np.testing.assert_allclose(bars, [[0.7, 0.8], [0.6, 0.7], [0.8, 0.9]])


@pytest.mark.parametrize("ap", [0.95, 0.97, 0.99, 0.7, 0.1])
def test_bars_of_seeds_that_agree_have_no_length(tmp_path, ap):
    runs = [made(tmp_path, detector, ap, seed=seed) for detector in ("knn", "loss") for seed in (0, 1, 2)]
    (section,) = detection.sections(runs)  # their mean may be above the largest, by rounding
    means, bars = drawn(section.picture.axes[0])["knn"]
    np.testing.assert_allclose(means, ap)
    np.testing.assert_allclose(bars, [[ap, ap]])


def test_the_picture_is_of_the_setting_with_most_models(tmp_path):
    runs = [made(tmp_path, name, 0.9, seed=seed) for name in ("knn", "loss") for seed in (0, 1)]
    runs += [made(tmp_path, name, 0.2, n=9) for name in ("knn", "loss")]
    (section,) = detection.sections(runs)
    lines = drawn(section.picture.axes[0])
    assert {label: means.tolist() for label, (means, _) in lines.items()} == {"knn": [0.9], "loss": [0.9]}
    # knn and loss of one setting, then the other setting, and what it is.
    assert section.table["AP"].tolist() == ["0.900 ± 0.000"] * 2 + ["0.200"] * 2
    assert section.table["setting"].tolist() == ["recipe.epochs=1"] * 2 + ["recipe.epochs=9"] * 2


def test_settings_of_a_detector_are_never_averaged(tmp_path):
    def tuned(seed, penalty, ap):
        return finish(
            tmp_path,
            f"{seed}-{penalty}",
            seed,
            choices={"noise": "flip_10", "detector": "cleanlab"},
            settings={
                "noise": {"ratio": 0.1, "kind": "symmetric"},
                "detector": {"_target_": "cleanlab", "penalty": penalty},
                "recipe": {"epochs": 1},
            },
            noise=noise_report(ap),
        )

    runs = [made(tmp_path, "knn", 0.5, seed=seed) for seed in (0, 1)]
    runs += [tuned(seed, 0.1, 0.9) for seed in (0, 1)] + [tuned(1, 100, 0.1)]
    (section,) = detection.sections(runs)
    rows = section.table[["detector", "setting", "models", "AP"]].values.tolist()
    assert rows == [
        ["cleanlab", "detector.penalty=0.1", 2, "0.900 ± 0.000"],
        ["knn", "", 2, "0.500 ± 0.000"],
        ["cleanlab", "detector.penalty=100", 1, "0.100"],
    ]
