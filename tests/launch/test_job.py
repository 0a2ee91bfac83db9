import pytest
from omegaconf import OmegaConf

from deconfuse.labels.loop import Relabelling
from deconfuse.launch.job import built
from deconfuse.system.errors import UserError

TARGET = "deconfuse.labels.loop.Relabelling"
LOOP = {"_target_": TARGET, "rounds": 2, "sure": 0.9, "clean": False}


def test_a_group_of_keys_becomes_its_dataclass():
    assert built(OmegaConf.create({"loop": LOOP, "seed": 3}), "loop") == Relabelling(2, 0.9, False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "loop=3 is not a group of keys; give one of them: loop.KEY=VALUE"),
        ({**LOOP, "round": 1}, "loop has the keys rounds, sure, clean; look at round"),
        ({"_target_": TARGET, "rounds": 2}, "loop has the keys rounds, sure, clean; look at clean, sure"),
    ],
)
def test_a_group_that_is_none_or_has_other_keys_is_named(given, message):
    with pytest.raises(UserError) as caught:
        built(OmegaConf.create({"loop": given}), "loop")
    assert str(caught.value) == message
