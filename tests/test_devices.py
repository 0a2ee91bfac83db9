from functools import partial
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy

from src.devices import device, joint, strategy
from src.errors import UserError
from src.train import find_or_train
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
