import os

import yaml

from deconfuse.runs.finished import read
from deconfuse.runs.takes import by_seed, current, distinct, grouped, natural, usual
from tests.conftest import ROOT
from tests.finished import finish


def test_the_usual_settings_of_each_option_and_data_set(tmp_path):
    def made(name, seed, dataset, influence, **knobs):
        return finish(tmp_path, name, seed, choices={"dataset": dataset, "influence": influence},
                      settings={"influence": knobs})  # fmt: skip

    kept = [
        made("a", 0, "glyphs", "eif", radius=0.02),
        made("b", 1, "glyphs", "eif", radius=0.02),
        made("c", 0, "glyphs", "if", damping=0.01),
        made("d", 0, "cub", "eif", radius=0.04),
    ]
    swept = [made("e", 0, "glyphs", "eif", radius=0.04), made("f", 0, "glyphs", "eif", radius=0.16)]
    assert sorted(run.folder.name for run in usual(swept + kept, "influence")) == ["a", "b", "c", "d"]


def test_of_settings_that_as_many_have_the_usual_ones_are_those_of_conf(tmp_path):
    def made(radius, seed=0):
        return finish(
            tmp_path,
            f"{radius}-{seed}",
            seed,
            settings={"influence": {"path": {"radius": radius}, "n_theta": 1}},
        )

    given = yaml.safe_load((ROOT / "conf/influence/eif.yaml").read_text())["path"]["radius"]
    runs = [made(radius) for radius in (0.0025, 0.01, given, 0.04, 0.16)]
    for order in (runs, runs[::-1]):
        assert usual(order, "influence") == [runs[2]]
    more = made(0.16, seed=1)
    assert usual([*runs, more], "influence") == [runs[-1], more]  # most runs have it


def test_what_an_option_takes_from_another_counts_as_conf(tmp_path):
    damping = yaml.safe_load((ROOT / "conf/influence/ekfac.yaml").read_text())["damping"]
    runs = [
        finish(tmp_path, str(x), choices={"influence": "relatif"}, settings={"influence": {"damping": x}})
        for x in (damping, 10 * damping, damping / 10)
    ]
    assert usual(runs, "influence") == usual(runs[::-1], "influence") == runs[:1]


def test_the_usual_rate_of_retraining_although_it_is_no_choice(tmp_path):
    def made(name, seed, rate):
        return finish(tmp_path, name, seed, settings={"retrain": {"mode": "cached", "lr": rate}},
                      retrain={"mean": seed})  # fmt: skip

    runs = [made("a", 0, 4e-5), made("b", 1, 4e-5), made("c", 0, 1e-5)]
    assert [run.folder.name for run in usual(runs, "retrain")] == ["a", "b"]


def test_each_seed_of_a_setting_is_taken_once(tmp_path):
    runs = [finish(tmp_path, name, seed) for name, seed in (("z", 0), ("a", 0), ("c", 1))]
    assert {seed: run.folder.name for seed, run in by_seed(runs).items()} == {0: "z", 1: "c"}
    assert by_seed([]) == {}
    other = finish(tmp_path, "d", 0, choices={"loss": "softtriple"})
    again = finish(tmp_path, "e", 1, choices={"experiment": "table2"})
    assert [run.folder.name for run in distinct([*runs, other, again])] == ["d", "e", "z"]


def test_groups_are_sorted_by_their_key():
    assert list(grouped([3, 1, 2, 5], lambda n: n % 3)) == [0, 1, 2]
    assert grouped([3, 1, 2, 5], lambda n: n % 3) == {0: [3], 1: [1], 2: [2, 5]}


def test_groups_of_less_noise_come_first():
    names = ["10 % shift", "5 % symmetric", "2.5 % symmetric", "1 % symmetric", "none", "10 % symmetric"]
    order = ["none", "1 % symmetric", "2.5 % symmetric", "5 % symmetric", "10 % shift", "10 % symmetric"]
    assert list(grouped(names, lambda name: name)) == order
    assert sorted(["seed10", "seed9", "a", "", "v1.2.3"], key=natural) == [
        "",
        "a",
        "seed9",
        "seed10",
        "v1.2.3",
    ]


def test_runs_of_data_that_has_changed_since_are_left_out(tmp_path):
    """Seeds 0 and 1 before an image was moved, 0 after; and another folder."""

    def made(name, seed, minute, root="photos", **report):
        finish(tmp_path, name, seed, settings={"dataset": {"root": root}}, **report)
        os.utime(tmp_path / name / "metrics.json", (60 * minute, 60 * minute))
        return read(tmp_path / name)

    old = [made("z", 0, 1, data="a"), made("y", 1, 2, data="a")]
    new, other = made("m", 0, 3, data="b"), made("o", 0, 0, "more", data="a")
    assert current([*old, new, other]) == [new, other]
    again = made("x", 1, 4, data="a")  # the image was moved back
    assert current([*old, new, again]) == [*old, again]
