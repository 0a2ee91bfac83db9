import json

import numpy as np
import pytest

from deconfuse.runs.finished import find, read
from deconfuse.system.errors import UserError
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
    ],
)
def test_noise_is_named_by_what_was_done(tmp_path, choice, settings, flipped, noise):
    report = {"flipped": 2} if flipped else None
    run = finish(tmp_path, "a", choices={"noise": choice}, settings={"noise": settings}, noise=report)
    assert run.noise == noise


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
    [("[]", "checkpoint, choices, classes, command, confusions and 17 more"),
     (json.dumps({**REPORT, "choices": {}}), "seed"),
     ('{"format": 8}', "checkpoint, choices, classes, command, confusions and 16 more")],
)  # fmt: skip
def test_a_report_of_something_else_is_named(tmp_path, text, lacks):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'metrics.json'}: no run's report, it lacks {lacks}; delete the folder and run again"
    )


def test_runs_are_found_by_name(tmp_path):
    for name in ("b", "a", ".c"):
        finish(tmp_path, name) if name[0] != "." else (tmp_path / name).mkdir()
    assert [path.name for path in find(tmp_path)] == ["a", "b"]
