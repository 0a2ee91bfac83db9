import numpy as np

from deconfuse.experiment import sensitivity
from tests.finished import finish, noise_report


def turned(folder, method, seed, knob, rate, epochs=1, **choices):
    own_keys = {"eif": {"path": {"radius": knob}}, "if": {"damping": knob}}[method]
    return finish(
        folder,
        f"{method}{seed}-{knob}-{rate}-{epochs}",
        seed,
        choices={"influence": method, "target": "pairs", **choices},
        settings={
            "influence": own_keys,
            "retrain": {"mode": "cached", "epochs": epochs, "optimizer": {"lr": rate}},
        },
        tables={"retrained.csv": {"d_before": [0.1] * 4, "change": [knob or 1, -rate, rate, rate]}},
        retrain={"lr": rate, "mean": knob},
        noise=noise_report(0.9),
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
    (section,) = sensitivity.sections([*runs, *odd])
    assert section.table[["knob", "rate"]].values.tolist() == [
        ["radius 0.0025", "1e-05"],
        ["radius 0.0025", "4e-05"],
        ["radius 0.02", "1e-05"],
        ["radius 0.02", "4e-05"],
    ]
    assert section.table["change of d"].tolist() == ["0.0025 ± 0.0000"] * 2 + ["0.0200 ± 0.0000"] * 2
    assert set(section.table["share > 0"]) == {"0.75 ± 0.00"}
    assert section.table["models"].tolist() == [2] * 4
    assert sensitivity.sections(runs[:2]) == []


def point(folder, knob, rate, change, ap=0.9, seed=0, dataset="glyphs", flipped=True):
    noise = noise_report(ap or 0.9)
    if ap is None:
        noise["absolute_influence"] = None
    return finish(
        folder,
        f"{dataset}{seed}-{knob}-{rate}",
        seed,
        choices={"influence": "eif", "target": "pairs", "dataset": dataset},
        settings={
            "influence": {"path": {"radius": knob}},
            "retrain": {"mode": "cached", "optimizer": {"lr": rate}},
        },
        tables={"retrained.csv": {"d_before": [0.1], "change": [change]}},
        retrain={"lr": rate, "mean": change},
        noise=noise if flipped else None,
    )


def test_the_picture_has_a_line_for_each_rate_in_one_colour_everywhere(tmp_path):
    changes = {1e-5: (0.1, 0.2, -0.3), 4e-5: (0.4, 0.5, 0.6)}
    knobs, aps = (0.02, 0.04, 0.16), (0.9, None, 0.1)
    runs = [
        point(tmp_path, knob, rate, change, ap, dataset="glyphs")
        for rate, line in changes.items()
        for knob, change, ap in zip(knobs, line, aps, strict=True)
    ]
    runs += [point(tmp_path, knob, 4e-5, 1.0, 0.5, dataset="omniglot") for knob in knobs]
    (section,) = sensitivity.sections(runs)
    left, right, other_left, _ = section.picture.axes
    for line, (rate, expected) in zip(left.lines, changes.items(), strict=True):
        assert line.get_label() == f"rate {rate:g}"
        np.testing.assert_allclose(line.get_xdata(), knobs)
        np.testing.assert_allclose(line.get_ydata(), expected)
    assert left.get_ylim()[0] < -0.3  # a change for the worse is seen
    assert [line.get_color() for line in other_left.lines] == [left.lines[1].get_color()]
    np.testing.assert_allclose(right.lines[0].get_xdata(), [0.02, 0.16])
    np.testing.assert_allclose(right.lines[0].get_ydata(), [0.9, 0.1])
    (legend,) = section.picture.legends
    assert [text.get_text() for text in legend.get_texts()] == ["rate 1e-05", "rate 4e-05"]


def test_each_seed_counts_once_in_what_is_found_however_many_rates_it_has(tmp_path):
    knobs, rates = (0.01, 0.02, 0.04), (1e-5, 4e-5, 1.6e-4)
    runs = [point(tmp_path, knob, rate, 0.1, 0.9) for knob in knobs for rate in rates]
    runs += [point(tmp_path, knob, 1e-5, 0.1, 0.5, seed=1) for knob in knobs]
    (section,) = sensitivity.sections(runs)
    np.testing.assert_allclose(section.picture.axes[1].lines[0].get_ydata(), [0.7] * 3)


def test_without_flipped_labels_the_picture_has_no_panel_of_finding_them(tmp_path):
    knobs = (0.01, 0.02, 0.04)
    (section,) = sensitivity.sections([point(tmp_path, knob, 1e-5, 0.1, flipped=False) for knob in knobs])
    assert [axis.get_ylabel() for axis in section.picture.axes] == ["change of d"]
