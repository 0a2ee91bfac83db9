import json
import os

import numpy as np
import pytest
import yaml

from deconfuse import CONF
from deconfuse.runs import finished
from deconfuse.runs.finished import by_seed, current, distinct, find, grouped, natural, read, usual
from deconfuse.system.errors import UserError
from tests.conftest import ROOT
from tests.finished import REPORT, finish


def test_choices_and_params_are_words(tmp_path):
    run = finish(tmp_path, "a", retrain={"mode": "cached"})
    assert [run.choice(name) for name in ("loss", "params", "retrain", "none")] == [
        "proxynca",
        "head",
        "",
        "",
    ]
    assert run.seed == 0


@pytest.mark.parametrize(
    ("choice", "settings", "flipped", "noise"),
    [
        ("flip_10", {"ratio": 0.1, "kind": "symmetric"}, True, "10 % symmetric"),
        ("flip_10", {"ratio": 0.3, "kind": "shift"}, True, "30 % shift"),
        ("flip_1", {"ratio": 0.005, "kind": "shift"}, True, "0.5 % shift"),
        ("none", {"ratio": 0.0, "kind": "symmetric"}, False, "none"),
        ("flip_10", {"ratio": 0.0, "kind": "symmetric"}, False, "none"),
        ("flip_10", None, True, "flip_10"),
    ],
)
def test_noise_is_named_by_what_was_done(tmp_path, choice, settings, flipped, noise):
    settings = settings and {"noise": settings}
    run = finish(
        tmp_path, "a", choices={"noise": choice}, settings=settings, noise={"flipped": 2} if flipped else None
    )
    assert run.noise == noise


def test_settings_leave_out_what_changes_no_finding(tmp_path):
    one = finish(
        tmp_path, "a", 0,
        settings={"output_dir": "a", "report": False, "again": True,
                  "recipe": {"epochs": 5, "validate_every": 1},
                  "influence": {"radius": 0.02, "seed": 0}},
    )  # fmt: skip
    other = finish(
        tmp_path, "b", 7,
        settings={"output_dir": "b", "recipe": {"epochs": 5, "validate_every": 5},
                  "influence": {"radius": 0.02, "seed": 7}, "retrain": {"mode": "none", "epochs": 4},
                  "loop": {"rounds": 0, "sure": 0.9}, "counterfactual": {"subsets": 0},
                  "noise": {"ratio": 0.0}},
    )  # fmt: skip
    assert one.settings == other.settings == {"recipe": {"epochs": 5}, "influence": {"radius": 0.02}}
    assert one.setting() == other.setting()


def test_a_setting_differs_where_a_number_does_and_not_without_that_number(tmp_path):
    def made(name, **influence):
        return finish(tmp_path, name, settings={"influence": influence, "recipe": {"epochs": 5}})

    one, other = made("a", radius=0.02, steps=50), made("b", radius=0.04, steps=50)
    assert one.setting() != other.setting()
    assert one.setting("influence.radius", "influence.damping", "no.such") == other.setting(
        "influence.radius"
    )
    assert one.setting("influence") == other.setting("influence") != one.setting("influence.radius")
    assert one.setting("influence.steps") != other.setting("influence.steps")
    assert one.settings["influence"] == {"radius": 0.02, "steps": 50}  # as it was


def test_a_table_has_the_columns_asked_for_and_names_stay_text(tmp_path):
    columns = {
        "query": ["01", "NA", "1"],
        "neighbour_class": ["null", "2", ""],
        "distance": [0.5, None, 0.25],
    }
    run = finish(tmp_path, "a", tables={"confusions.csv": columns})
    table = run.table("confusions.csv", "query", "neighbour_class", "distance")
    assert table["query"].tolist() == ["01", "NA", "1"]
    assert table["neighbour_class"].tolist()[:2] == ["null", "2"]
    np.testing.assert_array_equal(table["distance"], [0.5, np.nan, 0.25])
    assert list(run.table("confusions.csv", "query")) == ["query"]


def test_a_cut_short_file_is_named(tmp_path):
    tables = {"retrained.csv": {"change": [0.5, 0.25]}}
    run = finish(
        tmp_path, "a", tables=tables, files={"retrained.csv": 16, "influence.npy": 140}, scores=[[1, 2, 3]]
    )
    assert run.table("retrained.csv", "change")["change"].tolist() == [0.5, 0.25]
    assert run.scores().tolist() == [[1, 2, 3]]
    for name, size, read_it in (
        ("retrained.csv", 16, lambda: run.table("retrained.csv", "change")),
        ("influence.npy", 140, run.scores),
    ):
        path = run.folder / name
        path.write_bytes(path.read_bytes()[:-2])
        with pytest.raises(UserError) as caught:
            read_it()
        start = f"{path}: can't be read (not the {size} bytes that the run wrote); "
        assert str(caught.value).startswith(start)
        assert "\n" not in str(caught.value)


def test_scores_that_are_none_are_named(tmp_path):
    run = finish(tmp_path, "a")
    with pytest.raises(
        UserError, match=r"influence.npy: can't be read \(No such file or directory\); delete"
    ):
        run.scores()
    (run.folder / "influence.npy").write_text("none")
    with pytest.raises(UserError, match=r"influence.npy: can't be read \("):
        run.scores()


@pytest.mark.parametrize(
    ("text", "lacks"),
    [("[]", "checkpoint, choices, classes, command, confusions and 16 more"),
     (json.dumps({**REPORT, "choices": {}}), "seed"),
     ('{"format": 6}', "checkpoint, choices, classes, command, confusions and 15 more")],
)  # fmt: skip
def test_a_report_of_something_else_is_named(tmp_path, text, lacks):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'metrics.json'}: no run's report, it lacks {lacks}; delete the folder and run again"
    )


@pytest.mark.parametrize("text", ["", "seed: [", "7", "\x00"])
def test_damaged_settings_are_one_line(tmp_path, text):
    run = finish(tmp_path, "a", settings={})
    (run.folder / "config.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        read(run.folder)
    assert str(caught.value).startswith(f"{run.folder / 'config.yaml'}: can't be read (")
    assert "\n" not in str(caught.value)


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
            tmp_path, f"{radius}-{seed}", seed, settings={"influence": {"radius": radius, "n_theta": 1}}
        )

    given = yaml.safe_load((ROOT / "conf/influence/eif.yaml").read_text())["radius"]
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


def test_a_seed_that_the_command_gives_is_a_setting(tmp_path):
    def made(seed, noise_seed, command):
        settings, name = {"noise": {"ratio": 0.1, "seed": noise_seed}}, f"{seed}-{noise_seed}-{len(command)}"
        return finish(tmp_path, name, seed, settings=settings, command=command)

    pinned = [made(seed, 0, f"python -m src.run noise.seed=0 seed={seed} x='a b'") for seed in (0, 1, 2)]
    followed = [made(seed, seed, f"python -m src.run seed={seed}") for seed in (0, 1)]
    assert len({run.setting() for run in pinned}) == len({run.setting() for run in followed}) == 1
    assert pinned[0].setting() != followed[0].setting()


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


def test_runs_are_found_by_name(tmp_path):
    for name in ("b", "a", ".c"):
        finish(tmp_path, name) if name[0] != "." else (tmp_path / name).mkdir()
    assert [path.name for path in find(tmp_path)] == ["a", "b"]


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


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "dataset").glob("*.yaml")))
def test_where_a_data_set_lies_is_a_setting_unless_its_yaml_puts_it_below_data_dir(tmp_path, name):
    text = (CONF / "dataset" / f"{name}.yaml").read_text()
    data = {"_target_": f"deconfuse.dataset.{name}.load", "image_size": 32}
    one, other, third = (
        finish(tmp_path, f"{i}", choices={"dataset": name}, settings={"data_dir": root, "dataset": found})
        for i, (root, found) in enumerate(
            [
                ("a", {**data, "root": "a/x"}),
                ("b", {**data, "root": "b/x"}),
                ("b", {**data, "image_size": 64}),
            ]
        )
    )
    assert (one.setting() == other.setting()) == ("root: ${data_dir}/" in text)
    assert third.setting() not in (one.setting(), other.setting())


def test_a_new_data_sets_yaml_says_where_it_lies(tmp_path, monkeypatch):
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "flowers.yaml").write_text("path: ${data_dir}/flowers\nroot: ???\n")
    monkeypatch.setattr(finished, "CONF", tmp_path / "conf")
    settings = [{"path": "a", "root": "r"}, {"path": "b", "root": "r"}, {"path": "a", "root": "s"}]
    one, other, third = (
        finish(tmp_path, str(i), choices={"dataset": "flowers"}, settings={"dataset": each})
        for i, each in enumerate(settings)
    )
    assert one.setting() == other.setting() != third.setting()


def test_where_our_code_lies_is_no_setting(tmp_path):
    targets = ("deconfuse.loss.a.B", "deconfuse.rooms.loss.a.B", "deconfuse.loss.a.C", "mine.loss.a.B")
    found = [finish(tmp_path, name, settings={"loss": {"_target_": name}}).setting() for name in targets]
    assert found[0] == found[1]
    assert len(set(found)) == 3


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
