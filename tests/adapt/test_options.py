import dataclasses

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import OmegaConf

from deconfuse import CONF
from deconfuse.adapt.options import option
from deconfuse.influence.eif import Sphere
from deconfuse.system.errors import UserError

GROUPS = ("target", "influence", "detector")


def comparable(keywords):
    """The keywords with an optimizer's function and keywords, as a partial is equal only to itself."""
    epochs = keywords.get("retraining")
    if epochs is None:
        return keywords
    optimizer = epochs.optimizer.func, epochs.optimizer.keywords
    return keywords | {"retraining": dataclasses.replace(epochs, optimizer=None), "optimizer": optimizer}


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_is_what_hydra_makes_of_it(group):
    """The same function with the same keywords, also where an option builds on another (relatif)."""
    for path in sorted((CONF / group).glob("*.yaml")):
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", [f"{group}={path.stem}", "seed=5"])
        resolved = OmegaConf.to_container(config, resolve=True)[group]
        settings = {key: value for key, value in resolved.items() if key not in ("when", "every")}
        theirs, own = instantiate(settings), option(group, path.stem, 5)
        assert own.func is theirs.func
        assert comparable(own.keywords) == comparable(theirs.keywords)


def test_keys_of_other_groups_have_their_values():
    """${retrain.epochs} of conf/config.yaml, ${recipe.per_class} of the recipe it chooses, and the seed."""
    epochs = option("influence", "unrolled", 7).keywords["retraining"]
    assert (epochs.epochs, epochs.classes_per_batch, epochs.per_class, epochs.seed) == (1, 16, 4, 7)
    assert epochs.optimizer.keywords == {"lr": 4e-5}


def test_values_are_changed_by_key_below_each_other():
    changed = option("influence", {"name": "eif", "n_theta": 2, "path": {"radius": 0.1}}, 3)
    assert changed.keywords == {"n_theta": 2, "path": Sphere(0.1, 50), "normalise": True, "seed": 3}


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("eiff", r"^influence=eiff is not known; did you mean eif"),
        (
            {"name": "eif", "path": {"radios": 1}},
            r"^there is no key influence.path.radios; did you mean radius",
        ),
        ({"n_theta": 2}, r"^influence=\{'n_theta': 2\} is no option"),
        (3, r"^influence=3 is no option"),
        ({"name": "eif", "path": {"radius": -1}}, r"^influence.path.radius=-1 is not positive"),
    ],
)
def test_a_wrong_option_is_one_line(chosen, message):
    with pytest.raises(UserError, match=message):
        option("influence", chosen)
