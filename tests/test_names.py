from pathlib import Path

import numpy as np

from src.names import corrected, places, without_noise


def test_a_checkpoint_knows_where_data_is_and_how_it_is_cut_by_the_fingerprint_alone():
    groups = ("dataset", "model", "loss", "recipe", "trainer", "target", "influence", "detector")
    settings = {key: {} for key in (*groups, "counterfactual", "retrain", "loop", "pictures")}
    settings |= {"noise": {"ratio": 0}, "seed": 0, "neighbours": None, "params": "head", "output_dir": "out"}
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
    # Checkpoints without one keep the names they have.
    assert home("a", model={"weights": "none"}).name == "x-x-x-x-seed0-b899d12a"
    # The same words elsewhere are other things.
    assert home("a", model={"path": "x"}) != home("a", model={"path": "y"})


def test_without_noise_is_the_folder_of_noise_none():
    keys = ("dataset", "model", "loss", "recipe", "trainer", "target", "influence", "detector")
    settings = {key: {} for key in (*keys, "counterfactual", "retrain", "loop", "pictures")}
    settings |= {"seed": 0, "neighbours": None, "params": "head", "output_dir": "out"}
    choices = dict.fromkeys(("noise", *keys), "x")
    noisy, none = ({**settings, "noise": {"ratio": ratio, "seed": 0}} for ratio in (0.1, 0))
    found = without_noise(noisy, choices, "a", "f")
    assert found == places(none, {**choices, "noise": "none"}, "a", "f")[0]
    assert found.name.startswith("x-none-x-x-seed0-")
    assert found != places(noisy, choices, "a", "f")[0]
    assert noisy["noise"]["ratio"] == 0.1


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
