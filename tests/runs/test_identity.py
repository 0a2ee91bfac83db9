import pytest

from deconfuse import CONF
from deconfuse.runs import identity
from deconfuse.runs.finished import read
from deconfuse.system.errors import UserError
from tests.finished import finish

GROUPS = ("dataset", "model", "loss", "target", "detector")


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
                  "leave_out": {"confusions": 0},
                  "noise": {"ratio": 0.0, "kind": "shift"}},
    )  # fmt: skip
    kept = {"recipe": {"epochs": 5}, "influence": {"radius": 0.02}}
    assert one.settings == other.settings == {**kept, **{group: {} for group in GROUPS}}
    assert one.setting() == other.setting()


def test_keys_that_follow_another_group_are_its_settings(tmp_path):
    """influence.auto.share is counterfactual.share unless the command gives it another value."""

    def made(name, share, own):
        auto = {"subsets": 16, "share": own, "steps": 100}
        settings = {
            "influence": {"damping": 0.01, "auto": auto},
            "counterfactual": {"subsets": 64, "share": share, "steps": 100},
        }
        return finish(tmp_path, name, settings=settings).settings

    followed, given = made("a", 0.2, 0.2), made("b", 0.2, 0.5)
    assert followed["influence"] == {"damping": 0.01, "auto": {"subsets": 16}}
    assert given["influence"]["auto"] == {"subsets": 16, "share": 0.5}
    assert followed["counterfactual"] == given["counterfactual"]


@pytest.mark.parametrize("text", ["", "seed: [", "7", "\x00"])
def test_damaged_settings_are_one_line(tmp_path, text):
    run = finish(tmp_path, "a", settings={})
    (run.folder / "config.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        read(run.folder)
    assert str(caught.value).startswith(f"{run.folder / 'config.yaml'}: can't be read (")
    assert "\n" not in str(caught.value)


def test_a_seed_that_the_command_gives_is_a_setting(tmp_path):
    def made(seed, noise_seed, command):
        settings, name = {"noise": {"ratio": 0.1, "seed": noise_seed}}, f"{seed}-{noise_seed}-{len(command)}"
        return finish(tmp_path, name, seed, settings=settings, command=command)

    pinned = [made(seed, 0, f"python -m src.run noise.seed=0 seed={seed} x='a b'") for seed in (0, 1, 2)]
    followed = [made(seed, seed, f"python -m src.run seed={seed}") for seed in (0, 1)]
    assert len({run.setting() for run in pinned}) == len({run.setting() for run in followed}) == 1
    assert pinned[0].setting() != followed[0].setting()


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
    monkeypatch.setattr(identity, "CONF", tmp_path / "conf")
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


def test_settings_of_something_else_are_named(tmp_path):
    run = finish(tmp_path, "a")
    (run.folder / "config.yaml").write_text("seed: 0\nnoise: {ratio: 0.1}\nloss: 3\n")
    with pytest.raises(UserError) as caught:
        read(run.folder)
    assert str(caught.value) == (
        f"{run.folder / 'config.yaml'}: lacks counterfactual, dataset, detector, influence, leave_out and "
        "7 more; delete the folder and run again"
    )
