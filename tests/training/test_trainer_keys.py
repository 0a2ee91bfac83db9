import inspect

import pytorch_lightning as pl

from deconfuse.training.trainer_keys import OURS, refusal


def test_each_key_is_one_of_lightnings_and_is_answered_with_another_way():
    assert OURS.keys() < set(inspect.signature(pl.Trainer.__init__).parameters)
    for name, instead in OURS.items():
        assert refusal(name) == f"trainer.{name} is not set there: {instead}; leave trainer.{name} out"
    assert "recipe.epochs=N" in refusal("max_epochs")
