import inspect
from functools import partial, wraps

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy

from deconfuse.system.errors import UserError
from deconfuse.training.devices import device, joint, strategy, strategy_of
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
    class Sharded(SingleDeviceStrategy):
        pass

    assert isinstance(strategy(partial(CPU, strategy=Sharded("cpu"))), Sharded)
    with pytest.raises(UserError, match=r"trainer: ModelParallelStrategy shares .* take trainer=auto"):
        strategy(partial(pl.Trainer, accelerator="cpu", devices=1, strategy=ModelParallelStrategy()))


def test_the_strategy_is_the_one_that_the_trainer_has(monkeypatch):
    """Also where Lightning's own variables in the environment choose it, and without a Trainer."""
    several, made, init = partial(CPU, devices=2, strategy="ddp", num_nodes=3), [], pl.Trainer.__init__

    @wraps(init)
    def counted(self, **settings):
        made.append(self)
        init(self, **settings)

    monkeypatch.setattr(pl.Trainer, "__init__", counted)
    for variables in ({}, {"PL_TRAINER_ACCELERATOR": "cpu", "PL_TRAINER_DEVICES": "2"}):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        for trainer in (CPU, several, partial(pl.Trainer), partial(pl.Trainer, accelerator="cpu")):
            want = trainer(logger=False, enable_checkpointing=False).strategy
            before = len(made)
            found = strategy_of(trainer)
            assert len(made) == before
            assert type(found) is type(want)
            assert found.root_device == want.root_device
            sizes = [
                getattr(each, "num_processes", 1) * getattr(each, "num_nodes", 1) for each in (found, want)
            ]
            assert sizes[0] == sizes[1]


@pytest.mark.parametrize("value", ["warn", True, False])
def test_deterministic_algorithms_are_chosen_as_a_trainer_does(value):
    found = []
    for make in (
        lambda: CPU(deterministic=value, logger=False),
        lambda: strategy_of(CPU, deterministic=value),
    ):
        torch.use_deterministic_algorithms(not value)
        make()
        found.append(
            (
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
            )
        )
    assert found[0] == found[1] == (bool(value), value == "warn")


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
