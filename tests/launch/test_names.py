import json
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf, open_dict

from deconfuse import CONF
from deconfuse.launch.names import NOT_IN_WEIGHTS, corrected, depends, explanation, places, without_noise
from deconfuse.runs import identity
from deconfuse.runs.identity import without_places


def test_a_checkpoint_knows_where_data_is_and_how_it_is_cut_by_the_fingerprint_alone():
    groups = ("dataset", "model", "loss", "recipe", "trainer", "target", "influence", "detector")
    settings = {key: {} for key in (*groups, "counterfactual", "retrain", "relabel", "loop")}
    settings |= {
        "noise": {"ratio": 0},
        "seed": 0,
        "neighbours": None,
        "candidates": None,
        "params": "head",
        "output_dir": "out",
    }
    choices = dict.fromkeys(("noise", *groups), "x")

    def home(data, **changes):
        return places({**settings, **changes}, choices, data)[0]

    one = home("a", dataset={"root": "here", "image_size": 224})
    assert home("a", dataset={"root": "there", "crop_box": False, "path": "x", "image_size": 224}) == one
    assert home("b", dataset={"root": "here", "image_size": 224}) != one
    assert home("a", dataset={"root": "here", "image_size": 99}) != one
    # So is the file of weights that training starts from, where there is one.
    files = [places({**settings, "model": {"weights": f"{x}.pth"}}, choices, "a", "f")[0] for x in "12"]
    assert files[0] == files[1]
    assert places({**settings, "model": {"weights": "1.pth"}}, choices, "a", "g")[0] != files[0]
    # A change of this name trains every model again: raise TRAINING_FORMAT, and say so in the CHANGELOG.
    assert home("a", model={"weights": "none"}).name == "x-x-x-x-seed0-5072c72d"
    # The same words elsewhere are other things.
    assert home("a", model={"path": "x"}) != home("a", model={"path": "y"})


def test_a_key_that_changes_no_weight_counts_under_the_same_name_in_another_group(composed):
    settings, choices = composed

    def home(group, name, value):
        return places({**settings, group: {**settings[group], name: value}}, choices, "data")[0]

    for word in sorted(NOT_IN_WEIGHTS):
        group, name = word.split(".")
        assert home(group, name, "one") == home(group, name, "two")
        for other in {"dataset", "model", "loss", "recipe", "trainer"} - {group}:
            assert home(other, name, "one") != home(other, name, "two"), (other, name)


def test_keys_of_frozen_features_count_only_where_the_backbone_is_frozen():
    groups = ("dataset", "model", "loss", "noise", "trainer")
    settings = {key: {} for key in groups} | {"seed": 0, "noise": {"ratio": 0}}

    def weights(**recipe):
        return depends({**settings, "recipe": {"epochs": 3, **recipe}}, "a")

    assert weights() == weights(frozen=False, whiten=None, hold=0.0, dropout=0.0)
    assert weights(frozen=True, whiten=0.3, hold=1.0) != weights(frozen=True, whiten=0.3, hold=2.0)
    assert weights(frozen=True) != weights()


def test_several_processes_have_the_checkpoint_of_one():
    keys = ("dataset", "model", "loss", "recipe", "trainer", "target", "influence", "detector")
    settings = {key: {} for key in (*keys, "counterfactual", "retrain", "relabel", "loop")}
    settings |= {
        "noise": {"ratio": 0},
        "seed": 0,
        "neighbours": None,
        "candidates": None,
        "params": "head",
        "output_dir": "out",
    }
    choices = dict.fromkeys(("noise", *keys), "x")
    one = {"devices": 1, "accelerator": "cpu", "precision": "32-true"}
    ddp = {**one, "devices": "auto", "strategy": "ddp", "num_nodes": 2}
    half = {**ddp, "precision": "16-mixed"}
    homes = [places({**settings, "trainer": trainer}, choices, "a")[0] for trainer in (one, ddp, half)]
    assert homes[0] == homes[1] != homes[2]
    assert ddp["devices"] == "auto"


def test_without_noise_is_the_folder_of_noise_none():
    keys = ("dataset", "model", "loss", "recipe", "trainer", "target", "influence", "detector")
    settings = {key: {} for key in (*keys, "counterfactual", "retrain", "relabel", "loop")}
    settings |= {"seed": 0, "neighbours": None, "candidates": None, "params": "head", "output_dir": "out"}
    choices = dict.fromkeys(("noise", *keys), "x")
    noisy, none = ({**settings, "noise": {"ratio": ratio, "seed": 0}} for ratio in (0.1, 0))
    found = without_noise(noisy, choices, "a", "f")
    assert found == places(none, {**choices, "noise": "none"}, "a", "f")[0]
    assert found.name.startswith("x-none-x-x-seed0-")
    assert found != places(noisy, choices, "a", "f")[0]
    assert noisy["noise"]["ratio"] == 0.1


@pytest.fixture
def eif():
    """Settings and choices of influence=eif, as runs had them before influence.when."""
    keys = ("dataset", "model", "loss", "recipe", "trainer", "target", "influence", "detector")
    settings = {key: {} for key in (*keys, "counterfactual", "retrain", "relabel", "loop")}
    settings |= {
        "seed": 0,
        "neighbours": None,
        "candidates": None,
        "params": "head",
        "output_dir": "out",
        "noise": {"ratio": 0},
    }
    return settings | {"influence": {"radius": 0.02}}, dict.fromkeys(("noise", *keys), "x")


def test_when_is_in_a_runs_name_where_it_says_something_and_never_in_a_checkpoints(eif):
    settings, choices = eif

    def named(**when):
        own = settings["influence"]
        return places({**settings, "influence": {**own, **when}}, choices, "a")

    words = [{"when": "best", "every": 3}, {"when": "every_n_epochs", "every": 3}]
    words += [{"when": "every_n_epochs", "every": None}]
    assert {named(**each)[0] for each in words} == {named()[0]}
    assert named(when="last", every=7) == named()
    assert named(when="best", every=7) == named(**words[0])
    assert len({named()[1], *(named(**each)[1] for each in words)}) == 4


def test_an_explanation_is_named_after_what_it_depends_on(eif):
    settings, choices = eif

    def named(**changes):
        return explanation({**settings, **changes}, choices, "a")

    assert named().startswith("x-")
    same = [{"influence": {"radius": 0.02, "when": "best", "every": 2}}, {"detector": {"x": 1}}, {"seed": 3}]
    assert {named(**each) for each in same} == {named()}
    others = [{"influence": {"radius": 0.04}}, {"target": {"most": 3}}, {"params": "all"}]
    assert len({named(), *(named(**each) for each in others)}) == 4


def test_what_weights_depend_on_differs_exactly_where_the_folder_does():
    groups = ("dataset", "model", "loss", "recipe", "trainer", "target", "influence", "detector")
    settings = {key: {} for key in (*groups, "counterfactual", "retrain", "relabel", "loop")}
    settings |= {
        "noise": {"ratio": 0.1},
        "seed": 0,
        "neighbours": None,
        "candidates": None,
        "params": "head",
        "output_dir": "out",
    }
    choices = dict.fromkeys(("noise", *groups), "x")
    changes = [
        {},
        {"recipe": {"lr_head": 1}},
        {"recipe": {"validate_every": 3}},
        {"dataset": {"root": "there"}},
        {"seed": 1},
        {"noise": {"ratio": 0, "kind": "shift"}},
        {"noise": {"ratio": 0}},
        {"target": {"most": 3}},
        {"trainer": {"accelerator": "gpu"}},
        {"trainer": {"precision": "bf16"}},
    ]
    found = [{**settings, **change} for change in changes]
    homes = [places(each, choices, "a")[0] for each in found]
    told = [depends(each, "a") for each in found]
    for i in range(len(found)):
        for j in range(i):
            assert (homes[i] == homes[j]) == (told[i] == told[j]), (changes[i], changes[j])
    assert len(set(homes)) == 5


def test_corrected_labels_change_both_names_and_nothing_else_does():
    home, labels = Path("out/checkpoints/a-b-c-d-seed0-12345678"), np.arange(5)
    found = corrected(home, "a-b-c-d-eif-knn-seed0-87654321", labels)
    assert found == corrected(home, "a-b-c-d-eif-knn-seed0-87654321", labels.copy())
    assert found[0].parent == home.parent
    assert found[0].name.startswith("a-b-c-d-seed0-relabels-")
    assert found[1].startswith("a-b-c-d-eif-knn-seed0-relabels-")
    others = [
        corrected(home, "a-b-c-d-eif-knn-seed0-87654321", labels[::-1]),
        corrected(home.with_name("a-b-c-d-seed0-00000000"), "a-b-c-d-eif-knn-seed0-00000000", labels),
    ]
    assert not {*others[0], *others[1]} & {*found}


def renamed(value, old, new):
    """Settings with another prefix at every `_target_`."""
    if isinstance(value, dict):
        return {
            key: item.replace(old, new) if key == "_target_" else renamed(item, old, new)
            for key, item in value.items()
        }
    return value


@pytest.fixture
def composed():
    """All settings of the default job, and its choices."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", ["noise=flip_10", "retrain.mode=cached"], return_hydra_config=True)
    choices = {key: value for key, value in config.hydra.runtime.choices.items() if "/" not in key}
    with open_dict(config):
        del config.hydra
    return OmegaConf.to_container(config, resolve=True), choices


def all_names(settings, choices):
    stamp = json.dumps(depends(settings, "data", "weights"), sort_keys=True)
    return (
        *places(settings, choices, "data"), explanation(settings, choices, "all"),
        without_noise(settings, choices, "data"), stamp,
    )  # fmt: skip


def test_where_our_code_lies_is_in_no_name_and_what_others_code_does_is(composed, monkeypatch):
    settings, choices = composed
    before = all_names(settings, choices)
    assert settings["loss"]["_target_"].startswith("deconfuse.loss.")
    for old, new in (("deconfuse.", "deconfuse.rooms."), ("deconfuse.loss.", "deconfuse.elsewhere.")):
        assert all_names(renamed(settings, old, new), choices) == before
    monkeypatch.setattr(identity, "PACKAGE", "another")
    assert all_names(renamed(settings, "deconfuse.", "another."), choices) == before
    monkeypatch.undo()
    # A user's own package, and an optimizer, are choices.
    assert all_names(renamed(settings, "deconfuse.loss.", "mine.loss."), choices)[0] != before[0]
    assert all_names(renamed(settings, "torch.optim.AdamW", "torch.optim.NAdam"), choices)[0] != before[0]
    retrained = all_names(renamed(settings, "torch.optim.Adam", "torch.optim.SGD"), choices)
    assert retrained[1] != before[1]


@pytest.mark.parametrize("group", ["dataset", "model", "loss", "influence", "detector", "target"])
def test_two_options_with_the_same_numbers_have_two_names(composed, group):
    settings, choices = composed
    found = [
        all_names({**settings, group: {"_target_": f"deconfuse.{group}.{name}", "seed": 0}}, choices)[:2]
        for name in ("tracin.scores", "random.scores", "random.others")
    ]
    assert len({run for _, run in found}) == 3
    assert len({home for home, _ in found}) == (3 if group in ("dataset", "model", "loss") else 1)


def test_the_same_model_in_other_words_is_one_checkpoint(composed):
    settings, choices = composed
    assert without_places(settings["recipe"])["_target_"] == "recipe.Recipe"
    ten = {**settings, "loss": {**settings["loss"], "centres": 10}}
    one, other = (depends(ten, "data") for _ in range(2))
    assert one == other
    words = places(ten, choices, "data")[0], places(ten, {**choices, "loss": "softtriple10"}, "data")[0]
    assert words[0].name.rpartition("-")[2] == words[1].name.rpartition("-")[2]


def test_only_what_says_where_our_code_lies_is_left_out():
    value = {
        "_target_": "deconfuse.influence.eif.scores",
        "_partial_": True,
        "list": [{"_target_": "deconfuse.a.b.c", "x": 1}, 2],
        "optimizer": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.1},
        "mine": {"_target_": "deconfused.x.y.z", "_partial_": True},
        "text": "deconfuse.influence.eif.scores",
    }
    assert without_places(value) == {
        "_target_": "eif.scores",
        "list": [{"_target_": "b.c", "x": 1}, 2],
        "optimizer": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.1},
        "mine": {"_target_": "deconfused.x.y.z", "_partial_": True},
        "text": "deconfuse.influence.eif.scores",
    }
    assert value["_partial_"] is True
