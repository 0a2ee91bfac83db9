import inspect
from functools import partial
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy

from deconfuse.system.errors import UserError
from deconfuse.training.devices import device, joint, strategy
from deconfuse.training.train import find_or_train
from deconfuse.training.trainer_keys import OURS
from tests.made import model_and_data

CPU = partial(pl.Trainer, accelerator="cpu", devices=1)


def test_one_process_works_on_its_device_with_lightnings_own_strategy():
    assert device(CPU) == torch.device("cpu")
    assert joint(CPU) == "auto"


def test_several_processes_are_known_before_they_are_started():
    found = strategy(partial(pl.Trainer, accelerator="cpu", devices=2, strategy="ddp"))
    assert isinstance(found, DDPStrategy)
    assert (found.num_processes, found.num_nodes) == (2, 1)


def test_a_strategy_that_shares_the_model_out_is_refused():
    def trainer(**settings):
        return SimpleNamespace(strategy=SimpleNamespace())

    with pytest.raises(UserError, match=r"trainer: SimpleNamespace shares a model out .* take trainer=auto"):
        strategy(trainer)


def test_an_accelerator_that_is_not_there_is_one_line(tmp_path):
    model, data = model_and_data()
    with pytest.raises(UserError, match="trainer: "):
        find_or_train(model, data, tmp_path, partial(pl.Trainer, accelerator="tpu"), None)


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("max_epochs", 9, "recipe.epochs=N"),
        ("max_steps", 9, "recipe.epochs=N"),
        ("max_time", "00:00:01:00", "recipe.epochs=N"),
        ("fast_dev_run", True, "recipe.epochs=1"),
        ("gradient_clip_val", 1.0, "recipe.clip_norm=X"),
        ("check_val_every_n_epoch", 2, "recipe.validate_every=N"),
        ("limit_val_batches", 1, "recipe.validate_every=N"),
        ("logger", False, "logger=csv"),
        ("default_root_dir", "x", "output_dir=FOLDER"),
        ("enable_checkpointing", False, "output_dir=FOLDER and recipe.checkpoints"),
    ],
)
def test_what_is_set_elsewhere_is_refused_with_the_key_that_sets_it(name, value, instead):
    with pytest.raises(UserError) as caught:
        strategy(partial(CPU, **{name: value}))
    assert str(caught.value).startswith(f"trainer.{name} is not set there: {instead}")


def test_a_misspelt_argument_of_the_trainer_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"no key trainer.prescision; did you mean precision\? Valid: "):
        strategy(partial(CPU, prescision=16))


def test_no_argument_that_the_program_sets_is_left_to_the_user(tmp_path):
    # But for the strategy, which is made of the user's own.
    given = set()

    def noted(**settings):
        given.update(settings)
        raise ZeroDivisionError

    model, data = model_and_data()
    with pytest.raises(ZeroDivisionError):
        find_or_train(model, data, tmp_path, noted, None)
    assert "max_epochs" in given
    assert given - OURS.keys() == {"strategy"}
    assert OURS.keys() < set(inspect.signature(pl.Trainer.__init__).parameters)
